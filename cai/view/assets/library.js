/* The chains: unpacked a chunk at a time, in the background or when one is asked for, and searched. */

const { overview, principles, badges: BADGES, chains, chunks } = block("run");

function kindOf(chain) {
  return chains.kind[chain];
}

const SEPARATOR = "\n\u0000\n"; // Between texts, so that nothing is found across two of them.

const library = {
  starts: [], // The first chain of each chunk, and the end.
  promises: [],
  ready: [], // {chains, folded, starts} by chunk.
  n_ready: 0,
};

function openLibrary(sizes) {
  library.starts = sizes.reduce((starts, size) => [...starts, starts.at(-1) + size], [0]);
}

function nChunks() {
  return library.starts.length - 1;
}

async function chainAt(place) {
  const n = library.starts.findLastIndex((start) => start <= place);
  return (await loadChunk(n)).chains[place - library.starts[n]];
}

function loadChunk(n) {
  return (library.promises[n] ??= unpack(`chunk-${n}`).then((chains) => {
    const texts = chains.map((chain) =>
      messagesOf(chain)
        .map(([, text]) => text)
        .join(SEPARATOR),
    );
    const starts = [0];
    for (const text of texts) starts.push(starts.at(-1) + text.length + SEPARATOR.length);
    library.n_ready += 1;
    return (library.ready[n] = { chains, starts, folded: fold(texts.join(SEPARATOR)) });
  }));
}

/** Unpack everything, chunk by chunk, so that a search finds it ready. */
async function loadAll() {
  for (let n = 0; n < nChunks(); n++) {
    if (!library.ready[n]) await loadChunk(n);
    await pause();
  }
}

/** Every text of a chain with what it is, in reading order. */
function messagesOf(chain) {
  const found = chain.messages.map(([role, text]) => [role, text]);
  const add = (name, row) =>
    row && found.push([name, row.error ? `${row.text} ${row.error}` : row.text]);
  add("response", chain.response);
  for (const round of chain.rounds) {
    add(`critique ${round.round}`, round.critique);
    add(`revision ${round.round}`, round.revision);
  }
  chain.samples.forEach((row, i) => add(`sample ${i}`, row));
  for (const row of chain.answers) add(row.policy, row);
  for (const label of chain.pairs.flatMap((pair) => pair.labels)) add("reasoning", label.reasoning);
  return found;
}

/** The chains of a chunk in which every term occurs. */
function matchingChains(n, terms) {
  const { folded, starts } = library.ready[n],
    next = terms.map(() => -1),
    found = [];
  for (let i = 0; i + 1 < starts.length; i++) {
    const all = terms.every((term, t) => {
      if (next[t] < starts[i]) {
        const at = folded.indexOf(term, starts[i]);
        next[t] = at < 0 ? Infinity : at;
      }
      return next[t] < starts[i + 1];
    });
    if (all) found.push(library.starts[n] + i);
  }
  return found;
}

let latestSearch = 0;

/** Find the chains in which all terms occur. `report(chains, share)` gets those found so far, soon
    and then as more is read; an older search that is still going on ends. Whether this one did not. */
async function searchChains(terms, report) {
  const ticket = ++latestSearch,
    found = new Set();
  let since = performance.now();
  for (let n = 0; n < nChunks(); n++) {
    if (!library.ready[n] || performance.now() - since > 60) {
      report(found, n / nChunks());
      await pause();
      since = performance.now();
    }
    if (!library.ready[n]) await loadChunk(n);
    if (ticket !== latestSearch) return false;
    for (const place of matchingChains(n, terms)) found.add(place);
  }
  report(found, 1);
  return true;
}

/** Where a chain has a term first: what it is in, and the words around it. */
function snippet(chain, terms) {
  for (const [name, text] of messagesOf(chain)) {
    const [first] = places(fold(text), terms, 1);
    if (first) {
      const from = Math.max(0, first[0] - 32);
      return [name, (from ? "…" : "") + cut(text, from, from + 160).replace(/\s+/g, " ")];
    }
  }
  return null;
}
