/** Mounters over an ordered bus: who gets the state of whom, which jid, and each step of a recovery. Their truth under faults: test/sim/mount-group. */
import { describe, expect, it } from "vitest";
import { MAX_EVENTS_BEFORE_STATE, Mounter, type MounterEffect, type MounterEvent } from "../../../dlmd/mount-group/mounter.ts";
import {
  decodeMountGroupMessage,
  encodeMountGroupMessage,
  MAX_JIDS,
  type MounterId,
  type MounterState,
  type MountGroupState,
} from "../../../dlmd/wire/mount-group.ts";

type Ordered =
  | { readonly kind: "members"; readonly members: readonly MounterId[]; readonly joined: readonly MounterId[] }
  | { readonly kind: "message"; readonly from: MounterId; readonly data: Uint8Array };

class Seat {
  readonly id: MounterId;
  readonly core: Mounter;
  effects: MounterEffect[] = [];
  next: number;
  here = true;
  readonly #bus: Bus;

  constructor(bus: Bus, nodeid: number, next: number) {
    this.id = { nodeid, incarnation: `000000000000000${nodeid}`, clientId: bus.seats.length + 1 };
    this.core = new Mounter(this.id);
    this.#bus = bus;
    this.next = next;
  }

  does(event: MounterEvent): void {
    for (const effect of this.core.step(event)) {
      if (effect.kind === "say") this.#bus.say(this, effect.data);
      else this.effects.push(effect);
    }
  }

  /** What it was told to do since it was asked last. */
  told(): string[] {
    return this.effects.splice(0).map((effect) => {
      switch (effect.kind) {
        case "jid":
          return `jid ${effect.jid}`;
        case "let-go":
          return `let-go ${effect.round} of ${effect.dead.map(({ jid }) => jid).join() || "none"}`;
        case "block":
          return effect.blocked ? "block" : "unblock";
        case "recover":
          return `recover ${effect.jid ?? "all"} in ${effect.round}`;
        case "refused":
          return `refused: ${effect.code}`;
        default:
          return effect.kind;
      }
    });
  }

  /** The dead of the newest round are let go of. */
  stops(): void {
    this.does({ kind: "stopped", round: this.core.state?.round ?? 0 });
  }
}

class Bus {
  readonly seats: Seat[] = [];
  readonly #order: Ordered[] = [];
  #members: readonly MounterId[] = [];
  /** Messages of these are not ordered yet. */
  readonly late: Map<Seat, Uint8Array[]> = new Map();

  say(from: Seat, data: Uint8Array): void {
    const held = this.late.get(from);
    if (held !== undefined) held.push(data);
    else this.#order.push({ kind: "message", from: from.id, data });
  }

  join(...nodeids: number[]): Seat[] {
    const at = this.#order.length;
    const seats = nodeids.map((nodeid) => {
      const seat = new Seat(this, nodeid, at);
      this.seats.push(seat);
      return seat;
    });
    this.#members = [...this.#members, ...seats.map(({ id }) => id)];
    this.#order.push({ kind: "members", members: this.#members, joined: seats.map(({ id }) => id) });
    return seats;
  }

  leave(...gone: Seat[]): void {
    for (const seat of gone) seat.here = false;
    this.#members = this.#members.filter((id) => !gone.some((seat) => seat.id === id));
    this.#order.push({ kind: "members", members: this.#members, joined: [] });
  }

