/** The shell of a mounter: what it asks of its mount, its limits, and what it says of itself. The group is one in memory, in order. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { DlmClient, GoneClient } from "../../../dlmd/client/api.ts";
import type { Group, GroupHandlers, GroupMember } from "../../../dlmd/client/group-api.ts";
import { REOPEN_LIMIT_MS } from "../../../overlay/mount-group/reopen-limit.ts";
import { JOIN_LIMIT_MS, RECOVER_AGAIN_MS, STOP_LIMIT_MS, VolumeMountGroup } from "../../../overlay/mount-group/mount-group.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Delivers at once, in one order, to all but those that stand still. */
class Bus {
  readonly seats: { readonly member: GroupMember; readonly handlers: GroupHandlers; readonly group: Group; stands: boolean }[] = [];
  readonly #queue: (() => void)[] = [];
  #delivering = false;

  run(event: () => void): void {
    this.#queue.push(event);
    if (this.#delivering) return;
    this.#delivering = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) next();
    this.#delivering = false;
  }

  join(member: GroupMember, handlers: GroupHandlers): Promise<Group> {
    const group: Group = {
      name: "g",
      self: member,
      members: [],
      multicast: async (data) => {
        this.run(() => {
          for (const seat of this.seats)
            if (!seat.stands) seat.handlers.message({ group: "g", from: member, seq: 1, data, own: seat.group === group }, seat.group);
        });
      },
      leave: () => Promise.resolve(),
    };
    this.run(() => {
      this.seats.push({ member, handlers, group, stands: false });
      this.#tell([member], []);
    });
    return Promise.resolve(group);
  }

  kill(nodeid: number): void {
    this.run(() => {
      const at = this.seats.findIndex(({ member }) => member.nodeid === nodeid);
      const [gone] = this.seats.splice(at, 1);
      if (gone !== undefined) this.#tell([], [gone.member]);
    });
  }

  #tell(joined: readonly GroupMember[], left: readonly GroupMember[]): void {
    const members = this.seats.map(({ member }) => member);
    const change = { members, joined, left: left.map((member) => ({ member, reason: "client-died" as const })) };
    for (const seat of this.seats) if (!seat.stands) seat.handlers.members(change, seat.group);
  }
}

class Mount {
  readonly group: VolumeMountGroup;
  readonly nodeid: number;
  blocked = false;
  readonly late: string[] = [];
  readonly failures: Error[] = [];
  /** By node: those whose deaths it has put in order. */
  readonly recovered: string[] = [];
  settled = 0;
  cutOff = false;
  /** Nodes whose files are open here, if it is the owner; all, but in some tests. */
  reopened: (nodeid: number) => boolean = () => true;
  readonly letGoOf: (readonly GoneClient[])[] = [];
  /** What its mount does when it is asked; by default at once. */
  lettingGo: Promise<void> = Promise.resolve();
  recovering: () => Promise<void> = () => Promise.resolve();
  /** Of `recover`: all is to be put in order. */
  readonly all: boolean[] = [];
  readonly view: { quorate: boolean } = { quorate: true };

  constructor(bus: Bus, nodeid: number) {
    this.nodeid = nodeid;
    const member = { nodeid, incarnation: `i${nodeid}`, clientId: 5 };
    const info = { ...member, nodes: [1, 2, 3].map((n) => ({ nodeid: n, name: `node${n}` })) } as unknown as DlmClient["info"];
    const client = {
      info,
      view: this.view as DlmClient["view"],
      join: (_: string, handlers: GroupHandlers) => bus.join({ ...member, incarnation: incarnationOf(nodeid) }, handlers),
    };
    this.group = new VolumeMountGroup({
      client: { ...client, info: { ...info, incarnation: incarnationOf(nodeid) } },
      uuid: "5d1ac35a-8a3c-4a3b-93d5-36d3c4ab3f2e",
      log: silentLog,
      letGo: (dead) => {
        this.letGoOf.push(dead);
        return this.lettingGo;
      },
      late: (why) => this.late.push(why),
      hasReopened: (mounter) => this.reopened(mounter.nodeid),
      settle: async () => void this.settled++,
      recover: (dead, all) => {
        this.all.push(all);
        this.recovered.push(dead.map((one) => one.nodeid).join());
        return this.recovering();
      },
      isCutOff: () => this.cutOff,
      setBlocked: (blocked) => (this.blocked = blocked),
      fail: (error) => this.failures.push(error),
      changed: () => {},
    });
  }

  async own(epoch: number): Promise<void> {
    await this.group.claimed(() => Promise.resolve());
    this.group.serving(epoch);
    await settled();
  }
}

const incarnationOf = (nodeid: number): string => `000000000000000${nodeid}`;
/** Promises that are resolved have been heard. */
const settled = async (): Promise<void> => {
  await vi.advanceTimersByTimeAsync(0);
};

async function mounts(bus: Bus, ...nodeids: number[]): Promise<Mount[]> {
  const all: Mount[] = [];
  for (const nodeid of nodeids) {
    const mount = new Mount(bus, nodeid);
    all.push(mount);
    await mount.group.join();
    mount.group.mounted();
    await settled();
    if (all.length === 1) await mount.own(1);
  }
  return all;
}

