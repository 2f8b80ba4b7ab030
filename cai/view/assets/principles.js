/* What a principle says and did: beside a text, in a table of all, on a page of its own. */

const TEXTS = ["critique", "revision", "preference"];

/** Those of a principle's texts that it has. */
function wording(principle, names) {
  return names.filter((name) => principle[name]).map((name) => [name, principle[name]]);
}

function principleLink(id) {
  return make("a", { href: address({ principle: id }) }, written(id));
}

/** A principle beside what it caused. */
function principleCard(id, texts) {
  const found = principles.find((principle) => principle.id === id);
  const link = (n, facet, said) =>
    n ? make("button", { class: "link", onclick: () => showOnly(facet, id) }, said) : null;
  const [drew, judged] = ["principle", "judged_under"].map((name) => chainsBy(name).get(id) ?? 0);
  return make(
    "aside",
    { class: "principle", "aria-label": `principle ${id}` },
    make("h4", {}, principleLink(id)),
    found?.known ? definitions("", wording(found, texts)) : note("Not in this run's constitution."),
    link(drew, "principle", `drawn in ${format.plural(drew, "chain")}`),
    link(judged, "judged_under", `${format.plural(judged, "chain")} judged under it`),
  );
}

const chainCountsBy = {};

/** How many chains drew each principle or were judged under it, by its id. */
function chainsBy(facet) {
  if (chainCountsBy[facet]) return chainCountsBy[facet];
  const counts = (chainCountsBy[facet] = new Map());
  chains.id.forEach((_, i) => {
    for (const id of new Set(FACETS[facet](i))) counts.set(id, (counts.get(id) ?? 0) + 1);
  });
  return counts;
}

function openPrinciples() {
  leaveChain();
  const drawn = Math.max(1, ...principles.map((one) => one.n_drawn));
  const rows = principles.map((one) => [
    principleLink(one.id),
    make("span", { class: "timed" }, bar(one.n_drawn / drawn), format.count(one.n_drawn)),
    one.changed ? format.percent(one.changed.value) : "–",
    one.change ? format.percent(one.change.value) : "–",
    format.signed(one.before?.value),
    format.signed(one.after?.value),
    one.gain ? format.signed(one.gain.value) : "–",
    one.agree ? `${format.percent(one.agree.value)}` : "–",
    format.count(one.n_pairs),
  ]);
  const columns = [
    "principle",
    "drawn",
    "changed the text",
    "words changed",
    "reward before",
    "after",
    "gain",
    "orders agree",
    "pairs",
  ];
  showPage(
    "principles",
    make(
      "article",
      { class: "page wide" },
      make(
        "header",
        {},
        make("h1", {}, "Principles"),
        make(
          "p",
          { class: "lead" },
          "How often each was drawn for a revision, what its revisions changed, and how the judge fares under it.",
        ),
      ),
      principles.length ? table(columns, rows) : note("The run has no constitution (yet)."),
      note(
        "Rewards are the reward model's, of what was revised and of its revision. Orders agree: the judge prefers the same text whichever is shown first.",
      ),
    ),
  );
  document.title = plainly(`Principles · ${overview.name}`);
}

function openPrinciple(id) {
  leaveChain();
  // An address cannot hold an unpaired surrogate.
  const one = principles.find((principle) => principle.id.toWellFormed() === id);
  if (!one) return openMissing(`This run knows no principle ${JSON.stringify(id)}.`);
  showPage(
    "principle",
    make(
      "article",
      { class: "page" },
      make("p", { class: "about" }, make("a", { href: "#principles" }, "‹ all principles")),
      make(
        "header",
        {},
        make("h1", {}, written(one.id)),
        make("p", { class: "lead" }, principleFacts(one)),
      ),
      one.known
        ? definitions("wording", wording(one, TEXTS))
        : note("Not in this run's constitution."),
      principleNumbers(one),
      rewardChart(one),
      principleChains(one),
    ),
  );
  document.title = plainly(`${one.id} · ${overview.name}`);
}

function principleFacts({ tags = [], weight }) {
  const facts = [
    weight != null && weight !== 1 ? `weight ${weight}` : null,
    tags.length ? tags.join(", ") : null,
  ];
  return written(facts.filter(Boolean).join(" · "));
}

function principleNumbers(one) {
  const number = (value, label, detail) =>
    make(
      "div",
      { class: "figure" },
      make("b", {}, value),
      make("span", {}, label),
      make("small", {}, detail),
    );
  const ends = (metric, show) =>
    metric?.low == null ? "" : `95 %: ${show(metric.low)} to ${show(metric.high)}`;
  const lost = one.n_without_revision
    ? `${format.count(one.n_without_revision)} without a revision`
    : "";
  return make(
    "div",
    { class: "numbers" },
    number(format.count(one.n_drawn), "times drawn", lost),
    number(
      format.percent(one.changed?.value),
      "changed the text",
      ends(one.changed, format.share),
    ),
    number(
      format.percent(one.change?.value),
      "of the words changed, on average",
      ends(one.change, format.share),
    ),
    number(format.signed(one.gain?.value), "reward gained", ends(one.gain, format.signed)),
    number(
      format.percent(one.agree?.value),
      "of judged pairs agree in both orders",
      `${format.plural(one.n_pairs, "pair")}${one.agree ? `, ${ends(one.agree, format.share)}` : ""}`,
    ),
  );
}

function rewardChart({ before, after }) {
  if (!before) return null;
  return section(
    "Mean reward",
    make(
      "div",
      { class: "figures" },
      intervalChart(
        "before and after its revisions",
        [
          ["before", before, "base"],
          ["after", after, "sft"],
        ],
        { joined: true },
      ),
    ),
  );
}

/** Where it did most, where it did nothing, and all of them in the list. */
function principleChains(one) {
  const place = principles.indexOf(one);
  const rounds = [];
  chains.drawn.forEach((drawn, chain) =>
    drawn.forEach(
      (p, i) =>
        p === place &&
        chains.changes[chain][i] != null &&
        rounds.push([chain, i + 1, chains.changes[chain][i]]),
    ),
  );
  rounds.sort((a, b) => b[2] - a[2]);
  const item = ([chain, round, change]) =>
    make(
      "li",
      {},
      make(
        "a",
        { href: chainLink(chain, round) },
        isCovered(chain) ? COVERED : written(chains.head[chain]),
      ),
      make("span", { class: "quiet" }, ` round ${round}, ${format.percent(change)} changed`),
    );
  const some = (title, rows) =>
    rows.length
      ? make("div", {}, make("h3", {}, title), make("ol", { class: "links" }, rows.map(item)))
      : null;
  const way = (facet, said) =>
    chainsBy(facet).has(one.id)
      ? make("button", { class: "action", onclick: () => showOnly(facet, one.id) }, said)
      : null;
  const most = rounds.filter(([, , change]) => change > 0).slice(0, 8);
  const least = rounds.slice(most.length).slice(-8).reverse();
  return section(
    "Its chains",
    make(
      "p",
      { class: "actions" },
      way("principle", "Read the chains that drew it"),
      way("judged_under", "Read the chains judged under it"),
    ),
    make(
      "div",
      { class: "columns two" },
      some("It changed most", most),
      some("It changed least", least),
    ),
  );
}

function openMissing(text) {
  showPage(
    "missing",
    make(
      "article",
      { class: "page" },
      make("h1", {}, "Not here"),
      make("p", { class: "lead" }, written(text)),
      make("p", {}, make("a", { href: "#overview" }, "Overview of the run")),
    ),
  );
}
