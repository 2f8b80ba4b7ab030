"use strict";
/* The prompts of both runs: which are listed, and in which order. */

const comparison = block("comparison");
const { overview, principles, prompts, parts: PARTS } = comparison;
const BATCH = 100; // Rows made at a time.
const SORTS = {
  change: ["most changed", (i) => -prompts.change[i]],
  "reward-down": ["reward fell most", (i) => prompts.reward[i]],
  "reward-up": ["reward rose most", (i) => prompts.reward[i] && -prompts.reward[i]],
  "length-up": ["grew longest", (i) => prompts.length[i] && -prompts.length[i]],
  "length-down": ["shrank most", (i) => prompts.length[i]],
};
const FACETS = {
  difference: (i) => [isChanged(i) ? "changed" : "same"],
  part: (i) => prompts.parts[i].map(([part]) => PARTS[part]),
  reason: (i) => prompts.parts[i].filter(([, differs]) => differs).map(([, , n]) => prompts.reasons[n]),
  kind: (i) => [prompts.kind[i]],
  area: (i) => [prompts.area[i]],
};
const list = { order: [], current: -1, n_drawn: 0, menus: {}, sort: "change", query: "" };

function isChanged(place) {
  return prompts.parts[place].some(([, differs]) => differs);
}

/** What a search looks through. */
const searched = prompts.id.map((id, i) => fold([id, prompts.head[i], ...FACETS.reason(i)].join("\n")));

function applyFilters() {
  const terms = queryTerms(list.query), key = SORTS[list.sort][1];
  const last = (x) => (x == null ? Infinity : x);
  list.order = prompts.id
    .map((_, i) => i)
    .filter((i) => terms.every((term) => searched[i].includes(term)))
    .filter((i) => Object.entries(list.menus).every(([name, value]) => !value || FACETS[name](i).includes(value)))
    .sort((a, b) => last(key(a)) - last(key(b)) || a - b);
  const all = prompts.id.length;
  document.getElementById("count").textContent =
    list.order.length === all ? format.plural(all, "prompt") : `${format.count(list.order.length)} of ${format.plural(all, "prompt")}`;
  document.getElementById("nothing").hidden = list.order.length > 0;
  document.getElementById("rows").replaceChildren();
  document.getElementById("list").scrollTop = 0;
  list.n_drawn = 0;
  drawRows();
}

/** The next rows, until those in sight are there. */
function drawRows(until = 0) {
  const box = document.getElementById("list"), rows = document.getElementById("rows");
  const full = () => box.scrollHeight > box.scrollTop + 2 * box.clientHeight;
  while (list.n_drawn < list.order.length && (list.n_drawn <= until || !full() || !list.n_drawn)) {
    const next = list.order.slice(list.n_drawn, list.n_drawn + BATCH);
    rows.append(...next.map(listRow));
    list.n_drawn += next.length;
  }
}

function listRow(place) {
  const reward = prompts.reward[place];
  return make(
    "li",
    {},
    make(
      "a",
      { class: "row", href: promptLink(place), "data-place": place, "aria-current": place === list.current && "true" },
      make("span", { class: "head" }, isCovered(place) ? "covered: a red-team prompt" : written(prompts.head[place])),
      make(
        "span",
        { class: "facts" },
        make("b", { class: "number" }, isChanged(place) ? format.percent(prompts.change[place]) : "same"),
        make("span", {}, written(prompts.area[place])),
        make("span", {}, prompts.parts[place].map(([part]) => PARTS[part]).join(", ")),
        reward == null ? null : make("span", { class: "number", title: "reward, B − A" }, format.signed(reward)),
      ),
    ),
  );
}

function promptLink(place) {
  return `#${new URLSearchParams({ prompt: prompts.id[place] })}`;
}

function setMenu(name, value) {
  list.menus[name] = value;
  document.getElementById(`menu-${name}`).value = value;
  applyFilters();
}

/** Only the prompts that parted for this reason. */
function showReason(part, reason) {
  for (const name of Object.keys(FACETS)) setMenu(name, "");
  setMenu("part", PARTS[part]);
  setMenu("reason", reason);
  if (list.order.length) location.hash = promptLink(list.order[0]);
}

function menu(name) {
  const counts = new Map();
  prompts.id.forEach((_, i) => {
    for (const value of new Set(FACETS[name](i))) counts.set(value, (counts.get(value) ?? 0) + 1);
  });
  const options = [...counts].map(([value, n]) =>
    make("option", { value }, written(`${format.spaced(value)} (${format.count(n)})`)),
  );
  const choose = ({ target }) => setMenu(name, target.value);
  return make("label", {}, name, make("select", { id: `menu-${name}`, onchange: choose }, make("option", { value: "" }, "any"), options));
}

function openList() {
  document.getElementById("menus").append(...Object.keys(FACETS).map(menu));
  const sort = document.getElementById("sort"), query = document.getElementById("query");
  sort.append(...Object.entries(SORTS).map(([value, [label]]) => make("option", { value }, label)));
  sort.addEventListener("change", () => ((list.sort = sort.value), applyFilters()));
  query.addEventListener("input", () => ((list.query = query.value), applyFilters()));
  document.getElementById("list").addEventListener("scroll", () => drawRows());
  applyFilters();
}

/** The row of the prompt that is read, brought into sight. */
function setCurrent(place) {
  list.current = place;
  drawRows(list.order.indexOf(place));
  for (const row of document.querySelectorAll("#rows a")) {
    const current = Number(row.dataset.place) === place;
    if (current) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
    if (current) row.scrollIntoView({ block: "nearest" });
  }
}
