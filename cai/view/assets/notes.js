/* Stars and notes, which stay in this browser until they are exported. */

const NOTES_KEY = `cai-notes ${overview.name} ${overview.created}`;
const notes = new Map(store.get(NOTES_KEY, [])); // By prompt id: {star, note, time}.

const keeping = {
  works: true, // Whether the browser kept what it was last given.
  lost: false, // Whether closing the page loses a star or a note.
};

function keepNotes() {
  keeping.works = store.set(NOTES_KEY, [...notes]);
  keeping.lost = !keeping.works && notes.size > 0;
}

/** Whether `one` was written after `other`. Every tab says the same of the same two. */
function isLater(one, other) {
  const key = (it) => it.time + JSON.stringify(it);
  return !other || key(one) > key(other);
}

/** Take in what other tabs wrote: of each chain what was written last. Says whether it lacked something. */
function readNotes() {
  const theirs = new Map(store.get(NOTES_KEY, []));
  for (const [id, one] of theirs) if (isLater(one, notes.get(id))) notes.set(id, one);
  return [...notes].some(([id, one]) => isLater(one, theirs.get(id)));
}

function noteOf(place) {
  return notes.get(chains.id[place]);
}

/** Change a chain's star or note. One that is taken back stays, so that an export says so. */
function setNote(place, change) {
  const id = chains.id[place];
  readNotes();
  const before = { star: false, note: "", ...notes.get(id) };
  notes.set(id, { ...before, ...change, time: new Date().toISOString() });
  keepNotes();
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
  showStar();
}

function showStar() {
  const star = Boolean(noteOf(reader.place)?.star),
    button = document.getElementById("star");
  button.setAttribute("aria-pressed", star);
  button.textContent = star ? "★ starred" : "☆ star";
}

/** What another tab wrote, shown in this one; a note that is being written here stays. */
function showOthers() {
  // Two tabs that write at the same moment do not see each other: the later write drops the earlier one's.
  if (readNotes()) keepNotes();
  refreshList();
  showExport();
  const box = document.getElementById("note");
  if (!box) return;
  showStar();
  const area = box.querySelector("textarea"),
    text = noteOf(reader.place)?.note ?? "";
  if (document.activeElement === area) return;
  area.value = text;
  box.hidden = !text;
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
    placeholder: `A note on this chain${keeping.works ? ", kept in this browser" : ""}`,
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
  const said = keeping.lost ? "not kept in this browser: export before you close the page" : "";
  document.getElementById("unkept").textContent = said;
  document.getElementById("where-notes").textContent = keeping.works
    ? "Stars and notes stay in this browser."
    : "This browser keeps no stars and notes: they are gone when the page is closed.";
}

function exportName() {
  return `annotations-${overview.name.replace(/[^\w.-]+/g, "_").slice(0, 80)}.jsonl`;
}

/** Hand the annotations over as a file for `cai annotate import`. */
function exportNotes() {
  const lines = annotationRows().map((row) => `${JSON.stringify(row)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  make("a", { href: url, download: exportName() }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  keeping.lost = false;
  showExport();
}

/** The export, and in the settings who signs it and how it reaches the run. */
function openNotes() {
  const command = make("code");
  const show = () => {
    const unsigned = settings.author ? "" : " --author NAME";
    command.textContent = `cai annotate import ${exportName()} RUN${unsigned}`;
  };
  const write = ({ target }) => (setting("author", target.value.trim()), show());
  const author = make("input", { id: "author", autocomplete: "off", oninput: write });
  author.value = settings.author;
  show();
  document
    .querySelector("#settings button")
    .before(
      make("label", {}, "My name, in exported annotations ", author),
      note(make("span", { id: "where-notes" }), " Export them, and put them into the run with ", command, "."),
    );
  keeping.works = store.set(SETTINGS_KEY, settings);
  addEventListener("beforeunload", (event) => keeping.lost && event.preventDefault());
  document.getElementById("export").addEventListener("click", exportNotes);
  addEventListener("storage", ({ key }) => key === NOTES_KEY && showOthers());
  showExport();
}
