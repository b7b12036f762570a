/**
 * Who waits for whom, as a picture: nodes in a ring, each a card with the programs that wait or hold there, volumes in the middle, and an arrow
 * from each that waits to each that holds. Positions alone; the page draws them. Pure.
 */
import type { Party, Wait } from "../status/facts.ts";

/** Arrows that are drawn; the list below the picture has all waits. */
export const ARROWS_MAX = 12;
/** Programs of one card; the rest is a row that says how many. */
export const ROWS_MAX = 4;
/** Volumes in the middle; the rest is one that says how many. */
export const DISKS_MAX = 3;

const CARD = { width: 226, head: 50, row: 24, pad: 8 };
const DISK = { width: 150, height: 34, gap: 10 };
/** Up to so many nodes are in a ring; more would be too close to each other there. */
const RING_NODES = 6;
/** Has room for a full card. */
const CELL = { width: 276, height: 210 };
/** How far an arrow leaves its card before it turns. */
const BEND = 90;
const MARGIN = 30;

export interface PictureNode {
  readonly node: string;
  /** In a word: "member", "silent". */
  readonly state: string;
  readonly mood: "good" | "bad" | "note";
}

export interface PictureLink {
  readonly between: readonly [string, string];
  readonly isUp: boolean;
}

export interface PictureVolume {
  readonly volume: string;
  readonly owner: string | null;
}

export interface CardRow {
  readonly label: string;
  readonly waits: boolean;
  /** It has what another one waits for. One that is only ahead of it in line has not. */
  readonly holds: boolean;
}

export interface Card extends PictureNode {
  /** Of its upper left corner. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly rows: readonly CardRow[];
}

export interface Disk extends PictureVolume {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Line {
  readonly id: string;
  readonly from: readonly [number, number];
  readonly to: readonly [number, number];
}

export interface Arrow {
  /** The same in each snapshot, as long as it waits. */
  readonly id: string;
  /** A path of SVG: from the one that waits to the one that holds. */
  readonly path: string;
  /** Where its time stands. */
  readonly label: readonly [number, number];
  readonly waitingMs: number;
  /** In words, for what. */
  readonly what: string;
}

export interface Picture {
  /** x, y, width, height. */
  readonly viewBox: readonly [number, number, number, number];
  readonly cards: readonly Card[];
  readonly disks: readonly Disk[];
  readonly links: readonly (Line & { readonly isUp: boolean })[];
  /** From a volume to its owner. */
  readonly owners: readonly Line[];
  readonly arrows: readonly Arrow[];
  /** Waits without an arrow: too many, or nobody is known that holds. */
  readonly undrawn: number;
}

export interface PictureOf {
  readonly nodes: readonly PictureNode[];
  readonly links: readonly PictureLink[];
  readonly volumes: readonly PictureVolume[];
  readonly waits: readonly Wait[];
}

export function pictureOf({ nodes, links, volumes, waits }: PictureOf): Picture {
  const names = new Set(nodes.map(({ node }) => node));
  const pairs = waits.flatMap((wait) =>
    [...wait.holders, ...(wait.ahead === null ? [] : [wait.ahead])]
      .filter(({ node }) => names.has(node) && names.has(wait.waiter.node))
      .map((holder) => ({ wait, holder })),
  );
  const drawn = pairs.slice(0, ARROWS_MAX);
  const parties = partiesOf(drawn);
  const cards = nodes.map((node, at) => cardOf(node, parties.get(node.node) ?? [], placeOf(at, nodes.length)));
  const disks = disksOf(volumes, nodes.length);
  const arrows = arrowsOf(drawn, cards, parties);
  return {
    viewBox: boxOf([...cards, ...disks]),
    cards,
    disks,
    links: links.flatMap((link) => linkOf(link, cards)),
    owners: disks.flatMap((disk) => ownerOf(disk, cards)),
    arrows,
    undrawn: waits.filter((wait) => !drawn.some((one) => one.wait === wait)).length,
  };
}

