/** Names that are none, or that look like others: the daemon goes on, and the nodes stay together. */
import { expect, it } from "vitest";
import { decodeText } from "../../../dlmd/base/bytes.ts";
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

/** U+FEFF, which some decoders take away where a text begins with it. */
const BOM = "\ufeff";

it.each([BOM, `${BOM}x`, `${BOM}${BOM}x`])(
  "a resource %j is the same at its master: each waits for the one before, and the nodes stay together",
  (resource) => {
    const world = new World(3, {}, []);
    world.pass(10_000, () => world.serving());
    const programs = [1, 2, 3].map((nodeid) => {
      world.program(`p${nodeid}`, nodeid, "", false);
      const program = world.programs.get(`p${nodeid}`);
      if (program === undefined) throw new Error("the world is not as it was made");
      return program;
    });
    const heard = (): string[] => programs.map((program) => world.heardOf(program, "?").join());
    for (const name of ["p1", "p2", "p3"]) {
      world.ask(name, { kind: "lock", lockspaceId: 1, lockId: 1, resource, mode: Mode.EX, flags: 0 });
      world.pass(1000);
    }
    expect(heard()).toEqual(["granted EX,bast EX", "", ""]);
    world.ask("p1", { kind: "unlock", lockId: 1, flags: 0, lvb: null });
    world.pass(5000);
    expect(heard()).toEqual(["granted EX,bast EX,unlocked NL", "granted EX,bast EX", ""]);
    expect([1, 2, 3].map((nodeid) => world.view(nodeid)?.members.length)).toEqual([3, 3, 3]);
  },
);

it.each([BOM, `${BOM}x`])("so it is in a lockspace %j", (space) => {
  const world = new World(3, {}, []);
  world.pass(10_000, () => world.serving());
  world.program("a", 1, "", false, 0, space);
  world.ask("a", { kind: "lock", lockspaceId: 1, lockId: 1, resource: "r", mode: Mode.EX, flags: 0 });
  world.pass(20_000);
  const program = world.programs.get("a");
  if (program === undefined) throw new Error("the world is not as it was made");
  expect([world.heardOf(program, "?"), world.serving()]).toEqual([["granted EX"], true]);
  expect([1, 2, 3].map((nodeid) => world.view(nodeid)?.members.length)).toEqual([3, 3, 3]);
});

it("a text that is no UTF-8 is refused: encoded again it would be another one, and longer", () => {
  for (const length of [1, 300])
    expect(() => decodeText(new Uint8Array(length).fill(0xff))).toThrow(`text of ${length} bytes that are no UTF-8`);
  const text = `${BOM}n\u00e4me`;
  expect(decodeText(new TextEncoder().encode(text))).toBe(text);
});
