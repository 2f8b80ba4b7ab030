/* What was searched for, marked in the open chain and stepped through. */

/** Find again in the open chain what was searched for. */
function markReader() {
  const blocks =
    list.terms.length && reader.place >= 0 ? document.querySelectorAll("#reader .chain .text") : [];
  for (const block of blocks) {
    const closed = block.closest("details:not([open])");
    if (closed && places(fold(block.textContent), list.terms, 1).length) closed.open = true;
  }
  reader.ranges = [...blocks].flatMap((block) => matchingRanges(block, list.terms));
  reader.hit = -1;
  mark("hit", reader.ranges);
  mark("current", []);
  showHits();
}

function showHits() {
  const shown = document.getElementById("hits"),
    n = reader.ranges.length;
  if (!shown) return;
  const at = reader.hit >= 0 ? `${reader.hit + 1} of ` : "";
  shown.textContent = list.terms.length ? `${at}${format.plural(n, "hit")}` : "";
}

/** The next hit in this chain, or the first one of the next chain. */
async function stepHit(by) {
  if (!list.terms.length) return;
  let next = reader.hit + by;
  if (reader.place < 0 || next < 0 || next >= reader.ranges.length) {
    const place = neighbour(by);
    if (place == null || place === reader.place) return;
    await openChain(place);
    next = by > 0 ? 0 : reader.ranges.length - 1;
  }
  const range = reader.ranges[next];
  if (!range) return;
  reader.hit = next;
  mark("current", [range]);
  range.startContainer.parentElement.scrollIntoView({ block: "center" });
  showHits();
}
