/** Parts of the page. Each text goes in as text, never as HTML: names come from other nodes, from programs and from files. */

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a child that is text stays text. */
export function element(name, attributes = {}, children = []) {
  return filled(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, children = []) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
  }
}

/** Makes the children of `parent` those of `items`, in their order. A child stays the same element as long as its key is there. */
export function keep(parent, items, keyOf, make, update, leave = (child) => child.remove()) {
  const known = (parent.kept ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, child] of known) {
    if (wanted.has(key)) continue;
    known.delete(key);
    leave(child);
  }
  let before = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    if (child === undefined) {
      child = make(item);
      known.set(key, child);
    }
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
    update(child, item);
  }
}

/** "0.4 s", "12 s", "3 min", "5 h" */
export function shortTime(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.round(seconds / 3600)} h`;
}

export function count(value) {
  if (value === null) return "–";
  return value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

export function ratio(value) {
  return value === null ? "–" : value.toFixed(2);
}