  deliver(seat: Seat, atMost = Number.POSITIVE_INFINITY): void {
    for (let count = 0; seat.here && seat.next < this.#order.length && count < atMost; count++)
      seat.does(this.#order[seat.next++] as Ordered);
  }

  /** Until nothing more comes of it. */
  run(): void {
    while (this.seats.some((seat) => seat.here && seat.next < this.#order.length)) for (const seat of this.seats) this.deliver(seat, 1);
  }

  /** A group with an owner, where nothing is left to do. */
  static mounted(nodes: number): { bus: Bus; seats: Seat[] } {
    const bus = new Bus();
    for (let nodeid = 1; nodeid <= nodes; nodeid++) {
      bus.join(nodeid);
      bus.run();
    }
    const [owner] = bus.seats as [Seat];
    for (const seat of bus.seats) seat.does({ kind: "mounted" });
    bus.run();
    bus.serve(owner, 1);
    for (const seat of bus.seats) seat.told();
    if (bus.seats.some(({ core }, at) => core.jid !== at || core.isBlocked)) throw new Error("not all are mounted, in their order");
    return { bus, seats: bus.seats };
  }

  /** It becomes the owner, and puts in order what there is. */
  serve(owner: Seat, epoch: number): void {
    for (const seat of this.seats) if (seat.here) seat.stops();
    owner.does({ kind: "claimed" });
    this.run();
    if (owner.effects.every(({ kind }) => kind !== "claim-known")) throw new Error("nobody has heard the claim");
    owner.does({ kind: "serving", epoch });
    this.run();
    this.reopenAll(owner);
    this.recover(owner);
  }

  /** All that are there have their files open at that owner. */
  reopenAll(owner: Seat): void {
    for (const seat of this.seats) if (seat.here) owner.does({ kind: "reopened", mounter: seat.id });
    this.run();
  }

  recover(owner: Seat): void {
    for (;;) {
      const asked = owner.effects.findLast((effect) => effect.kind === "recover");
      owner.effects = owner.effects.filter((effect) => effect.kind !== "recover");
      if (asked?.kind !== "recover") return;
      owner.does({ kind: "recovered", round: asked.round, jid: asked.jid });
      this.run();
    }
  }
}

describe("jids", () => {
  it("are given in the order of the group, the lowest that is free", () => {
    const { bus, seats } = Bus.mounted(3);
    seats[1]?.does({ kind: "leave" });
    bus.run();
    bus.leave(seats[1] as Seat);
    const [next] = bus.join(4) as [Seat];
    bus.run();
    expect(next.told()).toEqual(["unblock", "jid 1"]);
  });

  it("of a mounter without a clean end is given again only when it is in order", () => {
    const { bus, seats } = Bus.mounted(3);
    bus.leave(seats[1] as Seat);
    const [early] = bus.join(4) as [Seat];
    bus.run();
    expect(early.core.jid).toBe(3);
    for (const seat of [seats[0], seats[2]] as Seat[]) seat.stops();
    bus.run();
    bus.recover(seats[0] as Seat);
    const [late] = bus.join(5) as [Seat];
    bus.run();
    expect(late.core.jid).toBe(1);
  });

  it("is used only when all that were there before have said that they know (hazard M6)", () => {
    const { bus, seats } = Bus.mounted(2);
    bus.late.set(seats[1] as Seat, []);
    const [next] = bus.join(3) as [Seat];
    bus.run();
    expect([next.core.jid, next.told(), next.core.awaited.map(({ nodeid }) => nodeid)]).toEqual([2, ["unblock"], [2]]);
    const held = bus.late.get(seats[1] as Seat) as Uint8Array[];
    bus.late.delete(seats[1] as Seat);
    for (const data of held) bus.say(seats[1] as Seat, data);
    bus.run();
    expect(next.told()).toEqual(["jid 2"]);
  });

  it("are 1024: one more mounter is refused, and says how many are dirty", () => {
    const bus = new Bus();
    const [first] = bus.join(1) as [Seat];
    bus.join(...Array.from({ length: MAX_JIDS }, (_, at) => 2 + (at % 9)));
    bus.deliver(first);
    const last = bus.seats.at(-1) as Seat;
    bus.deliver(last, 2);
    expect(last.told()).toEqual(["refused: no-jid"]);
    expect(last.core.step({ kind: "mounted" })).toEqual([]);
  });
});

describe("the state", () => {
  it("comes from the first member, as it was some events ago, and the events since are applied to it", () => {
    const { bus, seats } = Bus.mounted(2);
    const [next] = bus.join(3) as [Seat];
    // What the first says of the state comes after these.
    seats[1]?.does({ kind: "claimed" });
    bus.deliver(seats[0] as Seat);
    bus.run();
    expect(next.core.state).toEqual(seats[0]?.core.state);
    expect(next.core.state?.members.map(({ ownership }) => ownership)).toEqual(["serving", "claimed", "none"]);
  });

  it("of a first member that died comes from the next one, who joined before", () => {
    const { bus, seats } = Bus.mounted(2);
    const [next] = bus.join(3) as [Seat];
    bus.leave(seats[0] as Seat);
    bus.run();
    expect(next.core.state).toEqual(seats[1]?.core.state);
    expect(next.core.state?.dirty.map(({ jid, wasOwner }) => [jid, wasOwner])).toEqual([[0, true]]);
    expect(next.core.jid).toBe(2);
  });

  it("is lost with the last that had it: the first of those that waited founds anew, and everything is put in order before anybody goes on", () => {
    const { bus, seats } = Bus.mounted(1);
    const [second, third] = bus.join(2, 3) as [Seat, Seat];
    bus.leave(seats[0] as Seat);
    bus.run();
    expect([second.told(), third.told()]).toEqual([
      ["jid 0", "let-go 1 of none"],
      ["jid 1", "let-go 1 of none"],
    ]);
    expect(third.core.state).toEqual(second.core.state);
    third.stops();
    third.does({ kind: "claimed" });
    bus.run();
    third.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect([third.told(), second.core.isBlocked]).toEqual([["claim-known", "settle"], true]);
    second.stops();
    bus.run();
    expect([third.told(), second.core.isBlocked]).toEqual([["recover all in 1"], true]);
    third.does({ kind: "recovered", round: 1, jid: null });
    bus.run();
    expect([second.told(), third.told()]).toEqual([["unblock"], ["unblock"]]);
  });

  it("that does not come ends the joiner after so many events", () => {
    const bus = new Bus();
    const [first] = bus.join(1) as [Seat];
    const [joiner] = bus.join(2) as [Seat];
    bus.deliver(joiner);
    const noise = encodeMountGroupMessage({ kind: "released" });
    for (let count = 1; count < MAX_EVENTS_BEFORE_STATE; count++) joiner.does({ kind: "message", from: first.id, data: noise });
    expect(joiner.told()).toEqual([]);
    joiner.does({ kind: "message", from: first.id, data: noise });
    expect(joiner.told()).toEqual(["refused: no-state"]);
  });

  it("of another version is no state: the joiner is refused, and members ignore what they do not understand", () => {
    const { bus, seats } = Bus.mounted(1);
    const [joiner] = bus.join(2) as [Seat];
    bus.deliver(joiner);
    const newer = Uint8Array.of(99, 1, 2, 3);
    const before = seats[0]?.core.state;
    joiner.does({ kind: "message", from: (seats[0] as Seat).id, data: newer });
    seats[0]?.does({ kind: "message", from: seats[0].id, data: newer });
    expect([joiner.told(), seats[0]?.told()]).toEqual([["refused: version"], ["ignored"]]);
    expect(seats[0]?.core.state).toEqual({ ...before, position: (before?.position ?? 0) + 1 });
  });
});

describe("a death", () => {
  it("of the owner blocks all: they let go of it, the next owner puts its jid in order, then they go on", () => {
    const { bus, seats } = Bus.mounted(3);
    const [dead, second, third] = seats as [Seat, Seat, Seat];
    bus.leave(dead);
    bus.run();
    expect([second.told(), third.told()]).toEqual([
      ["block", "let-go 2 of 0"],
      ["block", "let-go 2 of 0"],
    ]);
    second.stops();
    second.does({ kind: "claimed" });
    bus.run();
    second.does({ kind: "serving", epoch: 2 });
    bus.run();
    // The third has not stopped yet.
    expect(second.told()).toEqual(["claim-known"]);
    third.stops();
    bus.run();
    expect([second.told(), third.told(), second.core.state?.step]).toEqual([["unblock"], ["unblock"], "reopening"]);
    second.does({ kind: "reopened", mounter: second.id });
    bus.run();
    // Nobody is blocked, and the jid is not free: the third may have files open that have no name.
    expect([second.told(), second.core.toReopen.map(({ nodeid }) => nodeid), third.core.mustReopen]).toEqual([[], [3], true]);
    second.does({ kind: "reopened", mounter: third.id });
    bus.run();
    expect([second.told(), third.core.mustReopen, third.core.state?.step]).toEqual([["settle", "recover 0 in 2"], false, "recovering"]);
    const [next] = bus.join(4) as [Seat];
    bus.run();
    expect(next.core.jid).toBe(3);
    second.does({ kind: "recovered", round: 2, jid: 0 });
    bus.run();
    expect([third.core.state?.step, third.core.state?.dirty, second.told(), third.told()]).toEqual(["idle", [], [], []]);
  });

  it("of another mounter blocks nobody while files of a dead owner's time are not open again", () => {
    const { bus, seats } = Bus.mounted(4);
    const [dead, second, third, fourth] = seats as [Seat, Seat, Seat, Seat];
    bus.leave(dead);
    bus.run();
    for (const seat of [second, third, fourth]) seat.stops();
    second.does({ kind: "claimed" });
    bus.run();
    second.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect([third.core.state?.step, third.core.isBlocked]).toEqual(["reopening", false]);
    third.told();
    bus.leave(fourth);
    bus.run();
    expect([third.told(), third.core.state?.step]).toEqual([["let-go 3 of 0,3"], "stopping"]);
  });

  it("of another mounter blocks nobody while the owner serves; the owner puts its jid in order", () => {
    const { bus, seats } = Bus.mounted(3);
    bus.leave(seats[2] as Seat);
    bus.run();
    for (const seat of seats.slice(0, 2)) seat.stops();
    bus.run();
    expect([seats[0]?.told(), seats[1]?.told()]).toEqual([["let-go 2 of 2", "recover 2 in 2"], ["let-go 2 of 2"]]);
  });

  it("in the middle begins the recovery anew, with the same dead and one more; what belongs to the round before counts no more", () => {
    const { bus, seats } = Bus.mounted(4);
    const [dead, second, third, fourth] = seats as [Seat, Seat, Seat, Seat];
    bus.leave(dead);
    bus.run();
    bus.serve(second, 2);
    for (const seat of seats) seat.told();
    expect(second.core.state?.step).toBe("idle");
    bus.leave(second);
    bus.run();
    for (const seat of [third, fourth]) seat.stops();
    third.does({ kind: "claimed" });
    bus.run();
    third.does({ kind: "serving", epoch: 3 });
    bus.run();
    bus.reopenAll(third);
    expect(third.told()).toContain("recover 1 in 3");
    bus.leave(fourth);
    third.does({ kind: "recovered", round: 3, jid: 1 });
    bus.run();
    expect(third.told()).toEqual(["let-go 4 of 1,3"]);
    expect(third.core.state?.dirty.map(({ jid }) => jid)).toEqual([1, 3]);
    third.stops();
    bus.run();
    bus.recover(third);
    expect(third.core.state?.dirty).toEqual([]);
  });

  it("of one that claimed, when others have heard it, is the death of an owner; it has the disk only then (hazard M6)", () => {
    const { bus, seats } = Bus.mounted(3);
    const [owner, second, third] = seats as [Seat, Seat, Seat];
    owner.does({ kind: "released" });
    bus.run();
    bus.late.set(third, []);
    second.does({ kind: "claimed" });
    bus.run();
    expect([second.told(), second.core.awaited.map(({ nodeid }) => nodeid)]).toEqual([[], [3]]);
    const held = bus.late.get(third) as Uint8Array[];
    bus.late.delete(third);
    for (const data of held) bus.say(third, data);
    bus.run();
    expect(second.told()).toEqual(["claim-known"]);
    bus.leave(second);
    bus.run();
    expect(third.core.state?.dirty).toMatchObject([{ jid: 1, wasOwner: true }]);
  });

  it("of one that said goodbye is none, unless it still had the lower", () => {
    const { bus, seats } = Bus.mounted(3);
    const [owner, second, third] = seats as [Seat, Seat, Seat];
    third.does({ kind: "leave" });
    owner.does({ kind: "leave" });
    bus.run();
    bus.leave(third, owner);
    bus.run();
    expect(second.core.state?.dirty).toMatchObject([{ jid: 0, wasOwner: true }]);
    expect(second.told()).toEqual(["block", "let-go 2 of 0"]);
  });
});

describe("files that are open (hazard H10)", () => {
  it("are to be opened again at each owner by those that were there when it claimed, and by no other; then it settles, once", () => {
    const { bus, seats } = Bus.mounted(2);
    const [before, next] = seats as [Seat, Seat];
    before.does({ kind: "released" });
    next.does({ kind: "claimed" });
    const [late] = bus.join(3) as [Seat];
    bus.run();
    next.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect([next.core.toReopen.map(({ nodeid }) => nodeid), before.core.toReopen, late.core.mustReopen]).toEqual([[1, 2], [], false]);
    next.told();
    next.does({ kind: "reopened", mounter: next.id });
    next.does({ kind: "reopened", mounter: next.id });
    bus.leave(before);
    bus.run();
    expect([next.told(), next.core.toReopen]).toEqual([["let-go 2 of 0", "settle"], []]);
    bus.run();
    expect(next.told()).toEqual([]);
  });

  it("at an owner that is none any more, or at one that another one has followed, do not count", () => {
    const { bus, seats } = Bus.mounted(3);
    const [first, second, third] = seats as [Seat, Seat, Seat];
    first.does({ kind: "released" });
    second.does({ kind: "claimed" });
    bus.run();
    second.does({ kind: "serving", epoch: 2 });
    bus.run();
    const late: Uint8Array[] = [];
    bus.late.set(second, late);
    second.does({ kind: "reopened", mounter: third.id });
    expect(late).toHaveLength(1);
    third.does({ kind: "claimed" });
    bus.run();
    bus.late.delete(second);
    for (const data of late) bus.say(second, data);
    bus.run();
    expect(third.core.state?.members.map(({ mustReopen }) => mustReopen)).toEqual([true, true, true]);
  });

  it("are none while all is to be put in order: an owner that fails at a cold start leaves the next one nobody to wait for", () => {
    const bus = new Bus();
    const seats = bus.join(1, 2, 3) as [Seat, Seat, Seat];
    const [first, second] = seats;
    bus.run();
    for (const seat of seats) seat.stops();
    first.does({ kind: "claimed" });
    bus.run();
    first.does({ kind: "released" });
    second.does({ kind: "claimed" });
    bus.run();
    second.does({ kind: "serving", epoch: 1 });
    bus.run();
    expect([second.core.toReopen, second.core.state?.step, second.core.state?.allDirty]).toEqual([[], "recovering", true]);
    bus.recover(second);
    expect(seats.map(({ core }) => [core.isBlocked, core.state?.step])).toEqual(seats.map(() => [false, "idle"]));
    // From then on files may be open.
    second.does({ kind: "released" });
    first.does({ kind: "claimed" });
    bus.run();
    first.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect(first.core.toReopen.map(({ nodeid }) => nodeid)).toEqual([1, 2, 3]);
  });

  it("are none before the first owner that a group has", () => {
    const { seats } = Bus.mounted(1);
    expect(seats[0]?.core.state).toMatchObject({ hadOwner: true, step: "idle", members: [{ mustReopen: false }] });
  });
});

describe("an owner", () => {
  it("that comes before the one before is gone blocks all until that one is gone or has released it", () => {
    const { bus, seats } = Bus.mounted(2);
    const [before, next] = seats as [Seat, Seat];
    next.does({ kind: "claimed" });
    bus.run();
    next.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect([before.told(), next.told()]).toEqual([["block"], ["block", "claim-known"]]);
    before.does({ kind: "released" });
    bus.run();
    expect([before.told(), next.told()]).toEqual([["unblock"], ["unblock"]]);
  });

  it("that releases the lower in the middle of a recovery leaves it to the next one; itself begins anew when it is the owner again", () => {
    const { bus, seats } = Bus.mounted(3);
    const [owner, second, dead] = seats as [Seat, Seat, Seat];
    bus.leave(dead);
    bus.run();
    for (const seat of [owner, second]) seat.stops();
    bus.run();
    expect(owner.told()).toEqual(["let-go 2 of 2", "recover 2 in 2"]);
    owner.does({ kind: "released" });
    bus.run();
    // Nobody can say whether what it had begun was done.
    expect([owner.told(), second.core.state?.step]).toEqual([["block"], "claiming"]);
    owner.does({ kind: "claimed" });
    bus.run();
    owner.does({ kind: "serving", epoch: 2 });
    bus.run();
    expect(owner.told()).toEqual(["claim-known", "unblock"]);
    bus.reopenAll(owner);
    expect(owner.told()).toEqual(["settle", "recover 2 in 2"]);
  });

  it("whose earlier claim is heard does not take that for its present one", () => {
    const { bus, seats } = Bus.mounted(2);
    const [owner, second] = seats as [Seat, Seat];
    owner.does({ kind: "released" });
    bus.run();
    second.does({ kind: "claimed" });
    bus.deliver(owner);
    second.does({ kind: "released" });
    second.does({ kind: "claimed" });
    bus.deliver(second, 2);
    expect(second.told()).toEqual([]);
    bus.run();
    expect(second.told()).toEqual(["claim-known"]);
  });
});

it("a state with more mounters than a group has members is refused, and so is a jid that is given twice", () => {
  const { seats } = Bus.mounted(1);
  const state = seats[0]?.core.state as MountGroupState;
  const [member] = state.members as [MounterState];
  const many = (count: number, jid: number | null): Uint8Array =>
    encodeMountGroupMessage({
      kind: "state",
      state: { ...state, members: Array.from({ length: count }, () => ({ ...member, jid, ownership: "none" })) },
    });
  expect(decodeMountGroupMessage(many(8192, null)).kind).toBe("state");
  expect(() => many(8193, null)).toThrow("8193 mounters to write, at most 8192 allowed");
  const counted = many(8192, null);
  // One more than may, in the count.
  const at = counted.indexOf(0x20, 2 + 25) - 1;
  new DataView(counted.buffer).setUint16(at, 8193, true);
  expect(() => decodeMountGroupMessage(counted)).toThrow("8193 mounters");
  expect(() => decodeMountGroupMessage(many(2, 5))).toThrow("given twice");
});

it("a mounter that left says nothing more, and its messages can be read by the others", () => {
  const { bus, seats } = Bus.mounted(2);
  const [first] = seats as [Seat];
  const said = first.core.step({ kind: "leave" });
  expect(said.map((effect) => (effect.kind === "say" ? decodeMountGroupMessage(effect.data).kind : effect.kind))).toEqual(["bye"]);
  bus.join(3);
  bus.deliver(first);
  expect(first.told()).toEqual([]);
});
