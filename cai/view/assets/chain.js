/* One chain, in the order in which it was made. */

const ROLES = { system: "System", user: "User", assistant: "Assistant" };
const reader = {
  place: -1, // The chain that is shown; -1: another page.
  chain: null,
  diff: store.get("cai-diff", "inline"),
  hits: [], // What was searched for: the ranges of each.
  more: false, // Whether there are more hits than are marked.
  hit: -1,
};
const DIFFS = { inline: "inline", side: "side by side", plain: "plain" };

/** Show a chain, and bring a round of it into sight. */
async function openChain(place, round = null) {
  reader.place = place;
  setCurrent(place);
  const link = chainLink(place, round);
  if (location.hash !== link) history.replaceState(null, "", link);
  const chain = await chainAt(place);
  if (reader.place !== place) return; // Another was asked for meanwhile.
  reader.chain = chain;
  drawChain();
  const target = round == null ? null : document.getElementById(`round-${round}`);
  if (target) target.scrollIntoView();
  else document.getElementById("reader").scrollTop = 0;
  // So that the space bar scrolls what is read.
  document.getElementById("reader").focus({ preventScroll: true });
}

/** Draw the chain that is open, as the settings now are. */
function drawChain() {
  const { place, chain } = reader;
  showPage(
    "chain",
    chainBar(place),
    make("article", { class: "chain" }, chainHead(place, chain), chainParts(place, chain)),
  );
  const head = isCovered(place) ? COVERED : cut(chains.head[place], 0, 60);
  document.title = plainly(`${head} · ${overview.name}`);
  markReader();
}

/** After what is covered has changed. */
function redraw() {
  refreshList();
  if (reader.place >= 0) drawChain();
  else follow();
}

/** What stays in sight: where in the list, how changes are shown, star and note. */
function chainBar(place) {
  const at = list.order.indexOf(place);
  const where =
    at < 0
      ? "not in the list as filtered"
      : `${format.count(at + 1)} of ${format.count(list.order.length)}`;
  const step = (by, label, title) =>
    make("button", { title, "aria-label": title, onclick: () => stepChain(by) }, label);
  return make(
    "div",
    { class: "chain-bar" },
    make(
      "span",
      { class: "steps" },
      step(-1, "‹", "previous chain (k)"),
      step(1, "›", "next chain (j)"),
    ),
    make("span", { class: "where" }, where),
    make("span", { class: "where", id: "hits", "aria-live": "polite" }),
    reader.chain.rounds.length ? diffSwitch() : make("span", { class: "grow" }),
    noteButtons(place),
  );
}

function stepChain(by) {
  const place = neighbour(by);
  if (place != null && place !== reader.place) openChain(place);
}

function diffSwitch() {
  const button = ([mode, label]) =>
    make("button", { "aria-pressed": mode === reader.diff, onclick: () => setDiff(mode) }, label);
  return make(
    "span",
    {
      class: "switch grow",
      role: "group",
      "aria-label": "changes (t)",
      title: "how changes are shown (t)",
    },
    make("span", { class: "quiet" }, "changes"),
    Object.entries(DIFFS).map(button),
  );
}

function setDiff(mode) {
  reader.diff = mode;
  store.set("cai-diff", mode);
  const box = document.getElementById("reader");
  const top = box.scrollTop;
  drawChain();
  box.scrollTop = top;
}

function chainHead(place, chain) {
  const about = [
    format.spaced(chains.kind[place]),
    format.spaced(chains.area[place]),
    `split ${chains.split[place]}`,
  ];
  return make(
    "header",
    {},
    make(
      "p",
      { class: "about" },
      about.map((one) => make("span", {}, written(one))),
      make("span", { class: "quiet" }, written(chain.source)),
      make(
        "a",
        { class: "quiet id", href: chainLink(place), title: "link to this chain" },
        chains.id[place],
      ),
    ),
    chains.badges[place].length
      ? make("p", { class: "badges" }, chains.badges[place].map(badgePill))
      : null,
    versionPath(place, chain),
    noteBox(place, chain),
  );
}

