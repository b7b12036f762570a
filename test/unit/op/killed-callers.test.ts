/** A change whose caller is killed while it is made, or whose outcome nobody knows: nothing that the kernel cached meanwhile stays. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { Lower } from "../../../overlay/lower/lower.ts";
import { isAwaited } from "../../../overlay/op/orphans.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { OTHER } from "./scripted-lower.ts";
import { Workbench } from "./workbench.ts";

const O_APPEND = 0o2000;
const name = Buffer.from("name");
const data = Buffer.alloc(10);
const supplementaryGids: readonly number[] = [];
const file = (bench: Workbench): { fuseNodeid: number } => ({ fuseNodeid: bench.file.fuseNodeid });
const opened = (bench: Workbench): { fuseNodeid: number; fh: number } => ({ ...file(bench), fh: bench.openFile().fh });

interface Row {
  readonly op: Operation["op"];
  readonly request: (bench: Workbench) => Record<string, unknown>;
  readonly lower: keyof Lower;
  /** What it changes. */
  readonly inodes: string;
}

const rows: readonly Row[] = [
  { op: "unlink", request: () => ({ name }), lower: "unlink", inodes: "2.0 20.1" },
  { op: "rmdir", request: () => ({ name }), lower: "rmdir", inodes: "2.0 20.1" },
  {
    op: "rename",
    request: () => ({ name, newFuseNodeid: 1, newName: Buffer.from("new"), flags: 0 }),
    lower: "rename",
    inodes: "2.0 2.0 20.1 20.1",
  },
  { op: "link", request: (b) => ({ name, targetFuseNodeid: b.file.fuseNodeid }), lower: "link", inodes: "2.0 20.1" },
  { op: "mkdir", request: () => ({ name, mode: 0o755, umask: 0, supplementaryGids }), lower: "mkdir", inodes: "2.0" },
  { op: "symlink", request: () => ({ name, target: name, supplementaryGids }), lower: "symlink", inodes: "2.0" },
  { op: "create", request: () => ({ name, mode: 0o644, umask: 0, flags: 0o102, supplementaryGids }), lower: "create", inodes: "2.0" },
  { op: "setattr", request: (b) => ({ ...file(b), fh: null, change: { size: 5 } }), lower: "setattr", inodes: "20.1" },
  {
    op: "write",
    request: (b) => ({ ...opened(b), offset: 0, data, flags: 2, fromCache: false, killSuidgid: false }),
    lower: "write",
    inodes: "20.1",
  },
  { op: "fallocate", request: (b) => ({ ...opened(b), offset: 0, length: 10, mode: 0 }), lower: "fallocate", inodes: "20.1" },
  { op: "setxattr", request: (b) => ({ ...file(b), name, value: data, flags: 0, aclKillSgid: false }), lower: "setxattr", inodes: "20.1" },
  { op: "removexattr", request: (b) => ({ ...file(b), name }), lower: "removexattr", inodes: "20.1" },
];

const copy: Row = {
  op: "copyFileRange",
  request: (b) => ({
    ...opened(b),
    offset: 0,
    outFuseNodeid: b.file.fuseNodeid,
    outFh: b.openFile().fh,
    outOffset: 0,
    length: 9,
    flags: 0,
  }),
  lower: "copyFileRange",
  inodes: "20.1",
};

describe.each(rows)("$op", ({ op, request, lower, inodes }) => {
  it("killed: what was cached since the EINTR is dropped under the pins, and the kernel is taken to have changed nothing", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const call = bench.call(op);
    const served = bench.serve({ op, ...request(bench) }, call);
    while (!bench.lower.calls.includes(lower)) await new Promise((resolve) => setImmediate(resolve));
    call.interrupt();
    await served;
    const { events } = bench.coherence;
    expect(events).toContain(`distrust ${inodes} with pages`);
    expect(events.filter((event) => /^(drop|move|exchange) /.test(event))).toEqual([]);
    expect(bench.coherence.violations).toEqual([]);
    expect(bench.replies.map((reply) => reply.errno)).toEqual([E.EINTR]);
  });

  it("of unknown outcome: its caller gets EIO, and nothing cached is trusted", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    bench.lower.errors.set(lower, [E.EIO]);
    await bench.serve({ op, ...request(bench) });
    expect(bench.coherence.events).toContain(`distrust ${inodes}`);
    expect(bench.replies.map((reply) => reply.errno)).toEqual([E.EIO]);
  });

  it("well ended: costs nothing", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    await bench.serve({ op, ...request(bench) });
    expect(bench.coherence.events.filter((event) => event.startsWith("distrust"))).toEqual([]);
  });
});