interface Pair {
  readonly wait: Wait;
  /** One of those that hold, or the one that is ahead in line. */
  readonly holder: Party;
}

interface CardParty extends CardRow {
  readonly key: string;
}

const keyOf = ({ node, pid, program }: Party): string => `${node}/${pid}/${program}`;

function partyLabel({ pid, program }: Party): string {
  return program === "" ? `process ${pid}` : `${program} ${pid}`;
}

/** Of each node those that wait or hold, in an order that stays. */
function partiesOf(pairs: readonly Pair[]): Map<string, readonly CardParty[]> {
  const found = new Map<string, CardParty & { readonly node: string }>();
  const note = (party: Party, role: "waits" | "holds"): void => {
    const key = keyOf(party);
    const known = found.get(key) ?? { key, node: party.node, label: partyLabel(party), waits: false, holds: false };
    found.set(key, { ...known, [role]: true });
  };
  for (const { wait, holder } of pairs) {
    note(wait.waiter, "waits");
    note(holder, holder === wait.ahead ? "waits" : "holds");
  }
  const sorted = [...found.values()].toSorted((a, b) => (a.key < b.key ? -1 : 1));
  return new Map([...new Set(sorted.map(({ node }) => node))].map((node) => [node, sorted.filter((one) => one.node === node)]));
}

/** The centre of the card of node `at`: in a ring, the first one on top; of many along the border of a rectangle. */
function placeOf(at: number, count: number): readonly [number, number] {
  if (count === 1) return [0, -110];
  if (count === 2) return [at === 0 ? -300 : 300, 0];
  if (count > RING_NODES) return borderPlace(at, Math.ceil(count / 4) + 1);
  const angle = (2 * Math.PI * at) / count - Math.PI / 2;
  return [Math.round(320 * Math.cos(angle)), Math.round(215 * Math.sin(angle))];
}

/** Clockwise from the upper left corner of a square of `side` times `side` full cards. */
function borderPlace(at: number, side: number): readonly [number, number] {
  const edge = side - 1;
  const along = at % edge;
  const [column, row] = [[along, 0] as const, [edge, along] as const, [edge - along, edge] as const, [0, edge - along] as const][
    Math.floor(at / edge)
  ] ?? [0, 0];
  return [(column - edge / 2) * CELL.width, (row - edge / 2) * CELL.height];
}

function cardOf(node: PictureNode, parties: readonly CardParty[], [x, y]: readonly [number, number]): Card {
  const more = parties.length - ROWS_MAX;
  const shown = parties.slice(0, ROWS_MAX).map(({ label, waits, holds }) => ({ label, waits, holds }));
  const rows = more > 0 ? [...shown, { label: `and ${more} more`, waits: false, holds: false }] : shown;
  const height = CARD.head + (rows.length === 0 ? 0 : rows.length * CARD.row + CARD.pad);
  return { ...node, x: x - CARD.width / 2, y: y - height / 2, width: CARD.width, height, rows };
}

function disksOf(volumes: readonly PictureVolume[], nodes: number): Disk[] {
  const more = volumes.length - DISKS_MAX;
  const shown = more > 0 ? [...volumes.slice(0, DISKS_MAX), { volume: `and ${more} more`, owner: null }] : volumes;
  const whole = shown.length * (DISK.height + DISK.gap) - DISK.gap;
  const top = (nodes === 1 ? 90 : 0) - whole / 2;
  const { width, height } = DISK;
  return shown.map((volume, at) => ({ ...volume, x: -width / 2, y: top + at * (height + DISK.gap), width, height }));
}

const middle = ({ x, y, width, height }: Card | Disk): readonly [number, number] => [x + width / 2, y + height / 2];