/** From the response to the last revision: rewards, and how much changed on the way. */
function versionPath(place, chain) {
  if (!chain.response || !chain.rounds.length) return null;
  const stop = (label, row, round) =>
    make(
      "a",
      { href: chainLink(place, round), onclick: () => openChain(place, round) },
      label,
      row?.reward == null ? null : make("b", { class: "number" }, format.signed(row.reward)),
    );
  const parts = [stop("response", chain.response, 0)];
  for (const { round, revision, change } of chain.rounds) {
    parts.push(
      make("span", { class: "arrow" }, `${change == null ? "" : `${format.percent(change)} `}→`),
    );
    parts.push(stop(`revision ${round}`, revision, round));
  }
  return make("nav", { class: "path", "aria-label": "versions" }, parts);
}

function chainParts(place, chain) {
  const shown = (row) => generatedText(place, row);
  const parts = [conversation(place, chain)];
  if (chain.response)
    parts.push(part("Response", chain.response, shown(chain.response), { id: "round-0" }));
  let before = chain.response;
  for (const round of chain.rounds) {
    parts.push(roundParts(place, round, before));
    before = round.revision ?? before;
  }
  return [...parts, judgedParts(place, chain)];
}

function conversation(place, chain) {
  const turn = ([role, text]) =>
    part(ROLES[role] ?? role, null, plainText(place, text), { kind: role });
  return make(
    "section",
    { class: "conversation", "aria-label": "conversation" },
    chain.messages.map(turn),
  );
}

/** A label in the margin, the text, and what belongs beside it. */
function part(
  label,
  row,
  body,
  { kind = label.split(" ")[0].toLowerCase(), aside = null, facts = [], id = null } = {},
) {
  return make(
    "div",
    { class: "part", "data-kind": kind, id },
    make("div", { class: "margin" }, make("h3", {}, label), row ? madeBy(row) : null, facts),
    make("div", { class: "body" }, body),
    aside,
  );
}

/** What made a text, and how it ended. */
function madeBy(row) {
  const details = [
    row.model,
    row.id && `record ${row.id}`,
    `seed ${row.seed}`,
    `temperature ${row.temperature}`,
  ];
  if (row.template) details.push(`template ${row.template}`);
  return make(
    "p",
    { class: "made", title: details.filter(Boolean).join("\n") },
    row.reward == null
      ? null
      : make("span", { class: "number" }, `reward ${format.signed(row.reward)}`),
    make("span", {}, format.plural(row.tokens, "token")),
    make("span", { class: "model" }, written(row.model.split("@")[0])),
    row.finish === "length" ? make("span", { class: "bad" }, "cut off at the limit") : null,
    row.finish === "error" ? make("span", { class: "bad" }, "failed") : null,
  );
}

function plainText(place, text) {
  return isCovered(place) ? cover(place) : make("div", { class: "text" }, written(text));
}

function generatedText(place, row) {
  if (isCovered(place)) return cover(place);
  return [
    row.error ? make("p", { class: "note bad text" }, "Error: ", written(row.error)) : null,
    row.text || !row.error ? plainText(place, row.text) : null,
    row.text || row.error ? null : note("Empty."),
  ];
}

function roundParts(place, { round, principle, critique, revision, change }, before) {
  const covered = isCovered(place);
  const shown = (row) => generatedText(place, row);
  const plain = () =>
    revision.error
      ? shown(revision)
      : revisionView(before?.text, revision.text, change, reader.diff);
  const facts =
    change == null
      ? []
      : [make("p", { class: "made" }, make("span", {}, `${format.percent(change)} changed`))];
  return make(
    "section",
    { class: "round", id: `round-${round}`, "aria-label": `round ${round}` },
    part(
      `Critique ${round}`,
      critique,
      critique ? shown(critique) : note("There is no critique."),
      {
        aside: principleCard(principle, ["critique", "revision"]),
      },
    ),
    revision
      ? part(`Revision ${round}`, revision, covered ? cover(place) : plain(), { facts })
      : part(`Revision ${round}`, null, note("There is no revision: the chain ended here.")),
  );
}