/** Each of what a killed caller may have left at the lower, and what may come next for one of its inodes. */
const changesOfFile: readonly Operation["op"][] = ["setattr", "write", "fallocate", "setxattr", "removexattr", "link", "unlink"];
const rowOf = (op: Operation["op"]): Row => {
  const row = rows.find((one) => one.op === op);
  if (row === undefined) throw new Error(`no row of ${op}`);
  return row;
};
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** One whose caller is killed while the lower has it; it is answered when `answer` is called. */
async function leave(bench: Workbench, { op, request, lower }: Row): Promise<{ answer: () => void; served: Promise<unknown> }> {
  let answer = (): void => undefined;
  bench.lower.held.set(lower, new Promise((resolve) => (answer = resolve)));
  const call = bench.call(op);
  const served = bench.serve({ op, ...request(bench) }, call);
  while (!bench.lower.calls.includes(lower)) await turn();
  call.interrupt();
  await turn();
  return { answer, served };
}

const pairs = rows.flatMap((left) => changesOfFile.flatMap((next) => (left.inodes.includes("20.1") ? [[left.op, next] as const] : [])));

describe("a WRITE whose caller was killed: pages are dropped at its end, and others may have them meanwhile (hazard F11)", () => {
  const write = rowOf("write");

  const read = { op: "read", offset: 0, size: 4096, flags: 2, lockOwner: 0n } as const;
  const back = { op: "write", offset: 0, data, flags: 2, fromCache: true, killSuidgid: false } as const;

  it.each([
    ["a READ that waits while something is appended", false, "write", read],
    ["a READ while set-user-ID is cleared before something is appended", false, "setattr", read],
    ["what is written back of a mapping", true, "write", back],
  ] as const)("%s ends", async (_title, cached, lower, other) => {
    const bench = new Workbench();
    bench.lower.fileMode = 0o104755;
    const page = { ...opened(bench), ...other };
    const request = (): Record<string, unknown> => ({
      ...write.request(bench),
      ...file(bench),
      fh: bench.openFile(cached).fh,
      flags: cached ? 2 : 2 | O_APPEND,
      killSuidgid: lower === "setattr",
    });
    const { answer, served } = await leave(bench, { ...write, lower, request });
    const second = bench.serve(page);
    const drops: string[] = [];
    bench.coherence.dropKernelCaches = async (_inodes, pages): Promise<void> => {
      if (!pages) return;
      drops.push("begun");
      await second;
      drops.push("over");
    };
    answer();
    for (let turns = 0; turns < 30; turns += 1) await turn();
    expect([bench.replies.map(({ errno }) => errno), drops]).toEqual([
      [E.EINTR, 0],
      ["begun", "over"],
    ]);
    await served;
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  });
});

describe("a change of the size whose caller was killed (hazard F5)", () => {
  const replies = (bench: Workbench): string[] => {
    const effects: string[] = [];
    bench.coherence.sizes = { ...bench.coherence.sizes, replied: (_inode, _tid, effect) => void effects.push(effect) };
    return effects;
  };
  const append: Row = { ...rowOf("write"), request: (b) => ({ ...rowOf("write").request(b), flags: 2 | O_APPEND }) };
  const changes: readonly (readonly [string, Row])[] = [
    ...(["setattr", "write", "fallocate", "link"] as const).map((op) => [op, rowOf(op)] as const),
    ["copyFileRange", copy],
    ["append", append],
  ];

  it.each(changes)("%s: nobody waits until its answer is taken", async (_title, row) => {
    const living = new Workbench();
    const taken = replies(living);
    await living.serve({ op: row.op, ...row.request(living) });
    expect(taken).toHaveLength(1);
    const bench = new Workbench();
    const effects = replies(bench);
    const { answer, served } = await leave(bench, row);
    answer();
    await served;
    expect([effects, bench.replies.map(({ errno }) => errno)]).toEqual([[], [E.EINTR]]);
  });
});

