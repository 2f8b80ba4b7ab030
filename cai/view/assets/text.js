/* Text as it is: what cannot be seen is named, what was searched for is marked. */

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
  const code = char.codePointAt(0).toString(16);
  const title = `U+${code.toUpperCase().padStart(4, "0")}`;
  return make("span", { class: "spelt", title }, `\\u${code.padStart(4, "0")}`);
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
function places(folded, terms, limit = 500) {
  const found = [];
  for (const term of terms) {
    for (let at = folded.indexOf(term); at >= 0; at = folded.indexOf(term, at + term.length)) {
      found.push([at, at + term.length]);
      if (found.length >= limit) break;
    }
  }
  found.sort((one, other) => one[0] - other[0] || other[1] - one[1]);
  return found.filter(([from], i) => i === 0 || from >= found[i - 1][1]);
}

/** The ranges of a block's text that match, across the elements inside it. */
function matchingRanges(element, terms) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const nodes = [],
    starts = [];
  let text = "";
  while (walker.nextNode()) {
    nodes.push(walker.currentNode);
    starts.push(text.length);
    text += walker.currentNode.data;
  }
  const node = (place) => starts.findLastIndex((start) => start <= place);
  return places(fold(text), terms).map(([from, to]) => {
    const range = new Range();
    const first = node(from),
      last = node(to - 1);
    range.setStart(nodes[first], from - starts[first]);
    range.setEnd(nodes[last], to - starts[last]);
    return range;
  });
}

/** Marks ranges without touching the elements; "hit" and "current" are styled in page.css. */
function mark(kind, ranges) {
  if (!globalThis.Highlight) return;
  if (ranges.length) CSS.highlights.set(kind, new Highlight(...ranges));
  else CSS.highlights.delete(kind);
}
