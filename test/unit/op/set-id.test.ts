/** Hazard F37: when a change of the data takes set-user-ID away, and what a kernel sends before it: overlay/op/set-id.ts. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { attrOf } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const CAP_FOWNER = 1n << 3n;
const O_APPEND = 0o2000;
/** Of a workbench's caller, and of another user. */
const MINE = 1000;
const ANOTHER = 2000;
/** In struct fuse_attr_out. */
const MODE_AT = 76;

const range = { offset: 40, length: 10, mode: 0 };
const written = { offset: 40, data: Buffer.alloc(10), flags: 2, fromCache: false, killSuidgid: true };
const copied = { offset: 0, length: 10, outOffset: 40, flags: 0 };

function setIdBench(mode = 0o106755): Workbench {
  const bench = new Workbench();
  bench.lower.fileMode = mode;
  return bench;
}

type Change = "write" | "fallocate" | "copyFileRange";

async function change(bench: Workbench, op: Change, more: object): Promise<Reply | undefined> {
  const { fh } = bench.openFile();
  const reply = await bench.serve({ op, fh, outFh: fh, fuseNodeid: bench.file.fuseNodeid, ...more });
  expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  return reply;
}

describe("a change of the data by anybody but root", () => {
  it.each<[string, Change, object, readonly string[]]>([
    ["write", "write", written, ["reach 41", "lseek", "setattr", "write 10 at 40", "write"]],
    ["append", "write", { ...written, flags: 2 | O_APPEND }, ["getattr", "reach 101", "lseek", "setattr", "write 10 at end", "write"]],
    ["fallocate", "fallocate", range, ["reach 50", "lseek", "setattr", "getattr", "fallocate"]],
    ["copy", "copyFileRange", copied, ["reach 41", "lseek", "getattr", "setattr", "copyFileRange"]],
  ])("%s: set-user-ID goes before it, if the file may be so long, and the kernel is told", async (_what, op, more, calls) => {
    const bench = setIdBench();
    expect((await change(bench, op, more))?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(calls);
    expect(bench.coherence.events).toContain("distrust 20.1");
  });

  it.each<[string, Change, object]>([
    ["write", "write", written],
    ["append", "write", { ...written, flags: 2 | O_APPEND }],
    ["fallocate", "fallocate", range],
    ["copy", "copyFileRange", copied],
  ])("%s: beyond the longest file it is EFBIG, and changes nothing", async (_what, op, more) => {
    const bench = setIdBench();
    bench.lower.errors.set("lseek", [E.EINVAL]);
    expect((await change(bench, op, more))?.errno).toBe(E.EFBIG);
    expect(bench.lower.calls.filter((call) => ["setattr", "write", "fallocate", "copyFileRange"].includes(call))).toEqual([]);
    expect(bench.coherence.events).not.toContain("distrust 20.1");
  });

  it.each<[string, Change, object]>([
    ["write", "write", written],
    ["fallocate", "fallocate", range],
    ["copy", "copyFileRange", copied],
  ])("%s: where the owner dies in between, set-user-ID goes once more, before the answer", async (_what, op, more) => {
    const bench = setIdBench();
    const { lower, coherence } = bench;
    const make = lower[op].bind(lower) as (...args: unknown[]) => unknown;
    Object.assign(lower, {
      [op]: (...args: unknown[]) => {
        coherence.happens("owner died");
        return make(...args);
      },
    });
    expect((await change(bench, op, more))?.errno).toBe(0);
    const kills = lower.calls.flatMap((call, at) => (call === "setattr" ? [at] : []));
    expect([kills.length, (kills[1] ?? 0) > lower.calls.indexOf(op)]).toEqual([2, true]);
  });

  it("by a kernel that says nothing of it (before Linux 5.11): a write, and a cut", async () => {
    const bench = setIdBench();
    bench.mount.handleKillpriv = false;
    expect((await change(bench, "write", { ...written, killSuidgid: false }))?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(["reach 41", "lseek", "setattr", "write 10 at 40", "write"]);
    const changes: unknown[] = [];
    const set = bench.lower.setattr.bind(bench.lower);
    bench.lower.setattr = ((id: never, asked: unknown) => {
      changes.push(asked);
      return set(id);
    }) as never;
    const { fh } = bench.openFile();
    await bench.serve({ op: "setattr", fh, fuseNodeid: bench.file.fuseNodeid, change: { size: 3 } });
    await bench.serve(
      { op: "setattr", fh, fuseNodeid: bench.file.fuseNodeid, change: { size: 3 } },
      Object.assign(bench.call("setattr"), { uid: 0 }),
    );
    expect(changes).toEqual([{ size: 3, killSuidgid: true }, { size: 3 }]);
  });

  it("a lower that cannot say it: nothing is changed, and its error is told", async () => {
    const bench = setIdBench();
    bench.lower.errors.set("lseek", [E.EIO]);
    expect([(await change(bench, "write", written))?.errno, bench.lower.calls]).toEqual([E.EIO, ["reach 41", "lseek"]]);
  });

  it.each([
    ["without such bits", 0o100755],
    ["with set-group-ID that no program has", 0o102644],
  ])("%s it costs no call more", async (_what, mode) => {
    for (const [op, more, calls] of [
      ["write", written, []],
      // Where the file ends before it.
      ["fallocate", range, ["getattr"]],
      ["copyFileRange", copied, []],
    ] as const) {
      const bench = setIdBench(mode);
      expect((await change(bench, op, more))?.errno).toBe(0);
      expect(bench.lower.calls.filter((call) => ["getattr", "lseek", "setattr"].includes(call))).toEqual(calls);
    }
  });

  it("a copy of what is behind the end changes nothing", async () => {
    const bench = setIdBench();
    const reply = await change(bench, "copyFileRange", { ...copied, offset: 100 });
    expect([reply?.errno, reply?.body.readUInt32LE(0)]).toEqual([0, 0]);
    expect(bench.lower.calls).not.toContain("setattr");
    expect(bench.lower.calls).not.toContain("copyFileRange");
  });
});

describe("an empty SETATTR: chown(2) of nothing, or what the kernel sends before a change of the data", () => {
  interface Given {
    readonly mode?: number;
    readonly owner?: number;
    readonly caller?: number;
    readonly capabilities?: bigint;
    readonly handleKillpriv?: boolean;
    readonly open?: "for writing" | "for reading";
  }

  /** The errno, the mode that the kernel is told, and whether the lower was told to change anything. */
  async function emptySetattr(given: Given): Promise<readonly [errno: number | undefined, mode: number | null, changes: boolean]> {
    const { mode = 0o104755, owner = ANOTHER, caller = MINE, capabilities = 0n, handleKillpriv = true, open } = given;
    const bench = setIdBench(mode);
    bench.lower.fileUid = owner;
    bench.who = { uid: caller, gid: caller, groups: [], capabilities };
    bench.mount.handleKillpriv = handleKillpriv;
    bench.lower.setattr = (id) => {
      bench.lower.calls.push("setattr");
      return attrOf(id, { mode: 0o100755 });
    };
    if (open === "for writing") bench.openFile();
    if (open === "for reading") bench.mount.handles.add(bench.file, 77 as never, false, true, false, false);
    const call = bench.call("setattr");
    Object.assign(call, { uid: caller });
    const reply = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: {} }, call);
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
    const told = reply?.errno === 0 ? reply.body.readUInt32LE(MODE_AT) : null;
    return [reply?.errno, told, bench.lower.calls.includes("setattr")];
  }

  it("by a stranger nothing goes yet, where a file is open for writing: the change takes the bits", async () => {
    // The kernel is told the mode of after that: it may look at no other.
    expect(await emptySetattr({ open: "for writing" })).toEqual([0, 0o100755, false]);
    expect(await emptySetattr({ open: "for writing", mode: 0o102755 })).toEqual([0, 0o100755, false]);
    expect(await emptySetattr({ open: "for writing", mode: 0o106745 })).toEqual([0, 0o102745, false]);
  });

  it("by a stranger it is refused where no file is open for writing, so it is a chown(2)", async () => {
    expect(await emptySetattr({})).toEqual([E.EPERM, null, false]);
    expect(await emptySetattr({ open: "for reading" })).toEqual([E.EPERM, null, false]);
  });

  it.each<[string, Given]>([
    ["of its owner", { owner: MINE, open: "for writing" }],
    ["of root", { caller: 0 }],
    ["with CAP_FOWNER", { capabilities: CAP_FOWNER }],
    ["of a kernel that clears the bits itself", { handleKillpriv: false }],
    ["of a file without them", { mode: 0o100755 }],
    ["of what is no file", { mode: 0o020000 | 0o4755 }],
  ])("%s: it is made", async (_what, given) => {
    expect(await emptySetattr(given)).toEqual([0, 0o100755, true]);
  });

  it("that names something is none", async () => {
    const bench = setIdBench();
    bench.lower.fileUid = ANOTHER;
    const reply = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: { size: 0, killSuidgid: true } });
    expect([reply?.errno, bench.lower.calls]).toEqual([0, ["setattr"]]);
  });
});