describe("a change that was made, and whose caller is not told so (hazard F50)", () => {
  const notifying = ["unlink", "rmdir", "rename", "link", "mkdir", "symlink", "create", "fallocate", "setxattr", "removexattr"] as const;
  const cases = notifying.flatMap((op) => [[op, false] as const, [op, true] as const]);
  const dropped = ({ coherence }: Workbench): string[] => coherence.events.filter((event) => event.startsWith("distrust"));

  it.each(cases)("%s: killed while the kernel is notified (lower that answers later: %j): what it has is dropped", async (op, later) => {
    const bench = new Workbench();
    bench.lower.later = later;
    const row = rowOf(op);
    let notified = (): void => undefined;
    const outdated = new Promise<void>((resolve) => (notified = resolve));
    const asked: Promise<void>[] = [];
    bench.coherence.attributesChanged = (): Promise<void> => {
      asked.push(outdated);
      return outdated;
    };
    const call = bench.call(op);
    const served = bench.serve({ op, ...row.request(bench) }, call);
    while (asked.length === 0) await turn();
    expect([bench.lower.calls.includes(row.lower), dropped(bench)]).toEqual([true, []]);
    call.interrupt();
    notified();
    await served;
    expect([bench.replies.map(({ errno }) => errno), dropped(bench)]).toEqual([[E.EINTR], [`distrust ${row.inodes} with pages`]]);
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  });

  // The directory is of that group: the bit that the lower took is set again.
  const setgid: Row = { ...rowOf("create"), request: (b) => ({ ...rowOf("create").request(b), mode: 0o2770, supplementaryGids: [0] }) };

  it("create: killed while the set-group-id bit is set again: the name is not absent any more", async () => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, { ...setgid, lower: "setattr" });
    answer();
    await served;
    expect([bench.replies.map(({ errno }) => errno), dropped(bench)]).toEqual([
      [E.EINTR],
      ["distrust 21.1 with pages", "distrust 2.0 with pages"],
    ]);
  });

  it.each([false, true])("create: the bit can not be set again, and the call fails, but the name is there (later: %j)", async (later) => {
    const bench = new Workbench();
    bench.lower.later = later;
    bench.lower.errors.set("setattr", [E.ENOSPC]);
    await bench.serve({ op: "create", ...setgid.request(bench) });
    expect([bench.replies.map(({ errno }) => errno), dropped(bench)]).toEqual([[E.ENOSPC], ["distrust 2.0"]]);
    expect([bench.lower.closed, bench.coherence.held, bench.coherence.violations]).toEqual([[1], 0, []]);
  });

  it("setxattr: an ACL that was set stays known as set when the mode can not follow", async () => {
    const bench = new Workbench();
    bench.lower.fileMode = 0o102755;
    bench.lower.errors.set("setattr", [E.ENOSPC]);
    const acl = { name: Buffer.from("system.posix_acl_access"), aclKillSgid: true };
    await bench.serve({ op: "setxattr", ...rowOf("setxattr").request(bench), ...acl });
    expect([bench.replies.map(({ errno }) => errno), dropped(bench)]).toEqual([[E.ENOSPC], ["distrust 20.1"]]);
  });
});

/** What each asks before its change, of what is not known here. */
const asking: readonly Row[] = [
  ...rows.filter(({ op }) => ["unlink", "rmdir", "rename", "fallocate"].includes(op)),
  {
    op: "removexattr",
    request: (b) => ({ ...file(b), name: Buffer.from("system.posix_acl_access") }),
    lower: "removexattr",
    inodes: "20.1",
  },
  { op: "setattr", request: (b) => ({ ...file(b), fh: null, change: { mode: 0o600 } }), lower: "setattr", inodes: "20.1" },
  {
    op: "write",
    request: (b) => ({ ...opened(b), offset: 0, data, flags: 2, fromCache: false, killSuidgid: true }),
    lower: "write",
    inodes: "20.1",
  },
  copy,
];

describe("a change whose caller is killed before it is sent (hazard F50)", () => {
  it.each(asking)(
    "$op is not made: the kernel let go of its locks, and what came next may be made by then",
    async ({ op, request, lower }) => {
      const bench = new Workbench();
      const asked = ["ownership", "lookup", "getxattr"] as const;
      let know = (): void => undefined;
      const known = new Promise<void>((resolve) => (know = resolve));
      for (const question of asked) bench.lower.held.set(question, known);
      const call = bench.call(op);
      const served = bench.serve({ op, ...request(bench) }, call);
      for (let turns = 0; turns < 10; turns += 1) await turn();
      expect([asked.some((question) => !bench.lower.held.has(question)), bench.lower.calls.includes(lower)]).toEqual([true, false]);
      call.interrupt();
      know();
      await served;
      expect([bench.lower.calls.includes(lower), bench.replies.map(({ errno }) => errno)]).toEqual([false, [E.EINTR]]);
      expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
    },
  );
});

