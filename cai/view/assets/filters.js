/* Which chains the list shows, and in which order. */

const SORTS = {
  run: ["order of the run", () => 0],
  "reward-up": ["lowest reward", (i) => chains.reward[i]],
  "reward-down": ["highest reward", (i) => negative(chains.reward[i])],
  "change-down": ["largest change", (i) => negative(chains.change[i])],
  "change-up": ["smallest change", (i) => chains.change[i]],
  "length-down": ["longest", (i) => negative(chains.length[i])],
  "length-up": ["shortest", (i) => chains.length[i]],
};
const NOTHING_YET = "none yet"; // Instead of a stage that left something to read.
// By name: what a chain has of it. All are menus but the badges.
const FACETS = {
  principle: (i) => chains.drawn[i].map((place) => principles[place].id),
  judged_under: (i) => chains.judged[i].map((place) => principles[place].id),
  stage: (i) => (chains.stages[i].length ? chains.stages[i] : [NOTHING_YET]),
  split: (i) => [chains.split[i]],
  kind: (i) => [chains.kind[i]],
  area: (i) => [chains.area[i]],
  rounds: (i) => [String(chains.drawn[i].length)],
  marked: (i) => marksOf(i),
};
const filters = { badges: new Set(), menus: {}, sort: "run", query: "", found: null, share: 1 };

let waitingSearch = 0; // For the reader to go on typing.

function negative(x) {
  return x == null ? null : -x;
}

function marksOf(chain) {
  const mine = noteOf(chain);
  const found = [
    mine?.star && "starred",
    mine?.note && "noted",
    chains.annotations[chain] && "imported",
  ];
  return found.filter(Boolean);
}

function passes(chain) {
  if (!filters.menus.stage && !chains.stages[chain].length) return false; // Waiting, nothing to read.
  if (filters.found && !filters.found.has(chain)) return false;
  for (const badge of filters.badges) if (!chains.badges[chain].includes(badge)) return false;
  return Object.entries(filters.menus).every(
    ([name, value]) => !value || FACETS[name](chain).includes(value),
  );
}

/** Fill the list anew after anything here has changed. */
function applyFilters() {
  const order = chains.id.map((_, i) => i).filter((i) => passes(i));
  const key = SORTS[filters.sort][1],
    last = (x) => (x == null ? Infinity : x);
  if (filters.sort !== "run") order.sort((a, b) => last(key(a)) - last(key(b)) || a - b);
  setList(order, filters.found ? queryTerms(filters.query) : []);
  showCounts(order);
}

function showCounts(order) {
  const used = chains.stages.filter((stages) => stages.length).length;
  const total = filters.menus.stage === NOTHING_YET ? chains.id.length : used;
  const all = order.length === total ? "" : ` of ${format.count(total)}`;
  const state = filters.share < 1 ? ` · searched ${format.percent(filters.share)}` : "";
  document.getElementById("count").textContent =
    `${format.count(order.length)}${all} ${total === 1 ? "chain" : "chains"}${state}`;
  const counts = new Map();
  for (const i of order) for (const b of chains.badges[i]) counts.set(b, (counts.get(b) ?? 0) + 1);
  for (const button of document.querySelectorAll("#badges button")) {
    const badge = Number(button.dataset.place);
    button.setAttribute("aria-pressed", filters.badges.has(badge));
    button.querySelector(".number").textContent = format.count(counts.get(badge) ?? 0);
    button.disabled = !counts.has(badge) && !filters.badges.has(badge);
  }
  showActive();
  document.getElementById("nothing").hidden = order.length > 0;
  document.getElementById("nothing").textContent = nothingHere(used);
}

function nothingHere(used) {
  if (used)
    return filters.share < 1
      ? "Searching…"
      : "No chain fits. Take a filter away, or search for less.";
  const n = chains.id.length;
  return n
    ? `Nothing was generated yet: ${format.plural(n, "prompt")} waiting.`
    : "This run has no prompts yet.";
}

/** The filters that are on, each with a way to take it away. */
function showActive() {
  const menus = Object.entries(filters.menus).filter(([, value]) => value);
  const chips = menus.map(([name, value]) =>
    chip(`${format.spaced(name)}: ${format.spaced(value)}`, () => setMenu(name, "")),
  );
  for (const badge of filters.badges) chips.push(chip(BADGES[badge], () => toggleBadge(badge)));
  document.getElementById("active").replaceChildren(...chips);
  document.getElementById("n-active").textContent = chips.length ? ` · ${chips.length}` : "";
}