it("is blocked from the beginning until the first owner has put everything in order", async () => {
  const bus = new Bus();
  const mount = new Mount(bus, 1);
  await mount.group.join();
  expect(mount.blocked).toBe(true);
  await mount.own(1);
  expect([mount.recovered, mount.all, mount.blocked, mount.group.describe()["jid"]]).toEqual([[""], [true], false, 0]);
});

it("fails when the group does not take what it says: the others would wait for it; after its end it says nothing of it", async () => {
  const bus = new Bus();
  const [mount] = (await mounts(bus, 1)) as [Mount];
  const [seat] = bus.seats;
  if (seat === undefined) throw new Error("no seat");
  const full = new OperatingError("16 MiB wait", { code: "full", hint: "Await." });
  const said = vi.spyOn(seat.group, "multicast").mockImplementation(() => Promise.reject(full));
  mount.group.serving(2);
  await settled();
  expect(mount.failures).toEqual([expect.objectContaining({ code: "not-said", cause: full })]);
  mount.group.leave();
  await settled();
  expect([mount.failures.length, said.mock.calls.length]).toEqual([1, 2]);
});

it("knows whether it is alone: another mounter is there from its join on, and until it was put in order", async () => {
  const bus = new Bus();
  const mount = new Mount(bus, 1);
  expect(mount.group.isAlone).toBe(false);
  await mount.group.join();
  // It is the founder, and nobody has put anything in order.
  expect(mount.group.isAlone).toBe(false);
  mount.group.mounted();
  await mount.own(1);
  expect(mount.group.isAlone).toBe(true);
  const other = new Mount(bus, 2);
  void other.group.join();
  expect(mount.group.isAlone).toBe(false);
  await settled();
  let done = (): void => undefined;
  mount.recovering = () => new Promise((resolve) => (done = resolve));
  bus.kill(2);
  await settled();
  expect([mount.recovered.at(-1), mount.group.isAlone]).toEqual(["2", false]);
  done();
  await settled();
  expect(mount.group.isAlone).toBe(true);
});

describe("a death", () => {
  it("of the owner: lets go of it, blocks, and goes on when the next owner has put its jid in order", async () => {
    const bus = new Bus();
    const [, second, third] = (await mounts(bus, 1, 2, 3)) as [Mount, Mount, Mount];
    expect([second.blocked, third.blocked]).toEqual([false, false]);
    bus.kill(1);
    expect([second.blocked, third.blocked, second.group.wait]).toEqual([true, true, "blocked until node2, node3 let go of the dead"]);
    await settled();
    expect(third.letGoOf).toEqual([[{ nodeid: 1, incarnation: incarnationOf(1), clientId: 5 }]]);
    await second.own(2);
    expect([second.recovered, second.settled, second.blocked, third.blocked]).toEqual([["1"], 1, false, false]);
    expect(second.all).toEqual([false]);
  });

  it(`is late when the calls of the dead have not ended in ${STOP_LIMIT_MS} ms; nobody is late who let go of them`, async () => {
    const bus = new Bus();
    const [, second, third] = (await mounts(bus, 1, 2, 3)) as [Mount, Mount, Mount];
    let drained = (): void => {};
    second.lettingGo = new Promise((resolve) => (drained = resolve));
    bus.kill(1);
    await vi.advanceTimersByTimeAsync(STOP_LIMIT_MS - 1);
    expect(second.late).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect([second.late, third.late]).toEqual([
      [`calls of mounters that are gone (jid 0 of node1) did not end in ${STOP_LIMIT_MS} ms`],
      [],
    ]);
    expect(third.group.describe()["step"]).toBe("stopping");
    drained();
    await settled();
    expect(third.group.describe()["step"]).toBe("claiming");
  });

  it(`what could not be put in order is tried again after ${RECOVER_AGAIN_MS} ms; its jid is dirty until then, and nobody is blocked`, async () => {
    const bus = new Bus();
    const [, second] = (await mounts(bus, 1, 2)) as [Mount, Mount];
    second.recovering = () => Promise.reject(new Error("EIO"));
    bus.kill(1);
    await settled();
    await second.own(2);
    const dirty = (): unknown => second.group.describe()["dirty"];
    expect([second.recovered, second.blocked, dirty()]).toEqual([["1"], false, [expect.objectContaining({ jid: 0, wasOwner: true })]]);
    second.recovering = () => Promise.resolve();
    await vi.advanceTimersByTimeAsync(RECOVER_AGAIN_MS - 1);
    expect(second.recovered).toEqual(["1"]);
    await vi.advanceTimersByTimeAsync(1);
    expect([second.recovered, dirty()]).toEqual([["1", "1"], []]);
  });

  it("leaves its jid dirty until the files of all are open at the next owner; the status of each says for whom it waits", async () => {
    const bus = new Bus();
    const [, second, third] = (await mounts(bus, 1, 2, 3)) as [Mount, Mount, Mount];
    second.reopened = (nodeid) => nodeid !== 3;
    bus.kill(1);
    await settled();
    await second.own(2);
    expect([second.blocked, third.blocked, second.settled, second.recovered, second.group.waitsToReopen]).toEqual([
      false,
      false,
      0,
      [],
      [3],
    ]);
    for (const { group } of [second, third])
      expect(group.describe()).toMatchObject({
        step: "reopening",
        recover: 0,
        recovery: "recovery waits until node3 has opened its files at the owner",
        dirty: [{ jid: 0 }],
      });
    second.reopened = () => true;
    second.group.checkReopened();
    await settled();
    expect([second.settled, second.recovered, third.group.describe()["dirty"]]).toEqual([1, ["1"], []]);
    expect(third.group.describe()).toMatchObject({ step: "idle", recover: null, recovery: null });
  });

  it(`of an owner ends the mount that has no path to the next one for ${REOPEN_LIMIT_MS} ms with a quorum, and then its jid is in order too`, async () => {
    const bus = new Bus();
    const [, second, third] = (await mounts(bus, 1, 2, 3)) as [Mount, Mount, Mount];
    second.reopened = (nodeid) => nodeid !== 3;
    third.cutOff = true;
    bus.kill(1);
    await settled();
    await second.own(2);
    third.view.quorate = false;
    await vi.advanceTimersByTimeAsync(2 * REOPEN_LIMIT_MS);
    third.view.quorate = true;
    await vi.advanceTimersByTimeAsync(REOPEN_LIMIT_MS - 1);
    expect([third.failures, second.settled]).toEqual([[], 0]);
    await vi.advanceTimersByTimeAsync(1);
    expect(third.failures).toMatchObject([{ code: "not-reopened" }]);
    expect([second.failures, second.settled]).toEqual([[], 0]);
    bus.kill(3);
    await settled();
    expect([second.settled, second.recovered]).toEqual([1, ["1", "3"]]);
  });
});

