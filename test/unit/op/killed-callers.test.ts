/** A change whose caller is killed while it is made, or whose outcome nobody knows: nothing that the kernel cached meanwhile stays. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { Lower } from "../../../overlay/lower/lower.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { Workbench } from "./workbench.ts";

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
