/** Hazard H5: hints from who asks for a lock to who has it, past the master. Nodes 1 and 2 hand locks over, 3 masters them. */
import { beforeEach, describe, expect, it } from "vitest";
import { NOQUEUE, NOQUEUEBAST, ORPHAN, PERSISTENT } from "../../../dlmd/lock/flag.ts";
import { Hints, hintedLocks, knownHolders } from "../../../dlmd/lock/hints.ts";
import type { Holder } from "../../../dlmd/lock/holder.ts";
import { type Lkb, newLkb, newResource } from "../../../dlmd/lock/lkb.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import type { ClientRequest } from "../../../dlmd/node-api.ts";
import type { HintMessage } from "../../../dlmd/wire/peer-message.ts";
import { type Program, World } from "../../scenario/world.ts";

const { NL, CR, PR, PW, EX } = Mode;

class Pair {
  readonly world: World = new World(3, {}, []);
  readonly resource: string;
  readonly #lockIds: Map<string, number> = new Map();
  #nextLockId = 1;

  constructor(master: number, limits: Readonly<Record<string, number>> = {}) {
    if (!this.world.pass(5000, () => this.world.serving())) throw new Error("the nodes do not serve");
    this.resource = this.world.nameFor(master, null);
    for (const [name, nodeid] of [
      ["a", 1],
      ["b", 2],
    ] as const) {
      this.world.program(name, nodeid, `owner ${name}`, false, limits[name] ?? 0);
    }
    this.world.pass(10);
  }

  /** A new lock of that program, named as the program; what it heard before is forgotten. */
  lock(name: string, mode: Mode, flags = 0): void {
    const lockId = this.#nextLockId++;
    this.#lockIds.set(name, lockId);
    (this.world.programs.get(name) as Program).locks.set(name, lockId);
    this.#ask(name, { kind: "lock", lockspaceId: 1, lockId, resource: this.resource, mode, flags });
  }

  convert(name: string, mode: Mode, flags = 0): void {
    this.#ask(name, { kind: "convert", lockId: this.#lockIds.get(name) as number, mode, flags, lvb: null });
  }

  unlock(name: string): void {
    this.#ask(name, { kind: "unlock", lockId: this.#lockIds.get(name) as number, flags: 0, lvb: null });
  }

  #ask(name: string, request: ClientRequest): void {
    this.world.ask(name, request);
    this.world.settle();
  }

  /** What it heard since it was asked last. */
  heard(name: string): string[] {
    return this.world.heardOf(this.world.programs.get(name) as Program, name).splice(0);
  }

  hold(from: number, to: number): void {
    this.world.held.set(`${from}>${to}`, []);
  }

  flow(from: number, to: number): void {
    this.world.flow(from, to);
    this.world.settle();
  }

  /** b got the lock that a had, in these modes; a while ago. */
  handed(modeA: Mode, modeB: Mode, flagsB = 0): void {
    this.lock("a", modeA);
    this.lock("b", modeB, flagsB);
    this.unlock("a");
    const last = this.heard("b").at(-1);
    if (last?.startsWith("granted") !== true) throw new Error(`a grant to b expected, found ${last}`);
    this.heard("a");
    this.world.pass(5);
  }

  /** What a wants reaches its master when it is told to. */
  askUnheard(mode: Mode, flags = 0): void {
    this.hold(1, 3);
    this.lock("a", mode, flags);
  }

  counts(nodeid: number): { sent: number; received: number; told: number; confirmed: number } {
    return this.holder(nodeid).hints.counts;
  }

  holder(nodeid: number): Holder {
    const node = this.world.nodes.get(nodeid);
    if (node === undefined) throw new Error(`no node ${nodeid}`);
    return node.core.locks.holder;
  }

  /** b's lock, at its node. */
  lkb(): Lkb {
    const [lkb] = [...(this.world.nodes.get(2)?.core.locks.tables.heldElsewhere.values() ?? [])];
    if (lkb === undefined) throw new Error("b has no lock");
    return lkb;
  }

  /** A hint that node 1 may have sent at any time. */
  hint(change: Partial<HintMessage>): void {
    const { id: lkbId, grantNo } = this.lkb();
    const message: HintMessage = { kind: "hint", lkbId, grantNo, wanted: EX, asker: { lkbId: 99, grantNo: 1 }, ...change };
    this.world.nodes.get(2)?.core.locks.receive(1, message);
    // What it said goes out with the next step.
    this.world.input(2, { kind: "tick" });
    this.world.settle();
  }
}

