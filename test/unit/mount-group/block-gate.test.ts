/** What a blocked mount asks of its lower waits, in its order; and costs nothing while it is not blocked. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { changeFor, type FileId, type Lower, type LowerHandle } from "../../../overlay/lower/lower.ts";
import { attrOf } from "../op/scripted-lower.ts";
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
    gated.tmpfile(id, 2, 0, { uid: 0, gid: 0, umask: 0 }, true),
    gated.syncfs(),
  ];
  expect([gate.held, calls]).toEqual([4, []]);
  gated.made(id, attrOf(id));
  expect([gated.isAbsent(id, Buffer.from("b")), gated.fetch(id, handle, 0, 1)]).toEqual(["isAbsent", null]);
  expect(calls).toEqual(["made 2", "isAbsent 2"]);
  gate.letGo();
  expect(await Promise.all(answers.map((answer) => Promise.resolve(answer)))).toEqual(["mkdir", "getattr", "tmpfile", "syncfs"]);
  expect(calls.slice(2)).toEqual(["mkdir 4", "getattr 1", "tmpfile 5", "syncfs 0"]);
  expect([gate.held, gated.getattr(id), await gated.fetch(id, handle, 0, 1)]).toEqual([0, "getattr", "fetched"]);
});

it("a change that was held is made for the request that asked for it, and no other one is", async () => {
  const { lower, calls } = recorder();
  const of: number[] = [];
  const marked = new Proxy(lower, {
    get: (target, name) =>
      name === "madeFor" ? (request: number): void => void of.push(request, calls.length) : Reflect.get(target, name),
  });
  const gate = new BlockGate();
  const gated = gate.wrap(marked);
  gate.hold();
  const held = [
    changeFor(gated, 7, () => gated.rmdir(id, Buffer.from("a"), id)),
    gated.getattr(id),
    gated.unlink(id, Buffer.from("b"), id),
  ];
  expect([gate.held, of]).toEqual([3, []]);
  gate.letGo();
  await Promise.all(held.map((change) => Promise.resolve(change)));
  expect([calls, of]).toEqual([
    ["rmdir 3", "getattr 1", "unlink 3"],
    [7, 0, 0, 1],
  ]);
  void changeFor(gated, 9, () => gated.rmdir(id, Buffer.from("a"), id));
  expect(of.slice(4)).toEqual([9, 3, 0, 4]);
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

/** As the local lower: the handle of a file that is closed is given to the next one. */
function reusing(): { lower: Lower; files: string[][] } {
  const { lower } = recorder();
  const files: string[][] = [];
  const slots: (string[] | undefined)[] = [];
  const own: Partial<Lower> = {
    open: ({ ino }) => {
      const free = slots.indexOf(undefined);
      const at = free < 0 ? slots.length : free;
      files.push((slots[at] = [`file ${ino}`]));
      return at as LowerHandle;
    },
    close: (closed) => void (slots[closed] = undefined),
    write: (to, data, offset) => {
      slots[to]?.push(String(data));
      return { offset, bytes: data.length };
    },
  };
  return { lower: new Proxy(lower, { get: (target, name) => Reflect.get(name in own ? own : target, name) as unknown }), files };
}

it("a close goes behind what is held: a write that was held does not go to the file that has the handle next", async () => {
  const { lower, files } = reusing();
  const gate = new BlockGate();
  const gated = gate.wrap(lower);
  const first = await gated.open({ ino: 1, generation: 1 }, 2);
  gate.hold();
  const written = gated.write(first, Buffer.from("mine"), 0, false);
  gated.close(first);
  // Another way to the lower than this mount's: nobody holds it.
  expect(await lower.open({ ino: 2, generation: 1 }, 2)).not.toBe(first);
  const third = gated.open({ ino: 3, generation: 1 }, 2);
  expect(gate.held).toBe(3);
  gate.letGo();
  expect([await written, files]).toEqual([{ offset: 0, bytes: 4 }, [["file 1", "mine"], ["file 2"], ["file 3"]]]);
  // It was closed, though: the next one has its handle.
  expect(await third).toBe(first);
});

it("a close passes when nothing is held, and at the end of the mount", () => {
  const { lower, calls } = recorder();
  const gate = new BlockGate();
  const gated = gate.wrap(lower);
  gated.close(handle);
  gate.hold();
  gated.close(handle);
  expect(calls).toEqual(["close 1", "close 1"]);
  Promise.resolve(gated.getattr(id)).catch(() => undefined);
  gated.close(handle);
  expect(calls.length).toBe(2);
  gate.end();
  expect(calls).toEqual(["close 1", "close 1", "close 1"]);
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
  // It can not fail.
  gated.close(handle);
  expect(() => gated.getattr(id)).toThrow(expect.objectContaining({ errno: E.ENOMEM }));
  gate.letGo();
  expect([gate.held, calls.length]).toEqual([0, MAX_HELD_CALLS + 1]);
});
