/** What a blocked mount asks of its lower waits, in its order; and costs nothing while it is not blocked. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { FileId, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import { BlockGate, MAX_HELD_CALLS } from "../../../overlay/mount-group/block-gate.ts";

const id: FileId = { ino: 7, generation: 1 };
const handle = 3 as LowerHandle;

/** Says in which order it was called. */
function recorder(): { lower: Lower; calls: string[] } {
  const calls: string[] = [];
  const lower = new Proxy({} as Lower, {
    get(_, name: string) {
      if (name === "root") return id;
      if (name === "hasAcls") return true;
      return (...args: readonly unknown[]) => {
        calls.push(`${name} ${args.length}`);
        return name === "fetch" ? Promise.resolve("fetched") : name;
      };
    },
  });
  return { lower, calls };
}

it("an open gate answers at once, with what the lower says", () => {
  const { lower, calls } = recorder();
  const gated = new BlockGate().wrap(lower);
  expect([gated.root, gated.hasAcls, gated.getattr(id), gated.read(handle, 0, 10)]).toEqual([id, true, "getattr", "read"]);
  expect(calls).toEqual(["getattr 1", "read 3"]);
});

it("a closed gate holds all but what needs no owner, and lets it go in its order", async () => {
  const { lower, calls } = recorder();
  const gate = new BlockGate();
  const gated = gate.wrap(lower);
  gate.hold();
  const answers: readonly unknown[] = [
    gated.mkdir(id, Buffer.from("a"), 0, { uid: 0, gid: 0, umask: 0 }),
    gated.getattr(id),
    gated.syncfs(),
  ];
  expect([gate.held, calls]).toEqual([3, []]);
  gated.close(handle);
  gated.made(id);
  expect([gated.isAbsent(id, Buffer.from("b")), gated.fetch(id, handle, 0, 1)]).toEqual(["isAbsent", null]);
  expect(calls).toEqual(["close 1", "made 1", "isAbsent 2"]);
  gate.letGo();
  expect(await Promise.all(answers.map((answer) => Promise.resolve(answer)))).toEqual(["mkdir", "getattr", "syncfs"]);
  expect(calls.slice(3)).toEqual(["mkdir 4", "getattr 1", "syncfs 0"]);
  expect([gate.held, gated.getattr(id), await gated.fetch(id, handle, 0, 1)]).toEqual([0, "getattr", "fetched"]);
});

it("each read that was held answers with its own bytes, where the lower gives a view of its one buffer", async () => {
  const scratch = new Uint8Array(4);
  const { lower } = recorder();
  const read: Lower["read"] = (_, offset, bytes) => scratch.fill(offset).subarray(0, bytes);
  const gate = new BlockGate();
  const gated = gate.wrap(new Proxy(lower, { get: (target, name) => (name === "read" ? read : Reflect.get(target, name)) }));
  gate.hold();
  const answers = [gated.read(handle, 1, 4), gated.read(handle, 2, 3), gated.read(handle, 3, 4)];
  gate.letGo();
  const found = await Promise.all(answers.map((answer) => Promise.resolve(answer)));
  expect(found.map((bytes) => [...bytes])).toEqual([
    [1, 1, 1, 1],
    [2, 2, 2],
    [3, 3, 3, 3],
  ]);
  // What is not held is not copied.
  expect((gated.read(handle, 4, 4) as Uint8Array).buffer).toBe(scratch.buffer);
});

it("a gate that was closed before there was a lower is closed then", async () => {
  const { lower, calls } = recorder();
  const gate = new BlockGate();
  gate.hold();
  const answer = gate.wrap(lower).getattr(id);
  expect(calls).toEqual([]);
  gate.letGo();
  expect(await answer).toBe("getattr");
});

it("at the end of the mount what waits ends with EIO, and nothing is held any more", async () => {
  const { lower } = recorder();
  const gate = new BlockGate();
  const gated = gate.wrap(lower);
  gate.hold();
  const answer = gated.getattr(id);
  gate.end();
  await expect(answer).rejects.toMatchObject({ errno: E.EIO });
  gate.hold();
  expect(gated.getattr(id)).toBe("getattr");
});

it(`holds ${MAX_HELD_CALLS} calls; one more gets ENOMEM`, () => {
  const { lower, calls } = recorder();
  const gate = new BlockGate();
  const gated = gate.wrap(lower);
  gate.hold();
  for (let count = 0; count < MAX_HELD_CALLS; count++) void gated.getattr(id);
  expect(() => gated.getattr(id)).toThrow(expect.objectContaining({ errno: E.ENOMEM }));
  gate.letGo();
  expect([gate.held, calls.length]).toEqual([0, MAX_HELD_CALLS]);
});
