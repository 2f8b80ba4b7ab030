"use strict";
/* Elements, data blocks, and what the browser remembers. Text of a model only ever becomes a text
   node: nothing here or elsewhere parses markup. */

/** An element. `properties` are attributes, and listeners whose names begin with "on"; `children`
    are nodes and strings, arrays of them, and null for nothing. */
function make(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** An element of SVG. */
function draw(tag, properties = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function furnish(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") && value != null) node.setAttribute(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(9).filter((child) => child != null && child !== false));
  return node;
}

/** The JSON of the data block of that id. */
function block(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** The JSON of a packed block, which the browser may not have read yet. */
async function unpack(id) {
  const text = await packedText(id);
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function packedText(id) {
  for (;;) {
    const read = document.readyState !== "loading";
    const found = document.getElementById(id);
    // What follows it shows that it is whole.
    if (read || found?.nextSibling) {
      const text = found.textContent;
      found.remove();
      return text;
    }
    await pause(15);
  }
}

/** Let the browser paint and answer, then go on. */
function pause(milliseconds = 0) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A link inside the page. */
function address(fields) {
  return `#${new URLSearchParams(fields)}`;
}

/** Small values kept in the browser; for as long as the page is open where it keeps none. */
const store = {
  memory: new Map(),
  get(key, fallback) {
    try {
      const text = localStorage.getItem(key) ?? this.memory.get(key);
      return text == null ? fallback : JSON.parse(text);
    } catch {
      return this.memory.has(key) ? JSON.parse(this.memory.get(key)) : fallback;
    }
  },
  /** Whether it is kept: there are browsers that keep nothing, or have no room. */
  set(key, value) {
    this.memory.set(key, JSON.stringify(value));
    try {
      localStorage.setItem(key, this.memory.get(key));
      return true;
    } catch {
      return false;
    }
  },
};

const format = {
  count: (n) => n.toLocaleString("en-US"),
  percent: (share) => (share == null ? "–" : `${Math.round(100 * share)} %`.replace("-", "−")),
  signed: (x, digits = 2) => (x == null ? "–" : (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits)),
  // Of a mean's interval, which may reach beyond what a share can be.
  share: (x) => format.percent(Math.min(1, Math.max(0, x))),
  p: (p) => (p == null ? "–" : p.toFixed(2)),
  plural: (n, word) => `${format.count(n)} ${word}${n === 1 ? "" : "s"}`,
  spaced: (id) => id.replaceAll("_", " "),
};

/** A table of cells; those of numbers are aligned to the right. */
function table(columns, rows) {
  const isNumber = rows.length
    ? columns.map((_, i) => rows.every((row) => /^[-−+–\d]/.test(row[i]?.textContent ?? row[i])))
    : [];
  const cell = (tag) => (value, i) =>
    make(
      tag,
      { class: isNumber[i] && i ? "number" : null },
      typeof value === "string" ? written(value) : value,
    );
  return make(
    "div",
    { class: "table" },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, columns.map(cell("th")))),
      make(
        "tbody",
        {},
        rows.map((row) => make("tr", {}, row.map(cell("td")))),
      ),
    ),
  );
}

/** Names and what they stand for. */
function definitions(kind, entries) {
  return make(
    "dl",
    { class: kind },
    entries.map(([name, value]) => [make("dt", {}, written(name)), make("dd", {}, written(value))]),
  );
}
