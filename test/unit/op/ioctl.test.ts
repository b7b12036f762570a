/** IOCTL, hazard F27: what is on the lower before a file may become immutable. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { Workbench } from "./workbench.ts";

/** May make files immutable: CAP_LINUX_IMMUTABLE. */
const trusted = { uid: 1000, gid: 1000, groups: [], capabilities: 1n << 9n };
const set = { op: "ioctl" as const, kind: "flags", value: Buffer.from([0x10, 0, 0, 0]) };

describe("a change of a file's flags", () => {
  it("waits for what was written behind", async () => {
    const bench = new Workbench();
    bench.who = trusted;
    let over: () => void = () => undefined;
    bench.lower.writtenBehind = () => new Promise<void>((resolve) => (over = resolve)) as never;
    const { fh } = bench.openFile(false);
    const served = bench.serve({ ...set, fh });
    await new Promise((resolve) => setImmediate(resolve));
    expect(bench.lower.calls).toEqual(["fileAttributes"]);
    over();
    expect((await served)?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(["fileAttributes", "setFileAttributes"]);
  });

  it.each([
    { mapped: true, first: ["distrust 20.1 with pages"] },
    { mapped: false, first: [] },
  ])("has dirty pages of a mapping written first: $mapped", async ({ mapped, first }) => {
    const bench = new Workbench();
    bench.who = trusted;
    const { fh } = bench.openFile(mapped);
    bench.lower.setFileAttributes = () => void bench.coherence.events.push("set");
    await bench.serve({ ...set, fh });
    expect(bench.coherence.events).toEqual(["pin 20.1 EX", ...first, "set", "outdated 20.1 but of 0", "reply", "unpin 20.1 EX"]);
  });

  it.each([
    { of: "flags", now: [0x10, 0, 0, 0], value: [0x40, 0, 0, 0], errno: E.EPERM },
    { of: "flags", now: [0x10, 0, 0, 0], value: [0x50, 0, 0, 0], errno: 0 },
    { of: "fsxattr", now: [0x08, 0, 0, 0], value: [0x80, 0, 0, 0], errno: E.EPERM },
  ])("of an owner who saw it before another node made it immutable is refused, if it would end that: $of $value", async (row) => {
    const bench = new Workbench();
    bench.who = { uid: 1000, gid: 1000, groups: [], capabilities: 0n };
    bench.lower.fileAttributes = () => Buffer.from(row.now);
    const { fh } = bench.openFile(false);
    const served = await bench.serve({ ...set, kind: row.of, value: Buffer.from(row.value), fh });
    expect([served?.errno, bench.lower.calls]).toEqual([row.errno, row.errno === 0 ? ["setFileAttributes"] : []]);
  });

  it("is refused where the kernel has not checked who asks", async () => {
    const bench = new Workbench();
    bench.who = trusted;
    bench.mount.fileAttributes = false;
    const { fh } = bench.openFile(false);
    for (const value of [null, set.value]) expect((await bench.serve({ ...set, value, fh }))?.errno).toBe(E.ENOTTY);
    expect(bench.lower.calls).toEqual([]);
  });
});
