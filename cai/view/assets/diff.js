/* What changed between two texts, word by word. */

const MAX_DIFF_WORDS = 4000;
const REWRITTEN = 0.7; // Share of changed words above which marks hide the text.
// A word with the space behind it, and a character alone in scripts without spaces: WORD of
// cai/words.py, whose UNSPACED this is, [UNSPACED]|[^\sUNSPACED]+, with \s as Python has it.
const UNSPACED = block("unspaced");
const SPACE =
  "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
const WORDS = new RegExp(
  `[${UNSPACED}][${SPACE}]*|[^${SPACE}${UNSPACED}]+[${SPACE}]*|^[${SPACE}]+`,
  "g",
);
const SPACES_BEHIND = new RegExp(`[${SPACE}]+$`);

/** Runs [kind, words] with kind "same", "removed" or "added", in reading order. Beyond
    `MAX_DIFF_WORDS` words all of `one` is removed and all of `other` added. */
function wordDiff(one, other) {
  const a = one.match(WORDS) ?? [],
    b = other.match(WORDS) ?? [];
  if (a.length + b.length > MAX_DIFF_WORDS)
    return [
      ["removed", one],
      ["added", other],
    ];
  return runs(tidied(steps(a, b)));
}

function bare(word) {
  return word.replace(SPACES_BEHIND, "");
}

/** The longest common subsequence, bit-parallel, as steps [kind, word]: a text that repeats itself
    costs no more than any other. */
function steps(a, b) {
  const rows = commonRows(a.map(bare), b.map(bare)),
    found = [];
  let i = a.length,
    j = b.length;
  const kept = (row, place) => (rows[row] >> BigInt(place)) & 1n;
  while (i || j) {
    if (j && kept(i, j - 1)) found.push(["added", b[--j]]);
    else if (j && kept(i - 1, j - 1)) (i--, found.push(["same", b[--j]]));
    else found.push(["removed", a[--i]]);
  }
  return found.reverse();
}

/** Row i has a zero bit wherever `other` gains a word in common with the first i of `one`. */
function commonRows(one, other) {
  const full = (1n << BigInt(other.length)) - 1n,
    places = new Map(),
    rows = [full];
  other.forEach((word, i) => places.set(word, (places.get(word) ?? 0n) | (1n << BigInt(i))));
  for (const word of one) {
    const row = rows.at(-1),
      hits = row & (places.get(word) ?? 0n);
    rows.push(((row + hits) | (row - hits)) & full);
  }
  return rows;
}

/** A word or two that happen to be in both, amid larger changes, are read as part of the change;
    within a change what is removed comes first. */
function tidied(found) {
  const groups = [];
  for (const [kind, word] of found) {
    const same = kind === "same",
      last = groups.at(-1);
    if (last && last.same === same) last.steps.push([kind, word]);
    else groups.push({ same, steps: [[kind, word]] });
  }
  return groups.flatMap(({ same, steps }, i) => {
    const size = (at) => groups[at]?.steps.length ?? 0;
    const island = same && size(i - 1) && size(i + 1) && steps.length <= 2;
    if (island && Math.min(size(i - 1), size(i + 1)) > 2 * steps.length) {
      return [...steps.map(([, w]) => ["removed", w]), ...steps.map(([, w]) => ["added", w])];
    }
    return steps;
  });
}

/** Neighbouring steps of a kind joined, and in each change what is removed before what is added. */
function runs(found) {
  const joined = [];
  let change = { removed: "", added: "" };
  const flush = () => {
    for (const kind of ["removed", "added"]) if (change[kind]) joined.push([kind, change[kind]]);
    change = { removed: "", added: "" };
  };
  for (const [kind, word] of found) {
    if (kind !== "same") change[kind] += word;
    else {
      flush();
      if (joined.at(-1)?.[0] === "same") joined.at(-1)[1] += word;
      else joined.push(["same", word]);
    }
  }
  flush();
  return joined;
}

/** The nodes of a diff; `kinds` are those that are shown. */
function diffNodes(found, kinds) {
  const tags = { same: "span", removed: "del", added: "ins" };
  return found
    .filter(([kind]) => kinds.includes(kind))
    .map(([kind, words]) => {
      const body = words.trimEnd();
      const space = words.slice(body.length);
      const nodes = [make(tags[kind], {}, written(body)), space];
      const gone = kind === "removed" && kinds.includes("added");
      return gone ? make("span", { "data-gone": true }, nodes) : nodes;
    });
}

/** A revision as the reader wants it: "inline", "side" or "plain". */
function revisionView(before, after, change, mode) {
  const plain = () => make("div", { class: "text" }, written(after));
  if (mode === "plain" || before == null) return [plain()];
  if (change === 0) return [note("No word changed."), plain()];
  if (mode === "inline" && change > REWRITTEN) {
    return [
      note(`Rewritten: ${format.percent(change)} of the words differ, so none is marked.`),
      plain(),
    ];
  }
  const found = wordDiff(before, after);
  if (mode === "inline") {
    return [make("div", { class: "text diff" }, diffNodes(found, ["same", "removed", "added"]))];
  }
  const side = (label, kinds) =>
    make(
      "div",
      {},
      make("h4", {}, label),
      make("div", { class: "text diff" }, diffNodes(found, kinds)),
    );
  return [
    make(
      "div",
      { class: "sides" },
      side("before", ["same", "removed"]),
      side("after", ["same", "added"]),
    ),
  ];
}

function note(...children) {
  return make("p", { class: "note" }, ...children);
}
