/* Where the address leads, what the keys do, and the start. */

/** Put a page into the reading pane. */
function showPage(kind, ...content) {
  document.getElementById("reader").replaceChildren(...content.filter(Boolean));
  document.body.dataset.view = kind;
  for (const link of document.querySelectorAll("#bar nav a")) {
    if (link.hash.slice(1) === kind) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** The reading pane goes to another page than a chain. */
function leaveChain() {
  Object.assign(reader, { place: -1, chain: null });
  setCurrent(-1);
  markReader();
  document.getElementById("reader").scrollTop = 0;
}

/** Show what the address asks for. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("prompt")) return followPrompt(asked.get("prompt"), asked.get("round"));
  if (asked.has("principle")) return openPrinciple(asked.get("principle"));
  if (asked.has("principles")) return openPrinciples();
  openOverview();
  // A narrow screen has room for one: the list, unless the overview was asked for.
  if (!asked.has("overview")) document.body.dataset.view = "list";
}

function followPrompt(id, round) {
  let place = chains.id.findIndex((one) => one.toWellFormed() === id);
  if (place < 0 && id) {
    const begin = chains.id.map((one, i) => [one, i]).filter(([one]) => one.startsWith(id));
    if (begin.length === 1) place = begin[0][1];
  }
  if (place >= 0) return openChain(place, round && Number(round));
  leaveChain();
  openMissing(`This run has no prompt ${JSON.stringify(id)}.`);
}

const KEYS = {
  j: () => stepChain(1),
  k: () => stepChain(-1),
  n: () => stepHit(1),
  N: () => stepHit(-1),
  t: () => cycleDiff(),
  s: () => toggleStar(),
  w: () => writeNote(),
  "/": () => focusSearch(),
  "?": () => document.getElementById("help").showModal(),
};

function cycleDiff() {
  const modes = Object.keys(DIFFS);
  if (reader.place >= 0) setDiff(modes[(modes.indexOf(reader.diff) + 1) % modes.length]);
}

function focusSearch() {
  document.body.dataset.view = "list";
  document.getElementById("query").select();
}

function onKey(event) {
  const { key, target } = event;
  const typing = target.closest("input, textarea, select");
  if (typing && (key === "Escape" || (key === "Enter" && target.id === "query"))) {
    target.blur();
    if (key === "Enter") openFirstFound();
    return;
  }
  if (
    typing ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    document.querySelector("dialog[open]")
  )
    return;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key]();
}

function start() {
  if (!globalThis.DecompressionStream || !"".toWellFormed) {
    return openMissing("This page needs a browser of 2024 or later to unpack its transcripts.");
  }
  document.getElementById("name").append(...written(overview.name));
  openLibrary(chunks);
  openSettings();
  openNotes();
  openFilters();
  openList();
  applyFilters();
  follow();
  addEventListener("hashchange", follow);
  addEventListener("keydown", onKey);
  document
    .getElementById("back")
    .addEventListener("click", () => (document.body.dataset.view = "list"));
  document.documentElement.dataset.ready = "list";
  performance.mark("listed");
  // After the first paint.
  requestAnimationFrame(() => setTimeout(readAll));
}

async function readAll() {
  await loadAll();
  document.documentElement.dataset.ready = "all";
  performance.mark("read");
}

start();
