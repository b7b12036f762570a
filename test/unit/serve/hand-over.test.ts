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
    isDevice: true,
    otherMounters: () => Promise.resolve([2, 3]),
    askOwner: () => Promise.reject(new Error("not asked for")),
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
      expect(owner.given).toEqual([]);
      await turn();
      expect(owner.given).toEqual([heir]);
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
    expect(await none.request(2)).toEqual({ kind: "refused", why: "there is no owner now: the owner is changing" });
    const silent = new HandOvers(host({ role: () => "remote" }));
    expect(await silent.request(2)).toEqual({ kind: "refused", why: "node1, the owner, gave no answer: Error: not asked for" });
  });
});
