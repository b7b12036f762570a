/** Draws the picture of a snapshot (overlay/ui/picture.ts has the positions), and lets it move from one to the next. */
import { keep, setAttributes, setText, shape, shortTime } from "./parts.mjs";

/** From then on a wait is red. */
const LONG_MS = 10_000;
const MOVE_MS = 500;

const layers = new Map();

/** In this order, the last on top. */
function layer(svg, name) {
  if (!layers.has(name)) {
    layers.set(name, shape("g"));
    svg.append(layers.get(name));
  }
  return layers.get(name);
}

export function drawPicture(svg, picture) {
  setAttributes(svg, { viewBox: picture.viewBox.join(" ") });
  const lines = (name, of, kind) =>
    keep(
      layer(svg, name),
      of,
      ({ id }) => id,
      () => shape("line", { class: kind }),
      moveLine,
    );
  lines("links", picture.links, "link");
  lines("owners", picture.owners, "owner");
  keep(layer(svg, "disks"), picture.disks, ({ volume }) => volume, newDisk, updateDisk);
  keep(layer(svg, "cards"), picture.cards, ({ node }) => node, newCard, updateCard);
  keep(layer(svg, "arrows"), picture.arrows, ({ id }) => id, newArrow, updateArrow, fade);
}

/** Lines have no transition of their own. */
function moveLine(line, { from, to, isUp }) {
  if (isUp !== undefined) setAttributes(line, { "data-up": isUp ? "yes" : "no" });
  const target = [...from, ...to];
  const start = line.at ?? target;
  if (line.target?.join() === target.join()) return;
  line.target = target;
  const fromMs = performance.now();
  const step = (nowMs) => {
    if (line.target !== target) return;
    const share = Math.min(1, Math.max(0, nowMs - fromMs) / MOVE_MS);
    const eased = share * share * (3 - 2 * share);
    line.at = target.map((value, at) => start[at] + (value - start[at]) * eased);
    const [x1, y1, x2, y2] = line.at;
    setAttributes(line, { x1, y1, x2, y2 });
    if (share < 1) requestAnimationFrame(step);
  };
  step(fromMs);
}

function newDisk() {
  return shape("g", { class: "disk" }, [shape("rect", { rx: 17 }), shape("text")]);
}

function updateDisk(group, { x, y, width, height, volume, owner }) {
  const [box, text] = group.children;
  setAttributes(group, { transform: `translate(${x} ${y})`, "data-owner": owner === null && !volume.startsWith("and ") ? "no" : "yes" });
  setAttributes(box, { width, height });
  setAttributes(text, { x: width / 2, y: height / 2 + 5 });
  setText(text, clipped(volume, 16));
}

function newCard() {
  return shape("g", { class: "card" }, [
    shape("rect", { rx: 12 }),
    shape("circle", { class: "dot", cx: 20, cy: 25, r: 6 }),
    shape("text", { class: "name", x: 36, y: 31 }),
    shape("text", { class: "state", y: 30 }),
    shape("g"),
  ]);
}

function updateCard(group, card) {
  const [box, , name, state, rows] = group.children;
  const { x, y, width, height } = card;
  // An attribute has no transition.
  group.style.transform = `translate(${x}px, ${y}px)`;
  setAttributes(group, { "data-mood": card.mood, "data-node": card.node });
  setAttributes(box, { width, height });
  setAttributes(state, { x: width - 14 });
  setText(name, clipped(card.node, 12));
  setText(state, card.state);
  keep(
    rows,
    card.rows,
    ({ label }) => label,
    newRow,
    (row, item) => updateRow(row, item, card.rows.indexOf(item), width),
  );
}

function newRow() {
  return shape("g", { class: "row" }, [shape("text", { x: 20 }), shape("text", { class: "role" })]);
}

function updateRow(row, { label, waits, holds }, at, width) {
  const [text, role] = row.children;
  const y = 50 + (at + 0.5) * 24 + 5;
  setAttributes(row, { "data-role": waits ? "waits" : holds ? "holds" : "more" });
  setAttributes(text, { y });
  setAttributes(role, { x: width - 14, y });
  setText(text, clipped(label, waits && holds ? 14 : 18));
  setText(role, waits && holds ? "waits, holds" : waits ? "waits" : holds ? "holds" : "");
}

function newArrow() {
  const tag = shape("g", { class: "tag" }, [shape("rect", { rx: 11, height: 22, y: -11 }), shape("text", { y: 5 })]);
  const head = shape("path", { class: "head", d: "M-13 -7 L0 0 L-13 7 Z" });
  return shape("g", { class: "arrow" }, [shape("title"), shape("path", { class: "track" }), shape("path", { class: "flow" }), head, tag]);
}

function updateArrow(group, { path, label, waitingMs, what }) {
  const [title, track, flow, head, tag] = group.children;
  setText(title, what);
  for (const curve of [track, flow]) setAttributes(curve, { d: path });
  // The curve ends level, so its head looks to the left or to the right.
  const numbers = path.match(/-?[\d.]+/g).map(Number);
  const [bendX, , endX, endY] = numbers.slice(-4);
  setAttributes(head, { transform: `translate(${endX} ${endY}) scale(${endX >= bendX ? 1 : -1} 1)` });
  setAttributes(tag, { transform: `translate(${label.join(" ")})` });
  group.since = performance.now() - waitingMs;
  showWait(group);
}

function showWait(group) {
  const ms = performance.now() - group.since;
  const text = shortTime(ms);
  const [box, words] = group.lastElementChild.children;
  setText(words, text);
  const width = 16 + text.length * 8;
  setAttributes(box, { width, x: -width / 2 });
  setAttributes(group, { "data-long": ms >= LONG_MS ? "yes" : "no" });
  group.style.setProperty("--wide", String(Math.min(6, 2 + 0.7 * Math.log2(1 + ms / 2000))));
}

/** The time of each wait goes on between two snapshots. */
export function showWaits(svg) {
  for (const group of svg.querySelectorAll(".arrow:not(.going)")) showWait(group);
}

function fade(group) {
  group.classList.add("going");
  setTimeout(() => group.remove(), MOVE_MS);
}

/** Of a name that is too long, its beginning. */
function clipped(text, length) {
  const signs = Array.from(text);
  return signs.length <= length ? text : `${signs.slice(0, length - 1).join("")}…`;
}
