/** The engine over a simulated corosync, with partitions, crashes and rings that come in the midst of a round. */
import { describe, expect, it } from "vitest";
import { CpgSim } from "../../compliance/cpg-sim.ts";
import { seededRandom } from "../../seeded-random.ts";
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import { hasMember, viewName } from "../../../dlmd/wire/view-id.ts";

interface InView {
  readonly view: string;
  readonly together: readonly number[];
  readonly members: string;
  readonly words: string[];
}

/** Of one life: its quorate views, and what was delivered in each. */
function historyOf(events: readonly EngineEvent[]): InView[] {
  const history: InView[] = [];
  for (const event of events) {
    if (event.kind === "view" && event.view.quorum.quorate) {
      const { id, members, together } = event.view;
      history.push({ view: viewName(id), together, members: JSON.stringify(members), words: [] });
    }
    if (event.kind === "message")
      history.at(-1)?.words.push(`${event.from.nodeid}.${event.from.incarnation}:${new TextDecoder().decode(event.data)}`);
  }
  return history;
}

function run(seed: number): { sim: CpgSim; quorateViews: number; heard: number } {
  const random = seededRandom(seed);
  const draw = (n: number): number => random.below(n);
  const sim = new CpgSim(5);
  sim.tokenMs = 50 + draw(800);
  const nodeids = sim.nodes.map(({ nodeid }) => nodeid);
  for (const node of sim.all) node.start();
  let words = 0;
  const lives: { nodeid: number; events: readonly EngineEvent[] }[] = [];
  const seen = new Set<readonly EngineEvent[]>();
  const look = (): void => {
    for (const { nodeid, events } of sim.all) {
      if (seen.has(events)) continue;
      seen.add(events);
      lives.push({ nodeid, events });
    }
    checkLeases(sim);
  };
  for (let turn = 0; turn < 60; turn++) {
    const deed = draw(10);
    const groups: number[][] = [[], [], []];
    for (const nodeid of nodeids) groups[draw(deed < 2 ? 3 : 2)]?.push(nodeid);
    if (deed < 3) sim.partition(groups.filter((group) => group.length > 0));
    else if (deed < 6) sim.heal();
    else if (deed < 7) sim.crash(1 + draw(5));
    for (const node of sim.all) {
      if (sim.down.has(node.nodeid) && draw(2) === 0) sim.start(node.nodeid);
      if (draw(3) > 0) node.step((engine) => engine.command({ kind: "join", group: "g", clientId: 7 }));
      for (let n = draw(8); n > 0; n--)
        node.step((engine) => engine.command({ kind: "multicast", group: "g", clientId: 7, data: new TextEncoder().encode(`${++words}`) }));
    }
    const end = sim.nowMs + draw(4) * draw(700);
    while (sim.nowMs <= end) {
      sim.step();
      look();
    }
  }
  sim.heal();
  for (const nodeid of nodeids) sim.start(nodeid);
  const last = (): string[] => sim.all.map(({ events }) => historyOf(events).at(-1)?.members ?? "");
  expect(
    sim.runUntil(() => new Set(last()).size === 1 && JSON.parse(last()[0] as string).length === 5, 20_000),
    `seed ${seed}: all come together again`,
  ).toBe(true);
  sim.run(2000);
  look();
  const histories = lives.map(({ nodeid, events }) => ({ nodeid, history: historyOf(events) }));
  checkHistories(histories);
  return {
    sim,
    quorateViews: new Set(histories.flatMap(({ history }) => history.map(({ view }) => view))).size,
    heard: Math.max(...histories.map(({ history }) => history.reduce((sum, { words: each }) => sum + each.length, 0))),
  };
}

/** Who may order has outlived every lease of a node outside its view (hazard C4). */
function checkLeases(sim: CpgSim): void {
  for (const node of sim.all) {
    const view = node.views.at(-1);
    if (view === undefined || node.engine?.mayOrder() !== true) continue;
    for (const other of sim.all) {
      if (other.engine === null || other.engine.leaseEndMs <= sim.nowMs) continue;
      const theirs = other.views.at(-1);
      if (theirs === undefined || !theirs.quorum.quorate) continue;
      const self = theirs.members.find(({ nodeid }) => nodeid === other.nodeid);
      const inMine = self !== undefined && hasMember(view.members, self.nodeid, self.incarnation);
      if (!inMine) throw new Error(`node ${node.nodeid} serves in ${viewName(view.id)} while node ${other.nodeid} has a lease outside it`);
    }
  }
}

function checkHistories(histories: readonly { nodeid: number; history: readonly InView[] }[]): void {
  const byView = new Map<string, { nodeid: number; at: InView; next: InView | undefined }[]>();
  for (const { nodeid, history } of histories) {
    for (const [index, at] of history.entries()) {
      const rows = byView.get(at.view) ?? [];
      byView.set(at.view, [...rows, { nodeid, at, next: history[index + 1] }]);
    }
    const words = history.flatMap((each) => each.words);
    expect(new Set(words).size, `node ${nodeid} heard something twice`).toBe(words.length);
  }
  for (const [view, rows] of byView) {
    expect(new Set(rows.map(({ at }) => at.members)).size, `members of ${view}`).toBe(1);
    for (const { nodeid, at, next } of rows) {
      // Who is left behind may have delivered alone.
      const goesOn = next?.together.includes(nodeid) === true;
      if (!goesOn) continue;
      for (const other of rows)
        if (other.next?.view === next?.view && next.together.includes(other.nodeid))
          expect(isEndOf(at.words, other.at.words), `what node ${nodeid} heard, beside ${other.nodeid}, in ${view}`).toBe(true);
    }
  }
}

/** A node hears nothing before it has joined the group. */
function isEndOf(a: readonly string[], b: readonly string[]): boolean {
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  return short.every((word, at) => word === long[long.length - short.length + at]);
}

describe("the engine over corosync, in trouble", () => {
  it.each(Array.from({ length: 10 }, (_, at) => at + 1))("seed %i: one order, one name for each view, no lease outside", (seed) => {
    const { quorateViews, heard } = run(seed);
    expect(quorateViews).toBeGreaterThan(3);
    expect(heard).toBeGreaterThan(20);
  });
});