describe("a new mount", () => {
  it(`does not come to be when one that was there does not answer in ${JOIN_LIMIT_MS} ms with a quorum`, async () => {
    const bus = new Bus();
    await mounts(bus, 1, 2);
    for (const seat of bus.seats) seat.stands = seat.member.nodeid === 2;
    const third = new Mount(bus, 3);
    const joined = third.group.join();
    joined.catch(() => undefined);
    await settled();
    expect(third.group.wait).toBe("waiting until node2 knows of this mount");
    third.view.quorate = false;
    third.group.viewChanged();
    await vi.advanceTimersByTimeAsync(2 * JOIN_LIMIT_MS);
    third.view.quorate = true;
    third.group.viewChanged();
    await vi.advanceTimersByTimeAsync(JOIN_LIMIT_MS - 1);
    expect(third.failures).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    await expect(joined).rejects.toMatchObject({
      code: "mounter-silent",
      message: expect.stringContaining("node2 did not answer") as unknown,
      hint: expect.stringContaining("on node2:") as unknown,
    });
  });

  it("of which the mount process ends meanwhile is told why", async () => {
    const bus = new Bus();
    await mounts(bus, 1);
    for (const seat of bus.seats) seat.stands = true;
    const second = new Mount(bus, 2);
    const joined = second.group.join();
    second.group.end(new Error("interrupted"));
    await expect(joined).rejects.toThrow("interrupted");
  });
});

describe("an owner", () => {
  it("mounts only when the others know; what could not be mounted is released", async () => {
    const bus = new Bus();
    const [first, second] = (await mounts(bus, 1, 2)) as [Mount, Mount];
    await first.group.released(() => Promise.resolve());
    for (const seat of bus.seats) seat.stands = seat.member.nodeid === 1;
    let mounted = false;
    const claimed = second.group.claimed(async () => {
      mounted = true;
      throw new Error("no device");
    });
    claimed.catch(() => undefined);
    await settled();
    expect([mounted, second.group.wait]).toEqual([false, "waiting until node1 knows that this node is to be the owner"]);
    bus.kill(1);
    await expect(claimed).rejects.toThrow("no device");
    expect(mounted).toBe(true);
    expect(second.group.describe()["members"]).toMatchObject([{ ownership: "none" }]);
  });

  it("that could not give the lower back has it still, unless the device is let go of", async () => {
    const bus = new Bus();
    const [first, second] = (await mounts(bus, 1, 2)) as [Mount, Mount];
    const failed = (code: string) => () => Promise.reject(new OperatingError("busy", { code, hint: "" }));
    await expect(first.group.released(failed("busy"))).rejects.toThrow("busy");
    expect(second.group.describe()["members"]).toMatchObject([{ ownership: "serving" }, {}]);
    await expect(first.group.released(failed("let-go"))).rejects.toThrow("busy");
    expect(second.group.describe()["members"]).toMatchObject([{ ownership: "none" }, {}]);
  });
});

it("a clean end leaves nothing dirty", async () => {
  const bus = new Bus();
  const [, second, third] = (await mounts(bus, 1, 2, 3)) as [Mount, Mount, Mount];
  third.group.leave();
  await settled();
  bus.kill(3);
  expect(second.group.describe()).toMatchObject({ dirty: [], step: "idle" });
});
