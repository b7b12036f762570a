/** The page: takes snapshots from the stream (overlay/ui/snapshot.ts has their shape) and shows the latest one. */
import { count, element, keep, ratio, setAttributes, setText, shape, shortTime } from "./parts.mjs";
import { drawPicture, showWaits } from "./picture.mjs";

/** Without a snapshot for so long the page says that it shows the past. */
const OLD_MS = 5000;
const TICK_MS = 100;

const at = (id) => document.getElementById(id);
let lastMs = null;
let lost = null;

function show(snapshot) {
  setText(at("title"), snapshot.title);
  document.title = `${snapshot.level}: coverlay ${snapshot.title}`;
  setText(at("level"), snapshot.level);
  setAttributes(at("level"), { "data-level": snapshot.level });
  setText(at("seen"), snapshot.seenBy === null ? "no dlmd can be asked" : `${snapshot.quorum}, as ${snapshot.seenBy} sees it`);
  showProblems(snapshot);
  drawPicture(at("picture"), snapshot.picture);
  setText(at("picture-note"), pictureNote(snapshot));
  keep(
    at("waits"),
    snapshot.waits,
    ({ words }) => words.replace(/ has waited [\d.]+ \w+/, ""),
    () => element("li"),
    showWaiter,
  );
  keep(at("mounts"), snapshot.mounts, ({ node, mountpoint }) => JSON.stringify([node, mountpoint]), newMount, showMount);
  setText(at("volumes-note"), snapshot.volumes.map(volumeWords).join("\n"));
  showHistory(snapshot);
}

function showProblems({ problems, sources }) {
  at("problems-part").hidden = problems.length === 0;
  keep(
    at("problems"),
    problems,
    ({ key }) => key,
    () => element("li", {}, [element("div"), element("div", { class: "do" })]),
    (item, problem) => {
      const [found, action] = item.children;
      setAttributes(item, { "data-level": problem.level, "data-code": problem.code });
      setText(found, `${problem.level}: ${problem.found}`);
      setText(action, `do: ${problem.action}${sources.length > 1 ? ` (said by ${problem.saidBy.join(", ")})` : ""}`);
    },
  );
}

function pictureNote({ seenBy, waits, waitsTruncated, picture, sources }) {
  const silent = sources.filter(({ silence }) => silence !== null);
  const old = sources.filter(({ silence, ageMs }) => silence === null && ageMs > OLD_MS);
  return [
    ...(seenBy === null || waits.length > 0 ? [] : ["No program waits for a lock."]),
    ...(picture.undrawn === 0 ? [] : [`${picture.undrawn} more waits have no arrow.`]),
    ...(waitsTruncated ? ["There are more waits than these: coverlay locks --waiting."] : []),
    ...(sources.length < 2 ? [] : silent.map(({ name, silence }) => `${name}: ${silence}.`)),
    ...old.map(({ name, ageMs }) => `${name} last answered ${shortTime(ageMs)} ago.`),
  ].join(" ");
}

function showWaiter(item, { words }) {
  setText(item, words);
}

function newMount() {
  const head = element("div", { class: "mount-head" }, [
    element("strong"),
    element("span", { class: "chip" }),
    element("span", { class: "path" }),
  ]);
  const ops = element("div", { class: "ops" }, [element("b"), element("span", { class: "unit" }, [" ops/s"])]);
  const area = shape("path", { class: "area" });
  const line = shape("svg", { class: "line", preserveAspectRatio: "none", "aria-hidden": "true" }, [area, shape("path")]);
  const facts = ["round trips per op", "lock messages per op", "locks", "open files", "calls now"];
  const figures = facts.map((fact) => element("span", {}, [element("b"), ` ${fact}`]));
  return element("li", {}, [head, element("div", { class: "mount-rate" }, [ops, line]), element("div", { class: "facts" }, figures)]);
}

