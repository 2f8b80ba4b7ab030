/* What differs between two runs as wholes, and the start. */

function openOverview() {
  reader.place = -1;
  setCurrent(-1);
  const o = overview;
  showPage("overview", make("article", { class: "page wide" }, overviewHead(o), madeFrom(o), parted(o), numbers(o), mostChanged(o)));
  document.title = plainly(`${o.a} and ${o.b}`);
  document.getElementById("reader").scrollTop = 0;
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), children);
}

function overviewHead({ a, b, prompts: said }) {
  const name = (letter, path) => make("h1", {}, make("b", { class: `letter ${letter}` }, letter), " ", written(path));
  return make("header", {}, name("A", a), name("B", b), make("p", { class: "lead" }, written(said)));
}

function madeFrom(o) {
  const parts = [constitutionPart(o.constitution)];
  if (o.settings.length) parts.push(plainTable(["setting", "A", "B", "enters"], o.settings));
  if (o.models.length) parts.push(plainTable(["model", "A", "B"], o.models));
  if (o.versions.length) parts.push(plainTable(["made with", "A", "B"], o.versions));
  parts.push(o.files.map((file) => make("div", { class: "principle-change" }, make("h3", {}, written(file.name)), wordsPart(file.diff))));
  if (o.same) parts.push(note("Everything is the same: constitution, settings, models, templates, versions."));
  return section("What they were made from", parts);
}

function plainTable(head, rows) {
  const cell = (tag) => (value) => make(tag, {}, written(value ?? "–"));
  return make(
    "div",
    { class: "table" },
    make("table", {}, make("thead", {}, make("tr", {}, head.map(cell("th")))), make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))),
  );
}

function constitutionPart({ a, b, system_prompt: system, principles: changes, n_same: n, reordered }) {
  const parts = changes.map((change) => {
    const { id, state, renamed_to: to, weights, texts } = change;
    const said = [state + (to ? ` as ${to}` : ""), weights && `weight ${weights[0]} → ${weights[1]}`];
    return make(
      "div",
      { class: "principle-change" },
      make("h3", {}, written(id), make("span", { class: `state ${state}` }, written(said.filter(Boolean).join(", ")))),
      make("dl", { class: "wording" }, texts.map((text) => [make("dt", {}, text.name), make("dd", {}, wordsPart(text.diff))])),
    );
  });
  if (system) parts.unshift(make("div", { class: "principle-change" }, make("h3", {}, "System prompt"), wordsPart(system.diff)));
  if (reordered) parts.push(note("The principles stand in another order, which decides what is drawn."));
  if (changes.length) parts.push(note(...written(`${format.plural(n, "principle")} ${n === 1 ? "is" : "are"} the same in ${a} and ${b}.`)));
  return parts;
}

function wordsPart(diff) {
  return make("div", { class: "text diff" }, diffNodes(diff, ["same", "removed", "added"]));
}

/** Part by part: how much is the same, and what the first differences come from. */
function parted({ parts }) {
  const row = (part) => {
    const changed = part.n_prompts ? part.n_changed / part.n_prompts : 0;
    return make(
      "div",
      { class: "parted" },
      make("h3", {}, PARTS[part.part]),
      make(
        "div",
        {},
        part.n_prompts ? shareBar(changed) : null,
        part.n_prompts ? make("p", { class: "note" }, `${format.count(part.n_changed)} of ${format.plural(part.n_prompts, "prompt")} changed${part.n_same_words ? `, ${format.count(part.n_same_words)} made anew with the same words` : ""}`) : null,
        make("ul", {}, part.reasons.map((reason) => reasonLine(part.part, reason))),
        make("ul", { class: "alone" }, part.alone.map(([said, n]) => make("li", {}, written(`${format.count(n)} not compared: ${said}`)))),
      ),
    );
  };
  return section("What changed, and why", note("A prompt is counted by its first difference; what comes later in its chain follows from that."), parts.map(row));
}

function shareBar(share) {
  const box = draw("svg", { class: "share", viewBox: "0 0 100 1", preserveAspectRatio: "none", role: "img", "aria-label": `${format.percent(share)} changed` });
  box.append(draw("rect", { width: 100, height: 1, class: "same" }), draw("rect", { width: 100 * share, height: 1, class: "changed" }));
  return box;
}

function reasonLine(part, [said, n]) {
  const show = () => showReason(part, said);
  return make("li", {}, make("b", { class: "number" }, format.count(n)), " ", make("button", { class: "link", title: "list these prompts", onclick: show }, written(said)));
}

