/* What was sampled and answered, and what the judge said of it. */

const STAGE_TITLES = { label: "Judged for training", evaluate: "Judged in the evaluation" };

function judgedParts(place, chain) {
  const pairs = (stage) => chain.pairs.filter((pair) => pair.stage === stage);
  const section = (title, texts, stage) =>
    texts.length || pairs(stage).length
      ? make(
          "section",
          { class: "judged", "aria-label": title },
          make("h2", {}, title),
          texts,
          pairRows(place, pairs(stage), stage),
        )
      : null;
  const samples = chain.samples.map((row, i) => [`Sample ${i}`, row]);
  const answers = chain.answers.map((row) => [`Answer of ${row.policy}`, row]);
  const sampled = samples.length ? "Sampled from the fine-tuned policy" : "Pairs of its own texts";
  return [
    section(sampled, textCards(place, samples), "label"),
    section("Answers before and after training", textCards(place, answers), "evaluate"),
  ];
}

/** Texts beside each other. */
function textCards(place, named) {
  if (!named.length) return [];
  const card = ([label, row]) =>
    make(
      "div",
      { class: "card" },
      make("div", { class: "margin" }, make("h3", {}, label), madeBy(row)),
      generatedText(place, row),
    );
  return [make("div", { class: "cards", "data-n": Math.min(3, named.length) }, named.map(card))];
}

function pairRows(place, pairs, stage) {
  if (!pairs.length) return null;
  return [
    make("h3", { class: "judged-title" }, STAGE_TITLES[stage]),
    pairs.map((pair) => pairRow(place, pair)),
  ];
}

/** One pair: what both orders say together and alone, under which principle, and why. */
function pairRow(place, pair) {
  const ids = [...new Set(pair.labels.map((label) => label.principle))];
  const reasoned = pair.labels.filter((label) => label.reasoning);
  return make(
    "div",
    { class: "pair" },
    make(
      "div",
      {},
      pairVerdict(pair),
      pair.orders ? orderStrip(pair) : null,
      reasoned.map((label) => reasoningBox(place, label)),
      // A judge's words may repeat what they judge.
      pair.labels.length && !isCovered(place) ? inFull(pair.labels) : null,
    ),
    make(
      "div",
      { class: "asides" },
      ids.map((id) => principleCard(id, ["preference"])),
    ),
  );
}

function pairVerdict({ first, second, p, orders, labels, preference }) {
  if (!labels.length) {
    return make(
      "p",
      { class: "verdict" },
      make("b", {}, `${preference.chosen} over ${preference.rejected}`),
      ` · P(better) ${format.p(preference.p)} · assumed, nobody was asked`,
    );
  }
  if (p == null) {
    return make(
      "p",
      { class: "verdict" },
      make("span", { class: "bad" }, `${first} and ${second}: no judgement in both orders.`),
    );
  }
  const [better, worse] = p >= 0.5 ? [first, second] : [second, first];
  const agree = (orders[0] - 0.5) * (orders[1] - 0.5) > 0;
  const clamped = preference && Math.abs(preference.p - Math.max(p, 1 - p)) > 0.005;
  const learnt = clamped
    ? ` · trained on with P ${format.p(preference.p)}`
    : preference
      ? " · trained on"
      : "";
  return make(
    "p",
    { class: "verdict" },
    p === 0.5
      ? make("b", {}, `${first} and ${second} are equal`)
      : make("b", {}, `${better} over ${worse}`),
    ` · P(better) ${format.p(Math.max(p, 1 - p))} · `,
    make(
      "span",
      { class: agree ? "good" : "bad" },
      agree ? "both orders agree" : "the orders disagree",
    ),
    learnt,
  );
}

/** Both orders and their mean on a line from one text to the other. */
function orderStrip({ first, second, p, orders }) {
  const x = (share) => 8 + 284 * (1 - share);
  const told = `P(${first} is better): ${format.p(orders[0])} when it is shown first, ${format.p(orders[1])} when second`;
  const dot = (share, order) =>
    draw(
      "g",
      {},
      draw("circle", { class: "order", cx: x(share), cy: 14, r: 6 }),
      draw("text", { x: x(share), y: 17, class: "order" }, order),
    );
  const line = draw(
    "svg",
    { viewBox: "0 0 300 28", role: "img", "aria-label": told },
    draw("title", {}, told),
    draw("line", { class: "axis", x1: 8, x2: 292, y1: 14, y2: 14 }),
    draw("line", { class: "axis", x1: 150, x2: 150, y1: 7, y2: 21 }),
    draw("line", { class: "spread", x1: x(orders[0]), x2: x(orders[1]), y1: 14, y2: 14 }),
    dot(orders[0], "1"),
    dot(orders[1], "2"),
    draw("path", { class: "mean", d: `M${x(p) - 5} 1 h10 l-5 6 z` }),
  );
  const said = `P(${first} is better): ① ${format.p(orders[0])} when shown first, ② ${format.p(orders[1])} when second, ▾ mean ${format.p(p)}`;
  return [
    make(
      "div",
      { class: "strip" },
      make("span", {}, written(first)),
      line,
      make("span", {}, written(second)),
    ),
    note(written(said)),
  ];
}

function inFull(labels) {
  return make(
    "details",
    { class: "full" },
    make("summary", {}, `Both orders in full (${format.plural(labels.length, "judgement")})`),
    labelTable(labels),
  );
}

function labelTable(labels) {
  const several = new Set(labels.map((label) => label.principle)).size > 1;
  const inWords = labels.some((label) => label.verdict);
  const columns = [
    "shown first",
    "shown second",
    "P(first)",
    inWords ? "verdict" : "log-probabilities",
    "P(neither)",
  ];
  if (several) columns.push("principle");
  const cells = (label) => [
    label.first,
    label.second,
    label.unscored
      ? make("span", { class: "bad text" }, written(label.unscored))
      : format.p(label.p),
    inWords
      ? (label.verdict ?? "–")
      : label.logprobs.map((value) => value.toFixed(2).replace("-", "−")).join(", ") || "–",
    format.p(label.outside),
    ...(several ? [label.principle] : []),
  ];
  return table(columns, labels.map(cells));
}

function reasoningBox(place, { first, second, principle, reasoning }) {
  return make(
    "details",
    { class: "reasoning" },
    make(
      "summary",
      {},
      `Reasoning with ${first} as (A), ${second} as (B)`,
      make("span", { class: "quiet" }, " ", written(principle)),
    ),
    madeBy(reasoning),
    generatedText(place, reasoning),
  );
}
