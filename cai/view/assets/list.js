/* The list of chains: only the rows in sight are in the document. */

const ROW_HEIGHT = 88; // Pixels, as in page.css.

const list = {
  order: [], // The chains shown, in order.
  current: -1,
  terms: [],
  rows: new Map(), // By place in the order.
};

function openList() {
  const box = document.getElementById("list");
  box.addEventListener("scroll", () => requestAnimationFrame(drawRows));
  new ResizeObserver(drawRows).observe(box);
}

/** Show these chains; rows that are there already are made anew. */
function setList(order, terms) {
  Object.assign(list, { order, terms });
  refreshList();
}

function refreshList() {
  for (const row of list.rows.values()) row.remove();
  list.rows.clear();
  document.getElementById("rows").style.height = `${list.order.length * ROW_HEIGHT}px`;
  drawRows();
}

function drawRows() {
  const box = document.getElementById("list"),
    rows = document.getElementById("rows");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - 4);
  const last = Math.min(list.order.length, first + Math.ceil(box.clientHeight / ROW_HEIGHT) + 8);
  for (const [at, row] of list.rows) {
    if (at >= first && at < last) continue;
    row.remove();
    list.rows.delete(at);
  }
  for (let at = first; at < last; at++) {
    if (list.rows.has(at)) continue;
    const row = listRow(list.order[at], at);
    list.rows.set(at, row);
    // In order, for the keyboard and for screen readers.
    rows.insertBefore(
      row,
      [...list.rows].filter(([other]) => other > at).sort(byFirst)[0]?.[1] ?? null,
    );
  }
  markList();
}

function byFirst(one, other) {
  return one[0] - other[0];
}

function listRow(chain, at) {
  const link = make(
    "a",
    {
      class: "row",
      href: chainLink(chain),
      "aria-current": chain === list.current ? "true" : null,
    },
    rowText(chain),
    make("span", { class: "facts" }, rowFacts(chain), chains.badges[chain].map(badgePill)),
  );
  const item = make("li", { "aria-setsize": list.order.length, "aria-posinset": at + 1 }, link);
  item.style.top = `${at * ROW_HEIGHT}px`;
  return item;
}

function rowText(chain) {
  if (isCovered(chain))
    return make("span", { class: "head covered" }, COVERED);
  if (!list.terms.length) return make("span", { class: "head" }, written(chains.head[chain]));
  const where = make("span", { class: "snippet" });
  chainAt(chain).then((row) => {
    const found = snippet(row, list.terms);
    if (!found) return;
    where.append(make("b", {}, `${found[0]}: `), ...written(found[1]));
    markList();
  });
  return [make("span", { class: "head single" }, written(chains.head[chain])), where];
}

function rowFacts(chain) {
  const rounds = chains.drawn[chain].length,
    noted = noteOf(chain),
    reward = chains.reward[chain];
  return [
    noted?.star || noted?.note || chains.annotations[chain]
      ? make("span", { class: "star", title: "starred or noted" }, noted?.star ? "★" : "✎")
      : null,
    make("span", {}, written(format.spaced(chains.area[chain]))),
    rounds ? make("span", {}, format.plural(rounds, "round")) : null,
    reward == null
      ? null
      : make("span", { class: "number", title: "reward of the last text" }, format.signed(reward)),
  ];
}

function badgePill(place) {
  return make(
    "span",
    { class: "badge", "data-badge": BADGES[place], title: BADGES[place] },
    BADGES[place],
  );
}

function chainLink(chain, round) {
  return address({ prompt: chains.id[chain], ...(round == null ? {} : { round }) });
}

/** Marks in the rows in sight what was searched for. */
function markList() {
  const texts = list.terms.length ? document.querySelectorAll("#rows .head, #rows .snippet") : [];
  mark(
    "listed",
    [...texts].flatMap((text) => matchingRanges(text, list.terms).hits.flat()),
  );
}

/** The row of the chain that is read, brought into sight. */
function setCurrent(chain) {
  list.current = chain;
  const box = document.getElementById("list"),
    at = list.order.indexOf(chain);
  if (at >= 0) {
    const top = at * ROW_HEIGHT;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + ROW_HEIGHT > box.scrollTop + box.clientHeight) {
      box.scrollTop = top + ROW_HEIGHT - box.clientHeight;
    }
  }
  for (const [place, row] of list.rows) {
    const link = row.firstChild;
    if (list.order[place] === chain) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** The chain `by` places further in the list; the first one if none of them is read. */
function neighbour(by) {
  const at = list.order.indexOf(list.current);
  if (at < 0) return list.order[0];
  return list.order[Math.min(list.order.length - 1, Math.max(0, at + by))];
}
