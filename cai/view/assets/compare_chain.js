/* One prompt: what both runs made of it, beside each other. */

const reader = { place: -1, row: null, marks: store.get("cai-compare-marks", true) };
const starts = comparison.chunks.reduce((found, n) => [...found, found.at(-1) + n], [0]);
const loading = [];

async function rowAt(place) {
  const n = starts.findLastIndex((start) => start <= place);
  return (await (loading[n] ??= unpack(`chunk-${n}`)))[place - starts[n]];
}

/** After what is covered has changed. */
function redraw() {
  drawRows();
  if (reader.place >= 0) drawPrompt();
  else follow();
}

async function openPrompt(place) {
  reader.place = place;
  setCurrent(place);
  const row = await rowAt(place);
  if (reader.place !== place) return; // Another was asked for meanwhile.
  reader.row = row;
  drawPrompt();
  document.getElementById("reader").scrollTop = 0;
}

function drawPrompt() {
  const { place, row } = reader;
  showPage(
    "chain",
    promptBar(place),
    make("article", { class: "chain compared" }, isCovered(place) ? cover(place) : promptParts(place, row)),
  );
  const head = isCovered(place) ? COVERED : cut(prompts.head[place], 0, 60);
  document.title = plainly(`${head} · ${overview.a} and ${overview.b}`);
}

function promptBar(place) {
  const at = list.order.indexOf(place);
  const where = at < 0 ? "not in the list as filtered" : `${format.count(at + 1)} of ${format.count(list.order.length)}`;
  const step = (by, label, title) => make("button", { title, "aria-label": title, onclick: () => stepPrompt(by) }, label);
  return make(
    "div",
    { class: "chain-bar" },
    make("span", { class: "steps" }, step(-1, "‹", "previous prompt (k)"), step(1, "›", "next prompt (j)")),
    make("span", { class: "where" }, where),
    make("span", { class: "grow" }),
    make("span", { class: "steps" }, make("button", { "aria-pressed": reader.marks, onclick: toggleMarks, title: "mark the words that differ (t)" }, "marks")),
  );
}

function toggleMarks() {
  reader.marks = !reader.marks;
  store.set("cai-compare-marks", reader.marks);
  const box = document.getElementById("reader"), top = box.scrollTop;
  if (reader.place >= 0) drawPrompt();
  box.scrollTop = top;
}

function stepPrompt(by) {
  const at = list.order.indexOf(reader.place);
  const next = at < 0 ? 0 : Math.min(list.order.length - 1, Math.max(0, at + by));
  if (list.order.length) location.hash = promptLink(list.order[next]);
}

function promptParts(place, row) {
  const about = [format.spaced(prompts.kind[place]), prompts.area[place], row.source];
  return [
    make(
      "header",
      {},
      make("p", { class: "about" }, about.map((one) => make("span", {}, written(one))), make("a", { class: "id", href: promptLink(place) }, prompts.id[place])),
    ),
    make("section", { class: "conversation", "aria-label": "conversation" }, row.messages.map(turn)),
    row.threads.map(threadPart),
    make("section", { class: "thread" }, make("h2", {}, "In numbers"), figureTable(row.figures)),
  ];
}

function turn([role, text]) {
  return make("div", { class: "turn" }, make("h3", {}, role), make("div", { class: "text" }, written(text)));
}

function threadPart({ part, differs, why, items }) {
  return make(
    "section",
    { class: "thread" },
    make("h2", {}, PARTS[part]),
    make("p", { class: differs ? "why" : "note" }, why ? written(why) : "The same in both runs."),
    differs && items.some((item) => item.a && "text" in item.a) ? sideNames() : null,
    items.map((item) => (item.pair ? judgementPart(item) : stepPart(item))),
  );
}

/** Which column is which run; stays in sight above long texts. */
function sideNames() {
  const name = (letter, path) => make("p", {}, make("b", { class: `letter ${letter}` }, letter), " ", written(path));
  return make("div", { class: "sides names" }, name("A", overview.a), name("B", overview.b));
}

function stepPart({ name, change, a, b }) {
  const head = (said, kind = "quiet") => make("h3", {}, name, make("span", { class: kind }, said));
  if (b === undefined) {
    return make("div", { class: "step" }, head("the same in both"), textColumn(a, written(a.text), askedPart(a, asked(a, 0), [written(asked(a, 0))])));
  }
  const said = !a || !b ? "in one run only" : change == null ? "a generation failed" : change ? `${format.percent(change)} of the words differ` : "the same words";
  const texts = compareTexts(a?.text, b?.text, change == null || change > REWRITTEN);
  const asks = [asked(a, 0), asked(b, 1)], edited = compareTexts(...asks, a?.principle !== b?.principle);
  const columns = [a, b].map((row, side) => textColumn(row, texts[side], askedPart(row, asks[side], edited[side], asks[0] !== asks[1])));
  return make("div", { class: "step" }, head(said, change === 0 ? "quiet" : "differs"), make("div", { class: "sides" }, columns));
}

/** The nodes of two texts, what only one of them has being marked unless they are `unlike`. */
function compareTexts(one, other, unlike) {
  if (!reader.marks || unlike || one === other) return [one, other].map((text) => written(text ?? ""));
  const found = wordDiff(one, other);
  return [diffNodes(found, ["same", "removed"]), diffNodes(found, ["same", "added"])];
}

/** What the principle asks for, in the run of `side`: 0 is A, 1 is B. */
function asked(row, side) {
  return (row?.principle && principles[side][row.principle]?.[row.asks]) ?? "";
}

function askedPart(row, text, nodes, open = false) {
  if (!row?.principle) return null;
  return make("details", { class: "asked", open }, make("summary", {}, written(row.principle)), make("p", {}, text ? nodes : "asks for nothing"));
}

/** One run's text under what asked for it, and what made it. */
function textColumn(row, nodes, asks) {
  if (!row) return make("div", {}, note("Not there."));
  const failed = row.error ? [make("span", { class: "bad" }, "Error: "), written(row.error)] : null;
  return make("div", {}, asks, make("div", { class: "text" }, failed ?? nodes), madeBy(row));
}

function madeBy(row) {
  const title = [row.model, `record ${row.id}`, `seed ${row.seed}`, `temperature ${row.temperature}`].join("\n");
  const facts = [format.plural(row.tokens, "token"), row.finish === "length" && "cut off at the limit", row.model];
  if (row.reward != null) facts.unshift(`reward ${format.signed(row.reward)}`);
  return make("p", { class: "made", title }, facts.filter(Boolean).map((fact) => make("span", {}, written(fact))));
}

function judgementPart({ pair, a, b }) {
  const cells = (letter, row) => [make("b", { class: `letter ${letter}` }, letter), ...row];
  return make("div", { class: "step" }, make("h3", {}, pair), table(["", "P(first)", "under", "orders"], [cells("A", a), cells("B", b)]));
}

function figureTable(figures) {
  return table(["", "", "A", "B"], figures);
}

function table(head, rows) {
  const cell = (tag) => (value, i) => make(tag, { class: i > head.length - 3 && "number" }, typeof value === "string" ? written(value) : value);
  return make(
    "div",
    { class: "table" },
    make("table", {}, make("thead", {}, make("tr", {}, head.map(cell("th")))), make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))),
  );
}
