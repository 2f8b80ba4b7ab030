/* Text as it is: what cannot be seen is named, what was searched for is marked. */

const MAX_HITS = 500; // In one block of text.
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5" +
    "\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb]" +
    "|\\udb40[\\udc00-\\udc7f]" +
    "|[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]",
  "g",
);

/** Nodes for a text: every control, bidirectional, invisible or unpaired character is spelt out. */
function written(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    nodes.push(text.slice(end, match.index), spelt(match[0]));
    end = match.index + match[0].length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

function spelt(char) {
  const title = `U+${codeOf(char).toUpperCase()}`;
  return make("span", { class: "spelt", title }, escaped(char));
}

function codeOf(char) {
  return char.codePointAt(0).toString(16).padStart(4, "0");
}

function escaped(char) {
  return `\\u${codeOf(char)}`;
}

/** The same for a place that holds no elements, such as the title of the window. */
function plainly(text) {
  return text.replace(HIDDEN, escaped);
}

/** Lower case of the same length, so that places in one are places in the other. */
function fold(text) {
  const lower = text.toLowerCase();
  if (lower.length === text.length) return lower;
  return text.replace(/[^]/gu, (char) => {
    const one = char.toLowerCase();
    return one.length === char.length ? one : char;
  });
}

/** What a query asks for: words, and "phrases in quotes". */
function queryTerms(query) {
  const terms = [...query.matchAll(/"([^"]+)"?|(\S+)/g)].map((found) => found[1] ?? found[2]);
  return [...new Set(terms.map((term) => fold(term.trim())).filter(Boolean))];
}

/** Places [from, to) of the terms in a folded text, in order, without overlaps. */
function places(folded, terms, limit = MAX_HITS + 1) {
  const found = [];
  for (const term of terms) {
    let at = folded.indexOf(term);
    for (let n = 0; at >= 0 && n < limit; n++) {
      found.push([at, at + term.length]);
      at = folded.indexOf(term, at + term.length);
    }
  }
  found.sort((one, other) => one[0] - other[0] || other[1] - one[1]);
  let end = 0;
  return found.filter(([from, to]) => from >= end && (end = to));
}

/** What of a block's text matches, across the elements inside it: for each hit its ranges, one in
    each text node. `more` where there are hits beyond `MAX_HITS`. What a diff shows as removed is no
    part of the text. */
function matchingRanges(element, terms) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const nodes = [];
  let text = "";
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("[data-gone]")) continue;
    nodes.push([node, text.length]);
    text += node.data;
  }
  const found = places(fold(text), terms);
  let first = 0;
  const hits = found.slice(0, MAX_HITS).map(([from, to]) => {
    while (nodes[first][1] + nodes[first][0].length <= from) first++;
    const ranges = [];
    for (let i = first; i < nodes.length && nodes[i][1] < to; i++) {
      const [node, start] = nodes[i],
        range = new Range();
      range.setStart(node, Math.max(0, from - start));
      range.setEnd(node, Math.min(node.length, to - start));
      ranges.push(range);
    }
    return ranges;
  });
  return { hits, more: found.length > MAX_HITS };
}

/** Marks ranges without touching the elements; "hit" and "current" are styled in base.css. */
function mark(kind, ranges) {
  if (!globalThis.Highlight) return;
  if (ranges.length) CSS.highlights.set(kind, new Highlight(...ranges));
  else CSS.highlights.delete(kind);
}

/** `slice` that leaves no half of a character behind. */
function cut(text, from, to) {
  const halved = (at) => /[\ud800-\udbff]/.test(text[at - 1] ?? "") && /[\udc00-\udfff]/.test(text[at] ?? "");
  return text.slice(from - halved(from), to - halved(to));
}
