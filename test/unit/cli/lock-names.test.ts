/** Names of locks, and what is said of files, processes and mounts beside them. */
import { mkdtempSync, openSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeClusterLocks, joinClusterLocks } from "../../../overlay/query/cluster-locks.ts";
import { fileStateWords, inodeLock, lockNamesOf, lockTitle, volumeName } from "../../../overlay/query/lock-names.ts";
import { MAX_DESCRIPTORS_LOOKED_AT, openPath, programOf, threadsOf } from "../../../overlay/query/open-paths.ts";
import { describeWhy } from "../../../overlay/cli/why-words.ts";
import { holderWords, MAX_NAMED_HOLDERS } from "../../../overlay/volume/mount-holders.ts";
import { mountTable } from "../../../dlmd/base/mount-table.ts";

const uuid = "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11";
const lockspace = `vol-${uuid}`;

describe("the name of a lock", () => {
  it("says what it is, of which inode of which volume", () => {
    expect(lockNamesOf("12.7")).toEqual(["i12.7", "w12.7", "f12.7"]);
    expect(inodeLock(lockspace, "f12.7")).toEqual({ kind: "f", key: "12.7", ino: "12", generation: "7" });
    expect(["i12.7", "w12.7", "f12.7", "next", "x12.7", "i12"].map((name) => lockTitle(lockspace, name))).toEqual([
      "inode lock of inode 12",
      "write token of inode 12",
      "file locks of inode 12",
      "the line of heirs to the volume's owner",
      null,
      null,
    ]);
    expect(fileStateWords(lockspace, "f12.7")?.title).toBe("place of the file locks of inode 12");
    expect(fileStateWords(lockspace, "i12.7")).toBeNull();
    expect(lockTitle("my-program", "i12.7")).toBeNull();
    expect(volumeName(lockspace, [{ name: "data", uuid }])).toBe("data");
    expect(volumeName(lockspace, [])).toBe(lockspace);
  });
});

describe("answers to several questions", () => {
  const answer = (file: string, pid: number): object => {
    const held = [{ nodeid: 1, clientId: 3, kind: "posix", owner: "9", pid, type: "write", start: "0", end: null, heldMs: 1500 }];
    const files = [{ lockspace, file, masterNodeid: 1, held, waiting: [] }];
    const said = { serving: true, state: "running", resources: [], files, clients: [], lockspaces: [], truncated: false };
    return { nodes: [{ nodeid: 1, answer: { ...said, processes: [{ pid: 41, program: "sqlite3" }] } }] };
  };

  it("are one, which names each process once, with its program; a path where it is known", () => {
    const joined = joinClusterLocks([decodeClusterLocks(answer("f12.7", 41)), decodeClusterLocks(answer("f13.7", 42))]);
    expect(joined.processes).toEqual([{ nodeid: 1, pid: 41, program: "sqlite3" }]);
    const words = describeWhy(
      joined,
      (nodeid) => `node${nodeid}`,
      (_, lock) => (lock === "f12.7" ? "/data/file" : null),
    );
    expect(words.split("\n")).toEqual([
      `${lockspace} f12.7  file locks of inode 12 (/data/file), master node1`,
      "  node1/client 3 (pid 41, sqlite3) has write on bytes 0 to the end since 1.5 s",
      `${lockspace} f13.7  file locks of inode 13, master node1`,
      "  node1/client 3 (pid 42) has write on bytes 0 to the end since 1.5 s",
    ]);

    // Where the locks are is of interest only as long as they are not seen.
    const idle = { requested: null, waitingMs: null, orphan: false, asked: null, askedMs: null, mayKeep: false };
    const place = { nodeid: 1, clientId: 3, lockId: 1, granted: "EX", ...idle };
    const queues = { masterNodeid: 1, lvb: null, grantQueue: [place], convertQueue: [], waitQueue: [], fromMaster: true };
    const resources = ["f12.7", "f14.7"].map((resource) => ({ lockspace, resource, ...queues }));
    expect(
      describeWhy({ ...joined, resources }, (nodeid) => `node${nodeid}`)
        .split("\n")
        .slice(0, 3),
    ).toEqual([
      `${lockspace} f14.7  place of the file locks of inode 14, master node1`,
      "  node1/client 3 keeps them in its memory: no other node uses them",
      `${lockspace} f12.7  file locks of inode 12, master node1`,
    ]);
    expect(joinClusterLocks([])).toMatchObject({ resources: [], files: [], missing: [] });
  });
});

describe("a process of this machine", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "open-path-"));
  });
  afterEach(() => {
    rmSync(dir, { recursive: true, force: true });
  });

  it("has a path for what it has open in that mount; none for what it has not, up to a limit of descriptors", () => {
    const [open, closed] = [path.join(dir, "open"), path.join(dir, "closed")];
    for (const file of [open, closed]) writeFileSync(file, "");
    openSync(open, "r");
    const ino = (file: string): string => statSync(file, { bigint: true }).ino.toString();
    const mounts = mountTable();
    expect(openPath(process.pid, ino(open), mounts)).toBe(open);
    expect(openPath(process.pid, ino(closed), mounts)).toBeNull();
    expect(openPath(process.pid, ino(open), [])).toBeNull();
    expect(openPath(process.pid, ino(open), mounts, 0)).toBeNull();
    expect(MAX_DESCRIPTORS_LOOKED_AT).toBeGreaterThan(1024);
  });

  it("has a program and threads; one that ended has none", () => {
    expect(programOf(process.pid)).not.toBe("");
    expect(threadsOf(process.pid)).toContain(process.pid);
    // Above every pid_max.
    expect(programOf(2 ** 31)).toBe("");
    expect(threadsOf(2 ** 31)).toEqual([2 ** 31]);
    expect(openPath(2 ** 31, "1", mountTable())).toBeNull();
  });
});

it("names so many processes that hold up an unmount, and counts the others", () => {
  const holders = Array.from({ length: MAX_NAMED_HOLDERS + 2 }, (_, at) => ({
    pid: at + 1,
    program: "sh",
    namespace: "mnt:[4]",
    mountPoint: "/data",
  }));
  expect(holderWords(holders.slice(0, 1))).toBe("process 1 (sh) at /data in mount namespace mnt:[4]");
  expect(holderWords(holders)).toMatch(/process 8 \(sh\) at \/data in mount namespace mnt:\[4\], and 2 more$/);
});
