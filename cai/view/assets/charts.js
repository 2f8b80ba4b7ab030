/* Plots as SVG. Colours come from page.css by class. */

const PLOT = { width: 340, height: 170, left: 46, right: 12, top: 12, bottom: 26 };

/** Round numbers between two values, about `n` of them. */
function ticks(low, high, n = 4) {
  const span = high - low || Math.abs(high) || 1,
    rough = span / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i++)
    found.push(i * step);
  return found;
}

function tickLabel(value) {
  const text =
    Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3)
      ? value.toExponential(0)
      : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

/** Places of values on a plot whose axes go over `xs` and `ys`, with some room. */
function scales(xs, ys, { from = null, to = null } = {}) {
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  let [low, high] = [from ?? Math.min(...ys), to ?? Math.max(...ys)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const room = 0.06 * (high - low);
  const { width, height } = PLOT;
  const x = (value) =>
    PLOT.left + ((value - left) / (right - left || 1)) * (width - PLOT.left - PLOT.right);
  const y = (value) =>
    height -
    PLOT.bottom -
    ((value - low + room) / (high - low + 2 * room)) * (height - PLOT.top - PLOT.bottom);
  return { x: left === right ? () => (PLOT.left + width) / 2 : x, y, ys: ticks(low, high) };
}

/** A plot with its title above it and its axes drawn; `xLabels` are [place, label, anchor], `marks` go on top. */
function plot(title, told, { y, ys }, xLabels, marks) {
  const { width, height, left, right, bottom } = PLOT;
  return make(
    "figure",
    {},
    make("figcaption", {}, title),
    draw(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told },
      draw("title", {}, told),
      ys.map((value) => [
        draw("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
        draw("text", { class: "tick y", x: left - 7, y: y(value) + 4 }, tickLabel(value)),
      ]),
      xLabels.map(([place, label, anchor = "middle"]) =>
        draw(
          "text",
          { class: "tick", "text-anchor": anchor, x: place, y: height - bottom + 18 },
          label,
        ),
      ),
      marks,
    ),
  );
}

/** A training curve. */
function lineChart({ title, steps, values, n_not_finite: lost }) {
  if (!values.length) return null;
  const scale = scales(steps, values),
    last = steps.length - 1;
  const path = steps
    .map(
      (step, i) => `${i ? "L" : "M"}${scale.x(step).toFixed(1)} ${scale.y(values[i]).toFixed(1)}`,
    )
    .join("");
  const few =
    steps.length <= 20
      ? steps.map((step, i) =>
          draw("circle", { class: "point", cx: scale.x(step), cy: scale.y(values[i]), r: 2.5 }),
        )
      : [];
  const end = [scale.x(steps[last]), `step ${format.count(steps[last])}`];
  const ends = last
    ? [
        [scale.x(steps[0]), format.count(steps[0]), "start"],
        [...end, "end"],
      ]
    : [end];
  const told = `${title}: from ${tickLabel(values[0])} to ${tickLabel(values[last])} over ${format.plural(steps.length, "point")}`;
  const note = lost ? ` (${format.plural(lost, "value")} not finite)` : "";
  return plot(title + note, told, scale, ends, [draw("path", { class: "curve", d: path }), few]);
}

/** Estimates with their intervals: [label, metric, class] each; `line` is drawn across. */
function intervalChart(
  title,
  points,
  { from = null, to = null, line = null, joined = false } = {},
) {
  const shown = points.filter(([, metric]) => metric);
  const ends = shown.flatMap(([, m]) => [m.value, m.low ?? m.value, m.high ?? m.value]);
  const places = points.map((_, i) => i);
  const scale = scales([-0.5, points.length - 0.5], [...ends, ...(line == null ? [] : [line])], {
    from,
    to,
  });
  const marks = points.map(([, metric, kind], i) =>
    metric ? whisker(scale, places[i], metric, kind) : null,
  );
  const told = `${title}: ${shown.map(([label, m]) => `${label} ${tickLabel(Number(m.value.toPrecision(3)))}`).join(", ")}`;
  const path = shown.map(
    ([label, m], i) =>
      `${i ? "L" : "M"}${scale.x(points.findIndex(([name]) => name === label))} ${scale.y(m.value)}`,
  );
  return plot(
    title,
    told,
    scale,
    points.map(([label], i) => [scale.x(i), label]),
    [
      line == null
        ? null
        : draw("line", {
            class: "even",
            x1: PLOT.left,
            x2: PLOT.width - PLOT.right,
            y1: scale.y(line),
            y2: scale.y(line),
          }),
      joined && path.length > 1 ? draw("path", { class: "curve", d: path.join("") }) : null,
      marks,
    ],
  );
}

function whisker({ x, y }, place, { value, low, high }, kind) {
  const at = x(place);
  const ends =
    low == null
      ? []
      : [
          draw("line", { x1: at, x2: at, y1: y(low), y2: y(high) }),
          draw("line", { x1: at - 5, x2: at + 5, y1: y(low), y2: y(low) }),
          draw("line", { x1: at - 5, x2: at + 5, y1: y(high), y2: y(high) }),
        ];
  return draw(
    "g",
    { class: `whisker ${kind}` },
    ends,
    draw("circle", { cx: at, cy: y(value), r: 4 }),
  );
}