function linkOf({ between: [a, b], isUp }: PictureLink, cards: readonly Card[]): Picture["links"] {
  const [one, other] = [a, b].map((node) => cards.find((card) => card.node === node));
  if (one === undefined || other === undefined) return [];
  return [{ id: `${a} ${b}`, from: middle(one), to: middle(other), isUp }];
}

function ownerOf(disk: Disk, cards: readonly Card[]): Line[] {
  const owner = cards.find(({ node }) => node === disk.owner);
  return owner === undefined ? [] : [{ id: disk.volume, from: middle(disk), to: middle(owner) }];
}

/** The height of the row of that program on its card. */
function rowY(card: Card, parties: readonly CardParty[], party: Party): number {
  const at = parties.findIndex(({ key }) => key === keyOf(party));
  return card.y + CARD.head + (Math.min(at, ROWS_MAX) + 0.5) * CARD.row;
}

function arrowsOf(pairs: readonly Pair[], cards: readonly Card[], parties: ReadonlyMap<string, readonly CardParty[]>): Arrow[] {
  const many = new Map<string, number>();
  return pairs.flatMap(({ wait, holder }) => {
    const [from, to] = [wait.waiter, holder].map(({ node }) => cards.find((card) => card.node === node));
    if (from === undefined || to === undefined) return [];
    const ends = `${from.node} ${to.node}`;
    const before = many.get(ends) ?? 0;
    many.set(ends, before + 1);
    const fromY = rowY(from, parties.get(from.node) ?? [], wait.waiter);
    const toY = rowY(to, parties.get(to.node) ?? [], holder);
    const id = [keyOf(wait.waiter), keyOf(holder), wait.lockspace, wait.resource, wait.what].join(" ");
    return [{ id, ...curve(from, fromY, to, toY, before), waitingMs: wait.waitingMs, what: wait.what }];
  });
}

/** A curve that leaves the one card and comes to the other at their sides; labels of arrows between the same two do not cover each other. */
function curve(from: Card, fromY: number, to: Card, toY: number, before: number): Pick<Arrow, "path" | "label"> {
  const apart = to.x - from.x;
  const fromSide = apart < -CARD.width / 3 ? -1 : 1;
  const toSide = apart > CARD.width / 3 ? -1 : 1;
  const edge = ({ x, width }: Card, side: number): number => (side < 0 ? x : x + width);
  const points = [
    [edge(from, fromSide), fromY],
    [edge(from, fromSide) + fromSide * BEND, fromY],
    [edge(to, toSide) + toSide * BEND, toY],
    [edge(to, toSide), toY],
  ] as const;
  const [start, first, second, end] = points;
  const share = [0.5, 0.35, 0.65, 0.42, 0.58][before % 5] ?? 0.5;
  return { path: `M${start.join(" ")} C${first.join(" ")} ${second.join(" ")} ${end.join(" ")}`, label: pointAt(points, share) };
}

/** Of a cubic Bézier curve. */
function pointAt(points: readonly (readonly [number, number])[], share: number): readonly [number, number] {
  const rest = 1 - share;
  const weights = [rest ** 3, 3 * rest ** 2 * share, 3 * rest * share ** 2, share ** 3];
  const sum = (axis: 0 | 1): number => points.reduce((total, point, at) => total + point[axis] * (weights[at] ?? 0), 0);
  return [Math.round(sum(0)), Math.round(sum(1))];
}

function boxOf(shapes: readonly (Card | Disk)[]): Picture["viewBox"] {
  // Arrows bend out of their cards.
  const sides = MARGIN + BEND / 3;
  const left = Math.min(-400, ...shapes.map(({ x }) => x - sides));
  const right = Math.max(400, ...shapes.map(({ x, width }) => x + width + sides));
  const top = Math.min(-120, ...shapes.map(({ y }) => y - MARGIN));
  const bottom = Math.max(120, ...shapes.map(({ y, height }) => y + height + MARGIN));
  return [left, top, right - left, bottom - top];
}