function chip(label, remove) {
  return make(
    "button",
    { class: "chip", title: "take this filter away", onclick: remove },
    written(label),
    " ×",
  );
}

function toggleBadge(badge) {
  if (!filters.badges.delete(badge)) filters.badges.add(badge);
  applyFilters();
}

function setMenu(name, value) {
  filters.menus[name] = value;
  document.getElementById(`menu-${name}`).value = value;
  applyFilters();
}

/** Only this one filter: the way in from a link elsewhere in the page. */
function showOnly(name, value) {
  endSearch();
  filters.badges.clear();
  for (const menu of Object.keys(FACETS)) filters.menus[menu] = "";
  document.getElementById("query").value = "";
  Object.assign(filters, { query: "", found: null, share: 1, sort: "run" });
  if (name === "badge") filters.badges.add(BADGES.indexOf(value));
  else filters.menus[name] = value;
  for (const menu of Object.keys(FACETS))
    document.getElementById(`menu-${menu}`).value = filters.menus[menu];
  document.getElementById("sort").value = "run";
  applyFilters();
  document.getElementById("list").scrollTop = 0;
  if (list.order.length) openChain(list.order[0]);
}

/** Whatever is searched or about to be is not shown any more. */
function endSearch() {
  clearTimeout(waitingSearch);
  latestSearch++;
}

/** Show what has all words of the query. Whether it was not overtaken by another one. */
async function search(query) {
  endSearch();
  const terms = queryTerms(query);
  Object.assign(filters, {
    query,
    found: terms.length ? new Set() : null,
    share: terms.length ? 0 : 1,
  });
  document.getElementById("list").scrollTop = 0;
  if (!terms.length) {
    searchShown();
    return true;
  }
  return searchChains(terms, (found, share) => {
    Object.assign(filters, { found: new Set(found), share });
    searchShown();
  });
}

function searchShown() {
  applyFilters();
  markReader();
}

function openFilters() {
  const bar = document.getElementById("badges");
  BADGES.forEach((badge, place) => {
    if (!chains.badges.some((badges) => badges.includes(place))) return;
    const press = { "data-place": place, "data-badge": badge, onclick: () => toggleBadge(place) };
    bar.append(
      make("button", { class: "toggle", ...press }, badge, make("span", { class: "number" })),
    );
  });
  for (const name of Object.keys(FACETS)) document.getElementById("menus").append(menu(name));
  const sort = document.getElementById("sort");
  for (const [value, [label]] of Object.entries(SORTS))
    sort.append(make("option", { value }, label));
  sort.addEventListener("change", () => {
    filters.sort = sort.value;
    document.getElementById("list").scrollTop = 0;
    applyFilters();
  });
  document.getElementById("query").addEventListener("input", ({ target }) => {
    clearTimeout(waitingSearch);
    waitingSearch = setTimeout(() => search(target.value), 40);
  });
}

/** Open the first chain that has what was typed: once it has been looked for. */
async function openFirstFound() {
  const { value } = document.getElementById("query");
  const done = filters.query === value && filters.share === 1;
  if ((done || (await search(value))) && list.order.length) openChain(list.order[0]);
}

function menu(name) {
  const counts = new Map();
  if (name === "principle" || name === "judged_under")
    for (const { id } of principles) counts.set(id, 0);
  if (name === "marked") for (const mark of ["starred", "noted", "imported"]) counts.set(mark, "");
  else {
    chains.id.forEach((_, i) => {
      if (name !== "stage" && !chains.stages[i].length) return;
      for (const value of new Set(FACETS[name](i))) counts.set(value, (counts.get(value) ?? 0) + 1);
    });
  }
  const label = ([value, n]) => `${format.spaced(value)}${n === "" ? "" : ` (${format.count(n)})`}`;
  const options = [...counts].map((entry) => make("option", { value: entry[0] }, written(label(entry))));
  const select = make(
    "select",
    { id: `menu-${name}`, onchange: ({ target }) => setMenu(name, target.value) },
    make("option", { value: "" }, "any"),
    options,
  );
  return make("label", {}, format.spaced(name), select);
}
