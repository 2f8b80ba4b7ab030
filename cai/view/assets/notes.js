/* Stars and notes, which stay in this browser until they are exported, and the reader's settings. */

const NOTES_KEY = `cai-notes ${overview.name} ${overview.created}`;
const notes = new Map(store.get(NOTES_KEY, [])); // By prompt id: {star, note, time}.
const settings = store.get("cai-settings", { theme: "auto", cover: false, author: "" });
const revealed = new Set(); // Chains whose text was asked for.

function noteOf(place) {
  return notes.get(chains.id[place]);
}

/** Change a chain's star or note. One that is taken back stays, so that an export says so. */
function setNote(place, change) {
  const id = chains.id[place];
  const before = { star: false, note: "", ...notes.get(id) };
  notes.set(id, { ...before, ...change, time: new Date().toISOString() });
  store.set(NOTES_KEY, [...notes]);
  refreshList();
  showExport();
}

function noteButtons(place) {
  const mine = noteOf(place),
    star = Boolean(mine?.star);
  return make(
    "span",
    { class: "steps" },
    make(
      "button",
      {
        id: "star",
        "aria-pressed": star,
        title: "star this chain (s)",
        onclick: () => toggleStar(),
      },
      star ? "★ starred" : "☆ star",
    ),
    make(
      "button",
      { id: "write", title: "write a note (w)", onclick: () => writeNote() },
      mine?.note ? "✎ noted" : "✎ note",
    ),
  );
}

function toggleStar() {
  if (reader.place < 0) return;
  setNote(reader.place, { star: !noteOf(reader.place)?.star });
  const star = noteOf(reader.place).star,
    button = document.getElementById("star");
  button.setAttribute("aria-pressed", star);
  button.textContent = star ? "★ starred" : "☆ star";
}

function writeNote() {
  const box = document.getElementById("note");
  if (!box) return;
  box.hidden = false;
  box.querySelector("textarea").focus();
}

/** The reader's own note, and those that were imported into the run. */
function noteBox(place, chain) {
  const mine = noteOf(place);
  const area = make("textarea", {
    rows: 2,
    "aria-label": "note",
    placeholder: "A note on this chain, kept in this browser",
    oninput: ({ target }) => setNote(place, { note: target.value }),
  });
  area.value = mine?.note ?? "";
  const imported = chain.annotations.map(({ star, note: text, author, time }) =>
    make(
      "p",
      { class: "imported" },
      star ? "★ " : "",
      make("b", {}, written(author)),
      make("span", { class: "quiet" }, ` ${time.slice(0, 10)} `),
      make("span", { class: "text" }, written(text)),
    ),
  );
  return [imported, make("div", { id: "note", hidden: !mine?.note }, area)];
}

function annotationRows() {
  const author = settings.author ? { author: settings.author } : {};
  return [...notes].map(([prompt_id, one]) => ({
    type: "annotation",
    run: overview.name,
    prompt_id,
    ...one,
    ...author,
  }));
}

function showExport() {
  const n = [...notes.values()].filter((one) => one.star || one.note).length;
  const button = document.getElementById("export");
  button.hidden = !notes.size;
  button.textContent = `Export ${format.plural(n, "annotation")}`;
}

/** Hand the annotations over as a file for `cai annotate import`. */
function exportNotes() {
  const lines = annotationRows().map((row) => `${JSON.stringify(row)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const name = overview.name.replace(/[^\w.-]+/g, "_").slice(0, 80);
  make("a", { href: url, download: `annotations-${name}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function setting(name, value) {
  settings[name] = value;
  store.set("cai-settings", settings);
  applySettings();
}

function applySettings() {
  const root = document.documentElement;
  if (settings.theme === "auto") root.removeAttribute("data-theme");
  else root.setAttribute("data-theme", settings.theme);
}

/** Whether a chain's texts wait for a click: those of red-team prompts, if the reader wants that. */
function isCovered(place) {
  return settings.cover && chains.kind[place] === "red_team" && !revealed.has(place);
}

function cover(place) {
  return make(
    "button",
    { class: "cover", onclick: () => reveal(place) },
    "Red-team text. Click to read this chain.",
  );
}

function reveal(place) {
  revealed.add(place);
  refreshList();
  drawChain();
}

function openSettings() {
  for (const input of document.querySelectorAll("#settings [name=theme]")) {
    input.checked = input.value === settings.theme;
    input.addEventListener("change", () => setting("theme", input.value));
  }
  const covered = document.getElementById("cover"),
    author = document.getElementById("author");
  covered.checked = settings.cover;
  author.value = settings.author;
  author.addEventListener("input", () => setting("author", author.value.trim()));
  covered.addEventListener("change", () => {
    setting("cover", covered.checked);
    revealed.clear();
    refreshList();
    if (reader.place >= 0) drawChain();
  });
  document.getElementById("export").addEventListener("click", exportNotes);
  applySettings();
  showExport();
}
