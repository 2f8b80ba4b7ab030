"use strict";
/* The prompts of both runs: which are listed, and in which order. */

const comparison = block("comparison");
const { overview, principles, prompts, parts: PARTS } = comparison;
const ROW_HEIGHT = 88; // Pixels, as in page.css.
const SPARE = 8; // Rows made beyond those in sight.
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
const list = { order: [], current: -1, drawn: [0, 0], menus: {}, sort: "change", query: "" };

function kindOf(place) {
  return prompts.kind[place];
}

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
    .filter(isOneDifference)
    .sort((a, b) => last(key(a)) - last(key(b)) || a - b);
  const all = prompts.id.length;
  document.getElementById("count").textContent =
    list.order.length === all ? format.plural(all, "prompt") : `${format.count(list.order.length)} of ${format.plural(all, "prompt")}`;
  document.getElementById("nothing").hidden = list.order.length > 0;
  document.getElementById("rows").style.height = `${list.order.length * ROW_HEIGHT}px`;
  document.getElementById("list").scrollTop = 0;
  drawRows();
}

/** Whether the part and the reason that are asked for belong together: a prompt's other part may
    differ for that reason. */
function isOneDifference(place) {
  const { part, reason } = list.menus;
  return !part || !reason || prompts.parts[place].some(([p, differs, r]) => differs && PARTS[p] === part && prompts.reasons[r] === reason);
}

/** Make the rows in sight, and some around them. */
function drawRows() {
  const box = document.getElementById("list"), n = list.order.length;
  const first = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - SPARE);
  const last = Math.min(n, Math.ceil((box.scrollTop + box.clientHeight) / ROW_HEIGHT) + SPARE);
  list.drawn = [first, last];
  document.getElementById("rows").replaceChildren(...list.order.slice(first, last).map((place, i) => listRow(place, first + i)));
}

/** After scrolling: rows that are there stay, with the focus on one of them. */
function drawMore() {
  const box = document.getElementById("list"), [first, last] = list.drawn;
  const top = Math.floor(box.scrollTop / ROW_HEIGHT), bottom = Math.ceil((box.scrollTop + box.clientHeight) / ROW_HEIGHT);
  if (top < first || Math.min(bottom, list.order.length) > last) drawRows();
}

function listRow(place, at) {
  const reward = prompts.reward[place];
  const item = make(
    "li",
    { "aria-setsize": list.order.length, "aria-posinset": at + 1 },
    make(
      "a",
      { class: "row", href: promptLink(place), "data-place": place, "aria-current": place === list.current && "true" },
      make("span", { class: "head" }, isCovered(place) ? COVERED : written(prompts.head[place])),
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
  item.style.top = `${at * ROW_HEIGHT}px`;
  return item;
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
  document.getElementById("list").addEventListener("scroll", drawMore);
  new ResizeObserver(drawMore).observe(document.getElementById("list"));
  applyFilters();
}

/** The row of the prompt that is read, brought into sight. */
function setCurrent(place) {
  list.current = place;
  const box = document.getElementById("list"), at = list.order.indexOf(place), top = at * ROW_HEIGHT;
  if (at >= 0 && top < box.scrollTop) box.scrollTop = top;
  if (at >= 0 && top + ROW_HEIGHT > box.scrollTop + box.clientHeight) {
    box.scrollTop = top + ROW_HEIGHT - box.clientHeight;
  }
  drawMore();
  for (const row of document.querySelectorAll("#rows a")) {
    if (Number(row.dataset.place) === place) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}