describe("what comes after a change whose caller was killed (hazard F50)", () => {
  it.each(pairs)("%s that the lower has not answered: %s of that file is sent when it has", async (left, next) => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, rowOf(left));
    const { lower, request } = rowOf(next);
    const before = bench.lower.calls.filter((call) => call === lower).length;
    const sent = (): number => bench.lower.calls.filter((call) => call === lower).length - before;
    const second = bench.serve({ op: next, ...request(bench) });
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect(sent()).toBe(0);
    answer();
    await Promise.all([served, second]);
    expect([sent(), bench.replies.map(({ errno }) => errno), bench.coherence.violations]).toEqual([1, [E.EINTR, 0], []]);
  });

  it("mkdir that the lower has not answered: a name made in that directory waits for it", async () => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, rowOf("mkdir"));
    const second = bench.serve({ op: "symlink", ...rowOf("symlink").request(bench) });
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect(bench.lower.calls).not.toContain("symlink");
    answer();
    await Promise.all([served, second]);
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR, 0]);
  });

  it("a write of mapped pages waits, too, and none goes behind", async () => {
    const bench = new Workbench();
    bench.lower.behind = [];
    const { answer, served } = await leave(bench, rowOf("setattr"));
    const write = { ...rowOf("write").request(bench), op: "write" } as const;
    const others = [bench.serve(write), bench.serve({ ...write, fromCache: true })];
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect([bench.lower.calls.filter((call) => call.startsWith("write")), bench.lower.behind]).toEqual([[], []]);
    answer();
    await Promise.all([served, ...others]);
    // Which of the two comes first says the kernel.
    const sent = [...bench.lower.calls.filter((call) => call.startsWith("write ")), ...(bench.lower.behind ?? []).map(() => "behind")];
    expect([bench.replies.map(({ errno }) => errno), sent]).toEqual([
      [E.EINTR, 0, 0],
      ["write 10 at 0", "behind"],
    ]);
  });

  it("none goes behind either that had begun before, and is still asking for what it needs", async () => {
    const bench = new Workbench();
    bench.lower.behind = [];
    let know = (): void => undefined;
    bench.lower.held.set("ownership", new Promise((resolve) => (know = resolve)));
    const write = { ...rowOf("write").request(bench), op: "write", killSuidgid: true } as const;
    const second = bench.serve(write);
    await turn();
    expect(bench.lower.ownersAsked).toEqual([bench.file.id.ino]);
    const { answer, served } = await leave(bench, rowOf("removexattr"));
    know();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect([bench.lower.calls.filter((call) => call.startsWith("write")), bench.lower.behind]).toEqual([[], []]);
    answer();
    await Promise.all([served, second]);
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR, 0]);
  });

  it("write-back goes by the size that the file has afterwards", async () => {
    const bench = new Workbench();
    bench.lower.size = 8192;
    const { answer, served } = await leave(bench, rowOf("setattr"));
    const page = { ...rowOf("write").request(bench), offset: 4096, data: Buffer.alloc(4096), fromCache: true, op: "write" } as const;
    const back = bench.serve(page);
    for (let turns = 0; turns < 10; turns += 1) await turn();
    bench.lower.size = 0;
    answer();
    await Promise.all([served, back]);
    expect([bench.lower.calls.filter((call) => call.startsWith("write")), bench.replies.map(({ errno }) => errno)]).toEqual([
      [],
      [E.EINTR, 0],
    ]);
  });

  it("who may make it is looked at afterwards: the file has another owner then", async () => {
    const bench = new Workbench();
    // It stands for a chown.
    const { answer, served } = await leave(bench, rowOf("setattr"));
    const second = bench.serve({ op: "setattr", ...file(bench), fh: null, change: { mode: 0o4777 } });
    for (let turns = 0; turns < 10; turns += 1) await turn();
    bench.lower.fileUid = 0;
    answer();
    await Promise.all([served, second]);
    expect([bench.replies.map(({ errno }) => errno), bench.lower.calls.filter((call) => call === "setattr")]).toEqual([
      [E.EINTR, E.EPERM],
      ["setattr"],
    ]);
  });

  it("the clearing of set-user-ID by a write is such a change as well", async () => {
    const bench = new Workbench();
    bench.lower.fileMode = 0o104755;
    const kills = {
      ...rowOf("write"),
      request: (b: Workbench) => ({ ...rowOf("write").request(b), killSuidgid: true }),
      lower: "setattr",
    } as const;
    const { answer, served } = await leave(bench, kills);
    const second = bench.serve({ op: "setattr", ...rowOf("setattr").request(bench) });
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect(bench.lower.calls.filter((call) => call === "setattr")).toHaveLength(1);
    answer();
    await Promise.all([served, second]);
    expect([bench.replies.map(({ errno }) => errno), bench.lower.calls.filter((call) => call === "write")]).toEqual([[E.EINTR, 0], []]);
  });

  describe("the set-group-id bit that a creation sets again (hazard F15)", () => {
    const create = { ...rowOf("create") };
    // What attrOf says of the group.
    const setgid: Row = { ...create, request: (b) => ({ ...create.request(b), mode: 0o102770, supplementaryGids: [0] }) };
    const chmod = (bench: Workbench): Promise<unknown> => {
      const child = bench.inodes.remember(OTHER, 0o100644);
      child.nlookup += 1;
      bench.inodes.leave(child);
      return bench.serve({ op: "setattr", fuseNodeid: child.fuseNodeid, fh: null, change: { mode: 0o600 } });
    };
    const changes = ({ lower }: Workbench): string[] => lower.calls.filter((call) => ["create", "setattr"].includes(call));

    it("is not set when the maker was killed before: others have found the file", async () => {
      const bench = new Workbench();
      const { answer, served } = await leave(bench, setgid);
      answer();
      await served;
      expect([changes(bench), bench.lower.closed, bench.coherence.held]).toEqual([["create"], [1], 0]);
    });

    it("is set before the next change of the file", async () => {
      const bench = new Workbench();
      const { answer, served } = await leave(bench, { ...setgid, lower: "setattr" });
      const second = chmod(bench);
      for (let turns = 0; turns < 10; turns += 1) await turn();
      expect(changes(bench)).toEqual(["create", "setattr"]);
      answer();
      await Promise.all([served, second]);
      expect(changes(bench)).toEqual(["create", "setattr", "setattr"]);
      expect([bench.replies.map(({ errno }) => errno), bench.coherence.violations]).toEqual([[E.EINTR, 0], []]);
    });
  });

  it("waits though the kernel has forgotten the file meanwhile, and knows it anew", async () => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, rowOf("link"));
    expect(bench.inodes.use(bench.file)).toBeUndefined();
    const again = { ...bench.file, fuseNodeid: bench.file.fuseNodeid };
    expect(isAwaited(again)).toBe(true);
    bench.inodes.leave(bench.file);
    answer();
    await served;
    expect(isAwaited(again)).toBe(false);
  });

  it("one that is killed while it waits is not made, and keeps nobody waiting", async () => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, rowOf("setattr"));
    const write = { ...rowOf("write").request(bench), op: "write" } as const;
    const call = bench.call("write");
    const second = bench.serve(write, call);
    await turn();
    call.interrupt();
    await turn();
    const third = bench.serve({ ...write, offset: 50 });
    await turn();
    expect(bench.lower.calls.filter((made) => made.startsWith("write"))).toEqual([]);
    answer();
    await Promise.all([served, second, third]);
    expect(bench.lower.calls.filter((made) => made.startsWith("write "))).toEqual(["write 10 at 50"]);
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR, E.EINTR, 0]);
  });

  it("of another file nothing waits, nor for a change whose caller lives", async () => {
    const bench = new Workbench();
    const { answer, served } = await leave(bench, rowOf("setattr"));
    await bench.serve({ op: "mkdir", ...rowOf("mkdir").request(bench) });
    answer();
    await served;
    let answerNext = (): void => undefined;
    bench.lower.held.set("write", new Promise((resolve) => (answerNext = resolve)));
    const living = bench.serve({ ...rowOf("write").request(bench), op: "write" });
    await turn();
    await bench.serve({ op: "fallocate", ...rowOf("fallocate").request(bench) });
    answerNext();
    await living;
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR, 0, 0, 0]);
  });
});
