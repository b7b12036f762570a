/** Hazards F12 and F5: CREATE of a name that is there, when the caller comes back after ESTALE: create-existing.ts. */
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { KernelSizes } from "../../../overlay/coherence/size/kernel-sizes.ts";
import { rightSizes } from "./right-sizes.ts";
import { OTHER } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const O_CREAT_RDWR = 0o102;
const O_TRUNC = 0o1000;
const name = Buffer.from("name");
const create = { op: "create" as const, name, mode: 0o644, umask: 0, supplementaryGids: [] };

/** struct fuse_entry_out: 40 bytes, then struct fuse_attr, whose second field is the size. */
const SIZE_AT = 48;

/** The caller's own file, found there; what is asked and told of its size stands among the other events. */
function bench(sizes: Partial<KernelSizes> = {}): Workbench {
  const made = new Workbench();
  const { events } = made.coherence;
  made.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
  made.lower.fileUid = 1000;
  made.coherence.sizes = {
    ...rightSizes,
    begin: (_inode, change) => void events.push(`begin ${change}`),
    made: () => void events.push("made"),
    end: (_inode, _change, sure) => void events.push(`end ${sure ? "sure" : "unsure"}`),
    toldSentinel: () => void events.push("doubt"),
    told: (_inode, size) => void events.push(`told ${size}`),
    ...sizes,
  };
  return made;
}

async function secondWalk(made: Workbench, flags: number, killSuidgid = false): Promise<Reply | undefined> {
  expect((await made.serve({ ...create, flags }))?.errno).toBe(E.ESTALE);
  made.coherence.events.length = 0;
  made.lower.calls.length = 0;
  const reply = await made.serve({ ...create, flags, killSuidgid });
  expect([made.coherence.held, made.coherence.violations]).toEqual([0, []]);
  return reply;
}

describe("CREATE of what is there, on the second walk", () => {
  it("tells the size that the kernel has, in the turn of the reply", async () => {
    const made = bench();
    const reply = await secondWalk(made, O_CREAT_RDWR);
    expect([reply?.errno, reply?.body.readBigUInt64LE(SIZE_AT)]).toEqual([0, 100n]);
    expect(made.coherence.events).toEqual([
      "pin 2.0 EX",
      "unpin 2.0 EX",
      "pin 2.0 PR",
      "unpin 2.0 PR",
      "pin 2.0 PR",
      "pin 20.1 PR",
      "tell 2.0 name 20.1",
      "told 100",
      "reply",
      "unpin 2.0 PR",
      "unpin 20.1 PR",
    ]);
  });

  it("in doubt waits until that is known, with the pins held", async () => {
    const made = bench({
      known: () => false,
      tell: async (_inode, _waiter, read, answer) => {
        made.coherence.events.push("doubt");
        await new Promise((resolve) => setImmediate(resolve));
        made.lower.size = 120;
        answer(await read());
      },
    });
    const reply = await secondWalk(made, O_CREAT_RDWR);
    expect([reply?.errno, reply?.body.readBigUInt64LE(SIZE_AT)]).toEqual([0, 120n]);
    expect(reply?.held).toBe(2);
    expect(made.coherence.events.slice(6, 10)).toEqual(["doubt", "tell 2.0 name 20.1", "told 120", "reply"]);
  });

  it("leaves nothing open where that fails", async () => {
    const made = bench({ known: () => false, tell: () => Promise.reject(errnoError(E.EIO)) });
    expect((await secondWalk(made, O_CREAT_RDWR))?.errno).toBe(E.EIO);
    expect([made.lower.closed.length, made.coherence.tokens, made.file.openCount, made.file.nlookup]).toEqual([1, 0, 0, 1]);
  });

  it("with O_TRUNC is a change of the size: under EX, from before it is made until it is made; and the kernel is given the new size before the reply", async () => {
    const made = bench();
    expect((await secondWalk(made, O_CREAT_RDWR | O_TRUNC))?.errno).toBe(0);
    expect(made.coherence.events.slice(5, -2)).toEqual([
      "pin 20.1 EX",
      "begin plain",
      "made",
      "doubt",
      "end sure",
      "tell 2.0 name 20.1",
      "told 100",
      "reply",
    ]);
    expect(made.lower.calls.slice(-2)).toEqual(["open", "getattr"]);
  });

  it("with O_TRUNC takes set-user-id where the kernel leaves that to us, and leaves nothing open where that fails", async () => {
    const made = bench();
    made.lower.fileMode = 0o104644;
    made.lower.errors.set("setattr", [E.EIO]);
    expect((await secondWalk(made, O_CREAT_RDWR | O_TRUNC, true))?.errno).toBe(E.EIO);
    expect([made.lower.closed.length, made.coherence.tokens, made.file.openCount]).toEqual([1, 0, 0]);
    const plain = bench();
    plain.lower.fileMode = 0o104644;
    expect((await secondWalk(plain, O_CREAT_RDWR | O_TRUNC, true))?.errno).toBe(0);
    expect(plain.lower.calls).toContain("setattr");
  });

  it("begins anew where the name is another file by the time its lock is here, and keeps no page cache of the first", async () => {
    const made = bench();
    const lookup = made.lower.lookup.bind(made.lower);
    let lookups = 0;
    made.lower.lookup = () => {
      lookups += 1;
      if (lookups === 2) made.lower.found = OTHER;
      return lookup();
    };
    expect((await secondWalk(made, O_CREAT_RDWR))?.errno).toBe(0);
    expect([lookups, made.coherence.tokens]).toEqual([4, 1]);
    expect(made.coherence.events).toContain("tell 2.0 name 21.1");
    expect(made.coherence.events).not.toContain("tell 2.0 name 20.1");
  });

  it("opens nothing but regular files, and ends with ENOENT where the name went away", async () => {
    const directory = bench();
    directory.lower.fileMode = 0o040755;
    expect((await secondWalk(directory, O_CREAT_RDWR))?.errno).toBe(E.EEXIST);
    const gone = bench();
    gone.lower.errors.set("lookup", [E.ENOENT]);
    expect((await secondWalk(gone, O_CREAT_RDWR))?.errno).toBe(E.ENOENT);
    for (const { lower, coherence } of [directory, gone]) expect([lower.calls.includes("open"), coherence.tokens]).toEqual([false, 0]);
  });
});
