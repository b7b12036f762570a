/** Who may be the next owner in a planned move, what is said if nobody may, and when the move is over. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HAND_OVER_ANSWER_MS, type HandOverHost, HandOvers } from "../../../overlay/serve/hand-over.ts";
import type { OwnerRecord } from "../../../overlay/volume/owner-record.ts";

const nodes = [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: "", votes: 1 }));
const ownerOf = (nodeid: number, epoch: number): OwnerRecord => ({
  state: "ready",
  nodeid,
  incarnation: "i",
  clientId: 7,
  address: "10.0.0.1",
  port: 7000,
  epoch,
  heir: 0,
  process: { bootId: "b", machineId: "m", pid: 7, startTime: 1, device: "/dev/d" },
  claimEpoch: epoch,
});

function host(change: Partial<HandOverHost> = {}): HandOverHost & { readonly given: number[] } {
  const given: number[] = [];
  return {
    nodes,
    role: () => "owner",
    owner: () => ownerOf(1, 5),
    why: () => "this node has the volume mounted",
    noQuorum: () => null,
    isDevice: true,
    otherMounters: () => Promise.resolve([2, 3]),
    askOwner: () => Promise.reject(new Error("not asked for")),
    busy: () => null,
    keepNothingMore: () => void given.push(0),
    give: (heir) => void given.push(heir),
    nowMs: () => performance.now(),
    given,
    ...change,
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const turn = async (): Promise<void> => void (await vi.advanceTimersByTimeAsync(0));

describe("the owner", () => {
  it("gives the volume to the node that is asked for, after its answer; 0 is the lowest other one", async () => {
    for (const [asked, heir] of [
      [3, 3],
      [0, 2],
    ] as const) {
      const owner = host();
      const handOvers = new HandOvers(owner);
      expect(await handOvers.begin({ epoch: 5, heir: asked })).toEqual({ heir, refused: "" });
      // Hazard F35: what a mount would leave here from now on would be given up.
      expect(owner.given).toEqual([0]);
      await turn();
      expect(owner.given).toEqual([0, heir]);
    }
  });

  it.each([
    [{}, 1, "node1 is the owner already"],
    [
      { otherMounters: () => Promise.resolve([2]) },
      3,
      "node3 does not have the volume mounted, or does not reach its device: node2 could have it",
    ],
    [{ otherMounters: () => Promise.resolve([]) }, 0, "no other node has the volume mounted and reaches its device"],
    [{ otherMounters: () => Promise.resolve([]) }, 3, "no other node has the volume mounted and reaches its device"],
    [{ busy: () => "the volume is being grown" }, 2, "the volume is being grown"],
    [{ isDevice: false }, 2, "the volume is a directory of the owner's node: no other node has it"],
    [{ owner: () => ownerOf(1, 6) }, 2, "the owner has changed: this node has the volume mounted"],
    [{ role: () => "remote" as const }, 2, "the owner has changed: this node has the volume mounted"],
  ])("refuses with words (%#)", async (change, heir, refused) => {
    const owner = host(change);
    expect(await new HandOvers(owner).begin({ epoch: 5, heir })).toEqual({ heir: 0, refused });
    await turn();
    expect(owner.given).toEqual([]);
  });

  it("refuses a second one while one is under way, and not after it", async () => {
    const owner = host();
    const handOvers = new HandOvers(owner);
    await handOvers.begin({ epoch: 5, heir: 3 });
    expect(await handOvers.begin({ epoch: 5, heir: 2 })).toEqual({ heir: 0, refused: "the volume is being handed over to node3" });
    handOvers.ownerFound(ownerOf(1, 5));
    expect(await handOvers.begin({ epoch: 5, heir: 2 })).toEqual({ heir: 2, refused: "" });
  });
});

describe("the command", () => {
  it("on another node asks the owner, and is answered when there is another one, with the time without", async () => {
    const asked: unknown[] = [];
    const handOvers = new HandOvers(
      host({
        role: () => "remote",
        askOwner: (request) => {
          asked.push(request);
          return Promise.resolve({ heir: 2, refused: "" });
        },
      }),
    );
    const answer = handOvers.request(0);
    await turn();
    expect(asked).toEqual([{ epoch: 5, heir: 0 }]);
    handOvers.ownerLost();
    await vi.advanceTimersByTimeAsync(400);
    // Of the owner before, said late.
    handOvers.ownerFound(ownerOf(1, 5));
    handOvers.ownerLost();
    await vi.advanceTimersByTimeAsync(300);
    handOvers.ownerFound(ownerOf(3, 6));
    expect(await answer).toMatchObject({ kind: "done", from: 1, to: 2, owner: 3, pauseMs: 300 });
  });

  it("is told that it is under way after its limit", async () => {
    const handOvers = new HandOvers(host({ why: () => "handing the volume over to node2" }));
    const answer = handOvers.request(2);
    let told = false;
    void answer.then(() => (told = true));
    await vi.advanceTimersByTimeAsync(HAND_OVER_ANSWER_MS - 1);
    expect(told).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await answer).toEqual({ kind: "under-way", from: 1, to: 2, why: "handing the volume over to node2" });
  });

  it("is refused where there is no owner, or it gives no answer", async () => {
    const none = new HandOvers(host({ role: () => "waiting", owner: () => null, why: () => "the owner is changing" }));
    expect(await none.request(2)).toEqual({ kind: "refused", why: "there is no owner now: the owner is changing", nobodyElse: false });
    const silent = new HandOvers(host({ role: () => "remote" }));
    expect(await silent.request(2)).toEqual({
      kind: "refused",
      why: "node1, the owner, gave no answer: Error: not asked for",
      nobodyElse: false,
    });
  });

  it("says whether anybody else could have the volume", async () => {
    const alone = new HandOvers(host({ otherMounters: () => Promise.resolve([]) }));
    expect(await alone.request(0)).toMatchObject({ kind: "refused", nobodyElse: true });
    const busy = new HandOvers(host({ busy: () => "the volume is being grown" }));
    expect(await busy.request(0)).toMatchObject({ kind: "refused", nobodyElse: false });
  });
});

describe("a quorum that is lost", () => {
  const LOST = "the cluster has no quorum: 1 of 3 votes; this node sees nodes 1";
  const never = <T>(): Promise<T> => new Promise(() => undefined);
  /** A node that has a quorum until `lose`. */
  const quorate = (change: Partial<HandOverHost> = {}): { readonly handOvers: HandOvers; readonly lose: () => void } => {
    let has = true;
    const handOvers = new HandOvers(host({ noQuorum: () => (has ? null : LOST), ...change }));
    const lose = (): void => {
      has = false;
      handOvers.viewChanged();
    };
    return { handOvers, lose };
  };

  it("ends the command at once: before the owner is asked, while it has not answered, and when it has begun", async () => {
    const asked: unknown[] = [];
    for (const [change, stage] of [
      [{ role: () => "remote" as const, askOwner: never<never> }, "asked"],
      [{ otherMounters: never<never> }, "asked"],
      [{}, "begun"],
    ] as const) {
      const { handOvers, lose } = quorate(change);
      const answer = handOvers.request(2);
      await turn();
      // A view that has a quorum ends nothing.
      handOvers.viewChanged();
      await turn();
      const told: unknown[] = [];
      void answer.then((one) => told.push(one));
      await turn();
      expect(told).toEqual([]);
      lose();
      await turn();
      expect(told).toEqual([{ kind: "no-quorum", stage, why: LOST }]);
      expect(vi.getTimerCount()).toBe(0);
      const again = new HandOvers(host({ ...change, noQuorum: () => LOST, askOwner: async (one) => (asked.push(one), never<never>()) }));
      expect(await again.request(2)).toEqual({ kind: "no-quorum", stage: "not-asked", why: LOST });
    }
    expect(asked).toEqual([]);
  });

  it("is what the end of dlmd is for it: nobody at the owner waits for locks that do not come", async () => {
    const { handOvers } = quorate({ otherMounters: never<never> });
    const refused = handOvers.begin({ epoch: 5, heir: 0 }).then(({ refused: why }) => why);
    await turn();
    expect(vi.getTimerCount()).toBe(1);
    handOvers.dlmdLost();
    expect([await refused, vi.getTimerCount()]).toEqual(["node1, the owner, says: dlmd of this node is gone", 0]);
    expect(await handOvers.begin({ epoch: 5, heir: 0 })).toEqual({ heir: 0, refused: "node1, the owner, says: dlmd of this node is gone" });
    expect(await handOvers.request(2)).toEqual({ kind: "no-quorum", stage: "not-asked", why: "dlmd of this node is gone" });
  });

  it("at the owner ends what it was asked: nothing moves when the quorum is back", async () => {
    let mounters: (found: readonly number[]) => void = () => undefined;
    const given: number[] = [];
    const { handOvers, lose } = quorate({
      give: (heir) => void given.push(heir),
      otherMounters: () => new Promise((resolve) => void (mounters = resolve)),
    });
    const answer = handOvers.begin({ epoch: 5, heir: 2 });
    await turn();
    lose();
    expect(await answer).toEqual({ heir: 0, refused: `node1, the owner, says: ${LOST}` });
    mounters([2, 3]);
    await turn();
    expect(given).toEqual([]);
    expect(await handOvers.begin({ epoch: 5, heir: 2 })).toEqual({ heir: 0, refused: `node1, the owner, says: ${LOST}` });
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("an owner that does not answer", () => {
  it("is named after the limit, which began with the question; and nothing is left of the wait", async () => {
    const handOvers = new HandOvers(host({ role: () => "remote", askOwner: () => new Promise(() => undefined) }));
    const told: unknown[] = [];
    void handOvers.request(2).then((one) => told.push(one));
    await vi.advanceTimersByTimeAsync(HAND_OVER_ANSWER_MS - 1);
    expect(told).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(told).toEqual([{ kind: "refused", why: "node1, the owner, has not answered in 30 s; it may do so later", nobodyElse: false }]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("has used up a part of the time by the time it answers", async () => {
    const askOwner = (): Promise<{ heir: number; refused: string }> =>
      new Promise((resolve) => void setTimeout(() => resolve({ heir: 2, refused: "" }), HAND_OVER_ANSWER_MS - 10));
    const told: unknown[] = [];
    void new HandOvers(host({ role: () => "remote", askOwner })).request(2).then((one) => told.push(one));
    await vi.advanceTimersByTimeAsync(HAND_OVER_ANSWER_MS - 1);
    expect(told).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(told).toMatchObject([{ kind: "under-way", to: 2 }]);
  });

  it("does not move the volume when it finds out after the limit who has it mounted", async () => {
    let mounters: (found: readonly number[]) => void = () => undefined;
    const owner = host({ otherMounters: () => new Promise((resolve) => void (mounters = resolve)) });
    const answer = new HandOvers(owner).begin({ epoch: 5, heir: 2 });
    await vi.advanceTimersByTimeAsync(HAND_OVER_ANSWER_MS);
    expect(await answer).toEqual({ heir: 0, refused: "which nodes have the volume mounted was not found out in 30 s" });
    mounters([2]);
    await turn();
    expect(owner.given).toEqual([]);
  });
});