describe("a node that asks for what it had to give up", () => {
  let p: Pair;
  beforeEach(() => {
    p = new Pair(3);
  });

  it("tells who has it, whose program hears before the master does, and not again from the master", () => {
    p.handed(EX, EX);
    p.askUnheard(EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    p.flow(1, 3);
    expect(p.heard("b")).toEqual([]);
    expect(p.counts(2)).toMatchObject({ received: 1, told: 1, confirmed: 1 });
    p.unlock("b");
    expect(p.heard("a")).toEqual(["granted EX"]);
    // And the other way round: by the hint it knows who made it give up.
    p.world.pass(5);
    p.hold(2, 3);
    p.lock("b", EX);
    expect(p.heard("a")).toEqual(["bast EX"]);
  });

  it("changes nothing by that: only what the holder gives up does", () => {
    p.handed(EX, EX);
    const before = { ...p.lkb() };
    p.askUnheard(EX);
    expect(p.lkb()).toEqual(before);
    p.unlock("b");
    // Its request is still on the way.
    expect(p.heard("a")).toEqual([]);
    p.flow(1, 3);
    expect(p.heard("a")).toEqual(["granted EX"]);
  });

  it("whose hint comes late is granted all the same, and nobody hears it twice", () => {
    p.handed(EX, EX);
    p.hold(1, 2);
    p.lock("a", EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    p.flow(1, 2);
    expect(p.counts(2)).toMatchObject({ received: 1, told: 0 });
    expect(p.heard("b")).toEqual([]);
    p.unlock("b");
    expect(p.heard("a")).toEqual(["granted EX"]);
  });

  it("tells nobody when both may have it, and then still knows who has it", () => {
    p.handed(EX, PR);
    p.lock("a", PR);
    expect(p.heard("a")).toEqual(["granted PR"]);
    expect(p.counts(1).sent).toBe(0);
    p.hold(1, 3);
    p.convert("a", EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
  });

  it("tells nobody with NOQUEUE, unless holders are to hear of it", () => {
    p.handed(EX, EX);
    p.lock("a", EX, NOQUEUE);
    expect(p.heard("b")).toEqual([]);
    expect(p.counts(1).sent).toBe(0);
    p.askUnheard(EX, NOQUEUE | NOQUEUEBAST);
    expect(p.heard("b")).toEqual(["bast EX"]);
  });

  it("tells nobody while what it gave up is still on its way: the master's word travels with it", () => {
    p.lock("a", EX);
    p.lock("b", EX);
    p.heard("a");
    p.convert("a", NL);
    p.convert("a", EX);
    expect(p.counts(1).sent).toBe(0);
    expect(p.heard("b")).toEqual(["granted EX", "bast EX"]);
  });

  it("tells once: what it knows is used up by that", () => {
    p.handed(EX, EX);
    p.lock("a", EX, NOQUEUE | NOQUEUEBAST);
    p.lock("a", EX, NOQUEUE | NOQUEUEBAST);
    expect(p.counts(1).sent).toBe(1);
  });

  it("knows nothing any more in another view", () => {
    p.handed(EX, EX);
    p.world.disconnect(1, 2);
    p.world.connect(1, 2);
    const before = p.world.viewOf(1);
    p.world.crash(3);
    expect(p.world.pass(5000, () => p.world.serving() && p.world.viewOf(1) !== before)).toBe(true);
    p.lock("a", EX);
    expect(p.counts(1).sent).toBe(0);
    expect(p.heard("b")).toEqual(["bast EX"]);
  });
});

it("where the master is one of the two there is nothing to hint", () => {
  for (const master of [1, 2]) {
    const p = new Pair(master);
    p.handed(EX, EX);
    p.lock("a", EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    expect(p.counts(1).sent + p.counts(2).sent).toBe(0);
  }
});

describe("a node that gets a hint", () => {
  let p: Pair;
  beforeEach(() => {
    p = new Pair(3);
  });

  it("ignores one for another grant, for a lock that it has not, for a mode that may be beside", () => {
    p.handed(EX, PR);
    const { grantNo } = p.lkb();
    p.hint({ grantNo: grantNo - 1 });
    p.hint({ grantNo: grantNo + 1 });
    p.hint({ lkbId: 4711 });
    p.hint({ wanted: PR });
    expect(p.heard("b")).toEqual([]);
    p.hint({});
    p.hint({});
    expect(p.heard("b")).toEqual(["bast EX"]);
  });

  it("lets the master's word for a later grant through", () => {
    p.handed(EX, PR);
    p.askUnheard(EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    p.convert("b", PW);
    expect(p.heard("b")).toEqual(["granted PW"]);
    p.flow(1, 3);
    expect(p.heard("b")).toEqual(["bast EX"]);
  });

  it("lets the master's word for a mode through that excludes more", () => {
    p.handed(EX, PR);
    p.hint({ wanted: PW });
    expect(p.heard("b")).toEqual(["bast PW"]);
    p.lock("a", EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
  });

  it("does not repeat what the master has said", () => {
    p.handed(EX, PR);
    p.lock("a", EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    p.hint({});
    p.hint({ wanted: CR });
    expect(p.heard("b")).toEqual([]);
  });

  it("does not keep from a lock's next owner what only its former one heard", () => {
    p.handed(EX, EX, PERSISTENT);
    p.askUnheard(EX);
    expect(p.heard("b")).toEqual(["bast EX"]);
    p.world.die("b");
    p.world.program("c", 2, "owner b", false);
    p.lock("c", EX, ORPHAN);
    expect(p.heard("c")).toEqual(["granted EX"]);
    p.flow(1, 3);
    expect(p.heard("c")).toEqual(["bast EX"]);
  });
});

describe("a program that promised to answer blocking ASTs", () => {
  it("has not failed to while only a hint asks (hazard H13), and has when the master does", () => {
    const p = new Pair(3, { b: 50 });
    p.handed(EX, EX);
    p.hint({});
    expect(p.heard("b")).toEqual(["bast EX"]);
    const b = p.world.programs.get("b") as Program;
    p.world.pass(200);
    // As if it connected anew: what it was told counts from then on.
    p.world.ask("b", { kind: "bast-limit", limitMs: 50 });
    p.world.pass(200);
    expect(b.ending).toBe(false);
    p.lock("a", EX);
    expect(p.heard("b")).toEqual([]);
    p.world.pass(40);
    expect(b.ending).toBe(false);
    p.world.pass(20);
    expect(b.ending).toBe(true);
  });
});

describe("what is remembered has an end", () => {
  const space = { name: "s", resources: new Map(), opens: 1, blocked: false };
  const lockOn = (name: string): Lkb => Object.assign(newLkb(newResource(space, name, 3), 1, 1, null, 1, 1), { granted: EX });

  it("who has what: of the oldest it is forgotten", () => {
    const hints = new Hints(1);
    const locks = Array.from({ length: knownHolders + 1 }, (_, i) => lockOn(`r${i}`));
    for (const lkb of locks) hints.makesWayFor(lkb.resource, { nodeid: 2, lkbId: 1, grantNo: 1 }, EX);
    for (const lkb of locks) hints.gaveUp(lkb, 0);
    const known = locks.map((lkb) => hints.holderFor(lkb, EX, 0, 10) !== null);
    expect(known.indexOf(true)).toBe(1);
    expect(known.filter(Boolean)).toHaveLength(knownHolders);
  });

  it("who heard a hint: the oldest may hear the same from the master", () => {
    const hints = new Hints(1);
    const locks = Array.from({ length: hintedLocks + 1 }, (_, i) => lockOn(`r${i}`));
    for (const lkb of locks) expect(hints.tells(lkb, EX)).toBe(true);
    expect(locks.map((lkb) => hints.confirms(lkb, EX)).indexOf(true)).toBe(1);
  });
});
