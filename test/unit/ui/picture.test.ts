/** The positions of the picture: nothing covers anything, each wait has an arrow, and what is too much is counted. */
import { expect, it } from "vitest";
import type { Wait } from "../../../overlay/status/facts.ts";
import { ARROWS_MAX, DISKS_MAX, type Picture, pictureOf, ROWS_MAX } from "../../../overlay/ui/picture.ts";
import { aWait } from "../status/node.ts";

const nodesOf = (count: number): { node: string; state: string; mood: "good" }[] =>
  Array.from({ length: count }, (_, at) => ({ node: `node${at + 1}`, state: "member", mood: "good" }));
const party = (nodeid: number, pid: number): Wait["waiter"] => ({ node: `node${nodeid}`, pid, program: "python3" });
const wait = (waiter: Wait["waiter"], ...holders: Wait["holders"]): Wait => ({ ...aWait, kind: "file", waiter, holders });

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function covers(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function covered({ cards, disks }: Picture): string[] {
  const boxes = [...cards.map((box) => ({ ...box, name: box.node })), ...disks.map((box) => ({ ...box, name: box.volume }))];
  return boxes.flatMap((box, at) =>
    boxes
      .slice(at + 1)
      .filter((other) => covers(box, other))
      .map((other) => `${box.name} ${other.name}`),
  );
}

it.each(Array.from({ length: 31 }, (_, at) => at + 1))("of %d nodes no card covers another one, a volume or the edge", (count) => {
  // Each card as high as it can be.
  const waits = Array.from({ length: count * (ROWS_MAX + 2) }, (_, at) =>
    wait(party((at % count) + 1, at), party((at % count) + 1, 900 + at)),
  );
  const volumes = ["a", "b", "c", "d", "e"].map((volume) => ({ volume, owner: "node1" }));
  const high = pictureOf({ nodes: nodesOf(count), links: [], volumes, waits: waits.slice(0, ARROWS_MAX) });
  expect(covered(high)).toEqual([]);
  const [left, top, width, height] = high.viewBox;
  const edge = { x: left, y: top, width, height };
  expect(
    high.cards.filter(
      ({ x, y, width: wide, height: tall }) => x < edge.x || y < edge.y || x + wide > left + width || y + tall > top + height,
    ),
  ).toEqual([]);
  const full = high.cards.map((card) => ({ ...card, y: card.y + card.height / 2 - 90, height: 180 }));
  expect(covered({ ...high, cards: full })).toEqual([]);
});

it("an arrow leads from the row of the one that waits to the row of the one that holds", () => {
  const picture = pictureOf({ nodes: nodesOf(3), links: [], volumes: [], waits: [wait(party(2, 20), party(1, 10))] });
  const [one, two] = picture.cards;
  expect(one?.rows).toEqual([{ label: "python3 10", waits: false, holds: true }]);
  expect(two?.rows).toEqual([{ label: "python3 20", waits: true, holds: false }]);
  const [arrow] = picture.arrows;
  const numbers = (arrow?.path.match(/-?[\d.]+/g) ?? []).map(Number);
  const [fromX, fromY, endX, endY] = [...numbers.slice(0, 2), ...numbers.slice(-2)] as [number, number, number, number];
  expect([two?.x, one === undefined ? 0 : one.x + one.width]).toEqual([fromX, endX]);
  expect(fromY).toBeGreaterThan((two?.y ?? 0) + 50);
  expect(endY).toBeGreaterThan((one?.y ?? 0) + 50);
  expect(arrow).toMatchObject({ waitingMs: 10_000, what: aWait.what });
  expect(picture.undrawn).toBe(0);
});

it("one that is only ahead in line holds nothing; one that holds elsewhere does", () => {
  const line = [wait(party(2, 20), party(1, 10)), { ...wait(party(3, 30)), ahead: party(2, 20) }];
  const rows = (waits: Wait[]): unknown => pictureOf({ nodes: nodesOf(3), links: [], volumes: [], waits }).cards[1]?.rows;
  expect(rows(line)).toEqual([{ label: "python3 20", waits: true, holds: false }]);
  const [first] = line as [Wait, Wait];
  expect(rows([first, { ...wait(party(3, 30), party(2, 20)), resource: "another" }])).toEqual([
    { label: "python3 20", waits: true, holds: true },
  ]);
});

it("keeps the name of an arrow while it waits, and gives each wait of a program its own", () => {
  const one = wait(party(2, 20), party(1, 10));
  const ids = (waits: Wait[]): string[] => pictureOf({ nodes: nodesOf(2), links: [], volumes: [], waits }).arrows.map(({ id }) => id);
  const [id] = ids([one]);
  expect(ids([{ ...one, waitingMs: 20_000 }])).toEqual([id]);
  expect(new Set(ids([one, { ...one, what: "other bytes" }, { ...one, resource: "another" }])).size).toBe(3);
});

it("waits beyond the limit, without a holder, or of a node that is not known, are counted", () => {
  const many = Array.from({ length: ARROWS_MAX + 2 }, (_, at) => wait(party(2, at), party(1, 10)));
  const others = [wait(party(2, 99)), wait(party(9, 99), party(1, 10))];
  const picture = pictureOf({ nodes: nodesOf(2), links: [], volumes: [], waits: [...many, ...others] });
  expect([picture.arrows.length, picture.undrawn]).toEqual([ARROWS_MAX, 4]);
  const two = picture.cards[1];
  expect(two?.rows).toHaveLength(ROWS_MAX + 1);
  expect(two?.rows.at(-1)).toEqual({ label: `and ${ARROWS_MAX - ROWS_MAX} more`, waits: false, holds: false });
});

it("volumes are led to their owners, links between nodes that are there; more volumes are a number", () => {
  const volumes = ["a", "b", "c", "d", "e"].map((volume) => ({ volume, owner: volume === "b" ? null : "node2" }));
  const links = [
    { between: ["node1", "node2"] as const, isUp: false },
    { between: ["node1", "gone"] as const, isUp: true },
  ];
  const picture = pictureOf({ nodes: nodesOf(2), links, volumes, waits: [] });
  expect(picture.disks.map(({ volume }) => volume)).toEqual(["a", "b", "c", "and 2 more"]);
  expect(picture.disks).toHaveLength(DISKS_MAX + 1);
  expect(picture.owners.map(({ id }) => id)).toEqual(["a", "c"]);
  expect(picture.links).toMatchObject([{ id: "node1 node2", isUp: false }]);
});

it("without a node there is an empty picture", () => {
  const picture = pictureOf({ nodes: [], links: [], volumes: [], waits: [wait(party(1, 1), party(2, 2))] });
  expect(picture).toMatchObject({ cards: [], arrows: [], undrawn: 1 });
  expect(picture.viewBox.every(Number.isFinite)).toBe(true);
});
