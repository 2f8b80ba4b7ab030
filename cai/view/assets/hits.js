/* What was searched for, marked in the open chain and stepped through. */

/** Find again in the open chain what was searched for. */
function markReader() {
  const blocks =
    list.terms.length && reader.place >= 0 ? document.querySelectorAll("#reader .chain .text") : [];
  for (const block of blocks) {
    const closed = block.closest("details:not([open])");
    if (closed && places(fold(block.textContent), list.terms, 1).length) closed.open = true;
  }
  const found = [...blocks].map((block) => matchingRanges(block, list.terms));
  reader.hits = found.flatMap(({ hits }) => hits);
  reader.more = found.some(({ more }) => more);
  reader.hit = -1;
  mark("hit", reader.hits.flat());
  mark("current", []);
  showHits();
}

function showHits() {
  const shown = document.getElementById("hits"),
    n = reader.hits.length;
  if (!shown) return;
  const at = reader.hit >= 0 ? `${reader.hit + 1} of ` : "";
  const all = reader.more ? `${format.count(n)}+ hits` : format.plural(n, "hit");
  shown.textContent = list.terms.length ? at + all : "";
}

/** The next hit in this chain, or the first one of the next chain. */
async function stepHit(by) {
  if (!list.terms.length) return;
  let next = reader.hit + by;
  if (reader.place < 0 || next < 0 || next >= reader.hits.length) {
    const place = neighbour(by);
    if (place == null || place === reader.place) return;
    await openChain(place);
    next = by > 0 ? 0 : reader.hits.length - 1;
  }
  const ranges = reader.hits[next];
  if (!ranges) return;
  reader.hit = next;
  mark("current", ranges);
  ranges[0].startContainer.parentElement.scrollIntoView({ block: "center" });
  showHits();
}
