/** Peers that name nodes which are none: the daemon goes on. */
import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Hop, LockName, PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import { World } from "../../scenario/world.ts";

it("a search for a deadlock that comes from no node of the view goes nowhere", () => {
  const world = new World(3, {}, []);
  world.pass(10_000, () => world.serving());
  world.program("a", 1, "", false);
  world.program("b", 2, "", false);
  const lock = {
    kind: "lock",
    lockspaceId: 1,
    lockId: 1,
    resource: world.nameFor(1, null),
    mode: Mode.EX,
    flags: 0,
    transaction: 7,
  } as const;
  for (const program of ["b", "a"]) {
    world.ask(program, lock);
    world.settle();
  }
  const one: LockName & { no: number } = { nodeid: 1, lkbId: 1, no: 1 };
  const [a, b] = [world.programs.get("a"), world.programs.get("b")];
  const view = world.viewOf(1);
  if (a === undefined || b === undefined || view === null) throw new Error("the world is not as it was made");
  const { clientId } = a;
  const hop: Hop = { masterNodeid: 1, waiter: one, blocker: one, queued: false, via: 1, clientId, transaction: 7 };
  const path = [hop, { ...hop, masterNodeid: 99 }];
  const probe: PeerMessage = { kind: "probe", initiator: one, round: 1, step: "hold", confirming: true, index: 0, target: one, path };
  expect([world.heardOf(a, "?"), world.heardOf(b, "?")]).toEqual([[], ["granted EX", "bast EX"]]);
  world.input(1, { kind: "peer-frame", nodeid: 2, view, messages: [probe] });
  world.settle();
  world.ask("b", { kind: "unlock", lockId: 1, flags: 0, lvb: null });
  world.settle();
  expect(world.heardOf(a, "?")).toEqual(["granted EX"]);
});
