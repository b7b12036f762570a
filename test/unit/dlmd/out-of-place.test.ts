/** A message that its sender cannot have meant, in the midst of a recovery (dlmd/recovery/README.md): nothing waits behind it for ever. */
import { expect, it } from "vitest";
import { noIncarnation } from "../../../dlmd/wire/view-id.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import { timeoutMs, World } from "../../scenario/world.ts";

const early: PeerMessage = { kind: "convert", lkbId: 7, mode: 0, flags: 0, transaction: 0 };
const late: PeerMessage = {
  kind: "offer",
  lockspace: "l",
  resource: "r",
  lvbSeq: 1,
  lvbValid: true,
  lvb: null,
  writer: { nodeid: 1, incarnation: noIncarnation },
};

it("H13: a message of a view that runs, said before DONE, does not hold that up: all is named anew", () => {
  let said = 0;
  const world = new World(3, {}, [], 0, {
    effect: (nodeid, effect) => {
      const isSecond = effect.kind === "datagram" && effect.message.kind === "install" && effect.message.members.length === 2;
      if (nodeid !== 1 || !isSecond || said++ > 0) return;
      world.nodes.get(1)?.core.recovery.send(2, early);
    },
  });
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  world.crash(3);
  expect(world.pass(100 * timeoutMs, () => said > 0)).toBe(true);
  expect(world.pass(20 * timeoutMs, () => world.serving())).toBe(true);
});

it("H13: what belongs to a rebuild and comes when locks are served does not hold up what comes behind it", () => {
  const world = new World(2, {}, []);
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  const viewId = (): unknown => world.nodes.get(2)?.core.recovery.view?.id;
  const before = viewId();
  world.nodes.get(1)?.core.recovery.send(2, late);
  world.input(1, { kind: "tick" });
  expect(world.pass(20 * timeoutMs, () => viewId() !== before && world.serving())).toBe(true);
});