function numbers({ deltas }) {
  const both = deltas.filter((row) => row.a != null && row.b != null);
  const notes = [...new Set(both.map((row) => row.note).filter(Boolean))];
  const line = (row) => {
    const mark = row.note ? make("sup", {}, String(notes.indexOf(row.note) + 1)) : null;
    const changed = row.paired ? `${format.count(row.n_changed)} of ${format.count(row.n[0])}` : `unpaired: ${row.n.join(", ")}`;
    const cells = [[row.name, mark], row.a, row.b, make("span", { class: row.clear && "clear" }, row.delta ?? "–"), changed];
    return make("tr", { class: row.n_changed || !row.paired ? "" : "still" }, cells.map((cell, i) => make("td", { class: i && "number" }, cell)));
  };
  const bodies = Object.entries(PARTS).map(([part, title]) => {
    const rows = both.filter((row) => row.part === part);
    return rows.length ? make("tbody", {}, make("tr", {}, make("th", { colspan: 5, scope: "rowgroup" }, title)), rows.map(line)) : null;
  });
  if (!both.length) return section("In numbers", note("Nothing was measured in both runs."));
  const head = ["", "A", "B", "B − A", "changed"].map((name, i) => make("th", { class: i && "number" }, name));
  const lone = (letter, other) => {
    const parts = [...new Set(deltas.filter((row) => row[other] == null).map((row) => row.part))].filter((part) => !both.some((row) => row.part === part));
    return parts.length ? note(`Only ${letter} has ${parts.map((part) => PARTS[part]).join(", ")}: nothing to compare.`) : null;
  };
  return section(
    "In numbers",
    note("B − A with 95 % intervals over prompts, paired where the prompts are the same. Bold: the interval leaves out zero. Faint: no prompt has another value."),
    make("div", { class: "table" }, make("table", { class: "deltas" }, make("thead", {}, make("tr", {}, head)), bodies)),
    notes.map((said, i) => note(make("sup", {}, String(i + 1)), " ", ...written(said))),
    lone("A", "b"),
    lone("B", "a"),
  );
}

function mostChanged({ most_changed: n }) {
  const row = (place) => {
    const whys = [...new Set(FACETS.reason(place))].filter(Boolean);
    return make(
      "li",
      {},
      make("b", { class: "number" }, format.percent(prompts.change[place])),
      make("span", {}, make("a", { href: promptLink(place) }, isCovered(place) ? COVERED : written(prompts.head[place])), make("span", { class: "note" }, written(whys.join("; ")))),
    );
  };
  if (!n) return section("The prompts that changed most", note("None did."));
  const title = n > 1 ? `The ${n} prompts that changed most` : "The prompt that changed";
  return section(title, note("By the share of words that differ in what came of them."), make("ol", { class: "most" }, prompts.id.slice(0, n).map((_, place) => row(place))));
}

/** Put a page into the reading pane. */
function showPage(kind, ...content) {
  document.getElementById("reader").replaceChildren(...content);
  document.body.dataset.view = kind;
  const link = document.querySelector("#bar nav a");
  if (kind === "overview") link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

/** Show what the address asks for. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("prompt");
  const fits = asked ? prompts.id.map((_, i) => i).filter((i) => prompts.id[i].startsWith(asked)) : [];
  // An address cannot hold half of a surrogate pair.
  const exact = prompts.id.findIndex((id) => id.toWellFormed() === asked);
  if (exact >= 0 || fits.length === 1) return openPrompt(exact >= 0 ? exact : fits[0]);
  openOverview();
}

const KEYS = {
  j: () => stepPrompt(1),
  k: () => stepPrompt(-1),
  t: () => toggleMarks(),
  "/": () => ((document.body.dataset.view = "list"), document.getElementById("query").select()),
  "?": () => document.getElementById("help").showModal(),
};

function onKey(event) {
  const { key, target } = event;
  const typing = target.closest("input, select");
  if (typing && (key === "Escape" || (key === "Enter" && target.id === "query"))) {
    target.blur();
    if (key === "Enter" && list.order.length) location.hash = promptLink(list.order[0]);
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key]();
}

function start() {
  document.getElementById("name").append("A ", ...written(overview.a), "  B ", ...written(overview.b));
  openSettings();
  openList();
  follow();
  addEventListener("hashchange", follow);
  addEventListener("keydown", onKey);
  document.getElementById("back").addEventListener("click", () => (document.body.dataset.view = "list"));
  document.documentElement.dataset.ready = "all";
}

start();
