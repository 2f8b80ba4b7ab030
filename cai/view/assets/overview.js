/* The run at a glance. */

const POLICIES = ["base", "sft", "rl"];
const MAX_BARS = 30; // What a prompt's file calls an area is free.
const SHARES = ["win_rate", "refusal", "over_refusal"]; // Drawn from 0 to 1.

function openOverview() {
  leaveChain();
  const o = overview;
  showPage(
    "overview",
    make(
      "article",
      { class: "page" },
      make("header", {}, make("h1", {}, written(o.name)), runState(o)),
      warningList(o.warnings),
      evaluationParts(o),
      chainCounts(),
      stageParts(o),
      trainingParts(o),
      judgeParts(o),
      madeParts(o),
    ),
  );
  document.title = plainly(`${o.name} · transcripts`);
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), children);
}

function runState({ status, missing, made }) {
  const constitution = made.find(([name]) => name === "constitution")?.[1];
  return make(
    "p",
    { class: "lead" },
    make("span", { class: status === "done" ? "good" : "bad" }, written(status)),
    constitution ? [" · constitution ", written(constitution)] : null,
    missing.length ? ` · not there (yet): ${missing.join(", ")}` : null,
  );
}

function warningList(warnings) {
  if (!warnings.length) return null;
  return make(
    "aside",
    { class: "warnings", "aria-label": "warnings" },
    make("h2", {}, "Before you trust the numbers"),
    make(
      "ul",
      {},
      warnings.map((one) => make("li", {}, written(one))),
    ),
  );
}

function evaluationParts({ evaluation, panels, rounds, n_heldout: n }) {
  if (!evaluation.length)
    return section(
      "Before and after",
      note("The run has no evaluation (yet), so nothing is known about what training changed."),
    );
  const rows = evaluation.filter((row) => row.slice(1).some((cell) => cell !== "–"));
  const figures = panels.map(({ title, metric, values }) => {
    const share = SHARES.includes(metric);
    const points = POLICIES.map((name) => [name, values[name], name]);
    return intervalChart(
      title,
      points,
      share ? { from: 0, to: 1, line: metric === "win_rate" ? 0.5 : null } : {},
    );
  });
  if (rounds.length) {
    const points = rounds.map((row) => [
      row.round ? `revision ${row.round}` : "response",
      row,
      "sft",
    ]);
    figures.push(intervalChart("Mean reward by revision round", points, { joined: true }));
  }
  return section(
    "Before and after",
    note(
      `${format.plural(n, "held-out prompt")}, the same for each policy; 95 % intervals in brackets. A dash: nothing was measured.`,
    ),
    make("div", { class: "figures" }, figures),
    table(["", "base", "SFT", "RL"], rows),
  );
}

/** How many chains there are of each kind and badge; each is a way into the list. */
function chainCounts() {
  const used = chains.id.map((_, i) => i).filter((i) => chains.stages[i].length);
  const counted = (values) => {
    const counts = new Map();
    for (const i of used)
      for (const value of values(i)) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };
  const badges = counted((i) => chains.badges[i].map((place) => BADGES[place]));
  const bars = (title, name, rows) =>
    rows.length ? barList(title, name, rows, used.length) : null;
  const named = (title, name) =>
    bars(title, name, [...counted(FACETS[name])].sort(([one], [other]) => (one < other ? -1 : 1)));
  return section(
    "What there is to read",
    note(`${format.count(used.length)} of ${format.plural(chains.id.length, "prompt")} used.`),
    make(
      "div",
      { class: "columns" },
      bars(
        "Worth a look",
        "badge",
        BADGES.filter((badge) => badges.has(badge)).map((badge) => [badge, badges.get(badge)]),
      ),
      named("By kind", "kind"),
      named("By split", "split"),
      named("By area", "area"),
    ),
  );
}

/** In their order; of too many the commonest. */
function barList(title, name, rows, total) {
  const more = rows.length - MAX_BARS;
  const shown = more > 0 ? rows.toSorted((a, b) => b[1] - a[1]).slice(0, MAX_BARS) : rows;
  const row = ([value, n]) =>
    make(
      "li",
      {},
      make(
        "button",
        { class: "link", onclick: () => showOnly(name, value) },
        written(format.spaced(value)),
      ),
      bar(n / total),
      make("span", { class: "number" }, format.count(n)),
    );
  return make("div", { class: "bars" }, make("h3", {}, title), make("ul", {}, shown.map(row)),
    more > 0 ? note(`and ${format.count(more)} more, all in the filter's menu`) : null,
  );
}

function bar(share, kind = "") {
  return draw(
    "svg",
    {
      class: `bar ${kind}`,
      viewBox: "0 0 100 8",
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    draw("rect", { width: 100 * Math.min(1, share), height: 8, rx: 1 }),
  );
}

function stageParts({ stages }) {
  if (!stages.length) return null;
  const longest = Math.max(...stages.map((stage) => stage.seconds ?? 0), 1e-9);
  const total = stages.reduce((sum, stage) => sum + (stage.seconds ?? 0), 0);
  const rows = stages.map((stage) => [
    make(
      "span",
      {},
      make("b", {}, stage.name),
      stage.status === "done" ? null : make("span", { class: "bad" }, ` ${stage.status}`),
    ),
    make("span", { class: "timed" }, bar((stage.seconds ?? 0) / longest), stage.time),
    stage.in,
    stage.out,
    stage.generated,
    make(
      "details",
      {},
      make("summary", {}, format.plural(stage.counts.length, "count")),
      definitions(
        "counts",
        stage.counts.map(([name, value]) => [name.replaceAll("_", " "), value]),
      ),
    ),
  ]);
  const notes = stages.flatMap((stage) =>
    stage.notes.map((text) => note(`${stage.name}: `, written(text))),
  );
  return section(
    "Stages",
    note(`${Math.round(total / 6) / 10} minutes in all.`),
    table(["stage", "time", "in", "out", "tokens generated", "counted"], rows),
    notes,
  );
}

function trainingParts({ curves, selection }) {
  if (!curves.length && !selection) return null;
  const figures = curves.map(lineChart);
  const rates = (selection?.rates ?? []).filter((rate) => rate.n);
  if (rates.length) {
    const points = rates.map((rate) => [
      `step ${rate.step}`,
      { ...rate, value: rate.win_rate },
      rate.step === selection.chosen ? "rl" : "base",
    ]);
    figures.push(
      intervalChart("RL: win rate over its start, by kept policy", points, {
        from: 0,
        to: 1,
        line: 0.5,
      }),
    );
  }
  const chosen = selection?.chosen
    ? note(`The policy of step ${selection.chosen} goes on: the one the judge likes best.`)
    : null;
  return section("Training", make("div", { class: "figures" }, figures), chosen);
}

function judgeParts({ judge, sources }) {
  if (!judge.length && !sources.length) return null;
  return section(
    "Judge and preferences",
    judge.length
      ? table(
          ["stage", "pairs", "unscored", "same slot preferred in both orders"],
          judge.map((row) => row.map(String)),
        )
      : null,
    sources.length ? definitions("counts", sources) : null,
  );
}

function madeParts({ made, limits }) {
  return [
    section("How it was made", definitions("counts", made)),
    section(
      "What these numbers can and cannot say",
      make(
        "ul",
        { class: "limits" },
        limits.map((one) => make("li", {}, one)),
      ),
    ),
  ];
}