function showMount(item, { node, volume, mountpoint, role, readOnly, answers, rate, locks, openFiles, calls }) {
  const [head, rates, facts] = item.children;
  const [name, chip, path] = head.children;
  const [ops, line] = rates.children;
  setAttributes(item, { "data-node": node });
  setText(name, node);
  setAttributes(chip, { "data-role": answers ? role : "gone" });
  setText(chip, `${answers || role === "gone" ? role : "silent"}${readOnly === true ? ", read-only" : ""}`);
  setText(path, `${volume} at ${mountpoint}`);
  setAttributes(path, { title: mountpoint });
  setText(ops.firstElementChild, count(rate?.opsPerS ?? null));
  drawLine(line, rate?.line ?? []);
  const values = [ratio(rate?.tripsPerOp ?? null), ratio(rate?.messagesPerOp ?? null), count(locks), count(openFiles), count(calls)];
  values.forEach((value, place) => setText(facts.children[place].firstElementChild, value));
}

/** Points from left to right, the latest at the right. */
function drawLine(svg, values) {
  const [area, path] = svg.children;
  const [width, height] = [60, 30];
  setAttributes(svg, { viewBox: `0 0 ${width} ${height}` });
  const top = Math.max(1, ...values);
  const points = values.map(
    (value, place) => `${width - values.length + place + 1} ${(height - 1 - (value / top) * (height - 3)).toFixed(1)}`,
  );
  const drawn = points.length < 2 ? "" : `M${points.join("L")}`;
  setAttributes(path, { d: drawn });
  setAttributes(area, { d: drawn === "" ? "" : `${drawn}L${width} ${height}L${width - values.length + 1} ${height}Z` });
}

function volumeWords({ volume, owner, lastChange }) {
  const owned = `${volume} has ${owner === null ? "no known owner" : `the owner ${owner}`}.`;
  if (lastChange === null) return owned;
  const { from, to, pauseMs, atMs, reason } = lastChange;
  return `${owned} Last change at ${clock(atMs)}, from ${from} to ${to} in ${shortTime(pauseMs)} (${reason}).`;
}

function showHistory({ history, seenBy }) {
  keep(
    at("history"),
    history,
    ({ id }) => id,
    newEntry,
    (item, { kind, atMs, title, words, mood }) => {
      const [what, more] = item.children;
      setAttributes(item, { "data-kind": kind, "data-mood": mood });
      setText(what.firstElementChild, title);
      setText(what.lastElementChild, clock(atMs));
      setAttributes(what.lastElementChild, { datetime: new Date(atMs).toISOString() });
      setText(more, words);
    },
  );
  setText(at("history-note"), seenBy === null ? "" : `As ${seenBy} keeps it: its views since its dlmd was started, and the last fences.`);
}

function newEntry() {
  return element("li", { class: "enter" }, [
    element("div", { class: "what" }, [element("span"), element("time")]),
    element("div", { class: "words" }),
  ]);
}

function clock(atMs) {
  const date = new Date(atMs);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString("en-GB") : date.toLocaleString("en-GB");
}

function showLive() {
  const ageMs = lastMs === null ? null : performance.now() - lastMs;
  const isLive = lost === null && ageMs !== null && ageMs < OLD_MS;
  const past = ageMs === null ? "" : `; what is shown is ${shortTime(ageMs)} old`;
  setAttributes(at("live"), { "data-live": isLive ? "yes" : "no" });
  setText(at("live"), isLive ? "live" : `${lost ?? "no answer"}${past}`);
}

const stream = new EventSource("stream");
stream.addEventListener("message", ({ data }) => {
  lastMs = performance.now();
  lost = null;
  show(JSON.parse(data));
});
stream.addEventListener("error", () => {
  const isOver = stream.readyState === EventSource.CLOSED;
  lost = isOver ? "closed: open the address that coverlay ui prints" : "coverlay ui does not answer";
});
setInterval(() => {
  showLive();
  if (lost === null) showWaits(at("picture"));
}, TICK_MS);
