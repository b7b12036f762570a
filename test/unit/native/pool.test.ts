/** Pools: the same answers as on the thread, and that what is blocked in one never holds another (hazard F3). */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { STATFS } from "../../../native/index.ts";
import { bytes, errno, isRoot, native, newHandle, newStat, opened, type Scratch, useScratch } from "./scratch.ts";

const addon = fileURLToPath(new URL("../../../native/build/Release/coverlay.node", import.meta.url));
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const S_IFIFO = 0o010000;
const BLOCKED = 64;
/** preadv2 at this offset uses the current position, which a FIFO needs. */
const CURRENT = -1;
/** Nothing else runs as that user. */
const UNUSED_UID = 60_123;

function fifo(scratch: Scratch, name: string): number {
  expect(native.sync.mknod(scratch.fd, bytes(name), S_IFIFO | 0o600, 0, 0, 0, 0, 0)).toBe(0);
  return opened(scratch, native.sync.openat2(scratch.fd, bytes(name), O_RDWR, 0, 0));
}

describe.runIf(isRoot)("pools", () => {
  const scratch = useScratch();
  const { sync, pool } = native;

  it("give what the same call gives on the thread", async () => {
    writeFileSync(path.join(scratch.dir, "a"), "hello");
    for (const calls of [pool.metadata, pool.data, pool.sync]) {
      const stats = [newStat(), newStat()] as const;
      const handles = [newHandle(), newHandle()] as const;
      expect(await calls.lookup(scratch.fd, bytes("a"), false, stats[0], handles[0])).toBe(
        sync.lookup(scratch.fd, bytes("a"), false, stats[1], handles[1]),
      );
      expect(stats[0]).toEqual(stats[1]);
      expect(stats[0].some((value) => value !== 0)).toBe(true);
      const used = 8 + handles[1].readUInt32LE(0);
      expect(handles[0].subarray(0, used)).toEqual(handles[1].subarray(0, used));
      const fd = opened(scratch, await calls.openByHandle(scratch.fd, handles[0], 0));
      const buffer = Buffer.alloc(8);
      expect(await calls.read(fd, buffer, 1, 7, 0, 0)).toBe(5);
      expect(buffer.toString()).toBe("\0hello\0\0");
      const statfs = [new Float64Array(STATFS.FIELDS), new Float64Array(STATFS.FIELDS)] as const;
      expect(await calls.statfs(fd, statfs[0])).toBe(sync.statfs(fd, statfs[1]));
      expect(statfs[0][STATFS.BLOCKS]).toBe(statfs[1][STATFS.BLOCKS]);
    }
  });

  it("give the same errors, and leave the results alone then", async () => {
    const stat = newStat().fill(7);
    expect(await pool.metadata.stat(-1, stat)).toBe(-errno.EBADF);
    expect(stat.every((value) => value === 7)).toBe(true);
    expect(await pool.metadata.openat2(scratch.fd, Buffer.alloc(5000, 0x61), 0, 0, 0)).toBe(-errno.ENAMETOOLONG);
    expect(await pool.data.read(scratch.fd, Buffer.alloc(4), 0, 5, 0, 0)).toBe(-errno.EFAULT);
    expect(await pool.metadata.openByHandle(scratch.fd, Buffer.alloc(2), 0)).toBe(-errno.EINVAL);
  });

  it("take names by value: the buffer may change at once", async () => {
    writeFileSync(path.join(scratch.dir, "a"), "hello");
    const name = bytes("a");
    const answer = pool.metadata.lookup(scratch.fd, name, false, newStat(), newHandle());
    name.fill(0x7a);
    expect(await answer).toBe(0);
  });

  it("answer many calls, each its own", async () => {
    const names = Array.from({ length: 500 }, (_, index) => `n${index}`);
    const made = await Promise.all(names.map((name) => pool.metadata.mkdir(scratch.fd, bytes(name), 0o700, 0, 0, 0)));
    expect(made.every((result) => result === 0)).toBe(true);
    const again = await Promise.all(names.map((name) => pool.metadata.mkdir(scratch.fd, bytes(name), 0o700, 0, 0, 0)));
    expect(again.every((result) => result === -errno.EEXIST)).toBe(true);
  });

  it("do not wait for each other: 64 blocked reads hold neither metadata, sync nor notifications", async () => {
    const pipe = fifo(scratch, "pipe");
    const blocked = Array.from({ length: BLOCKED }, () => pool.data.read(pipe, Buffer.alloc(1), 0, 1, CURRENT, 0));
    const free = [pool.metadata.stat(pipe, newStat()), pool.sync.syncfs(scratch.fd), native.notify(pipe, [])];
    expect(await Promise.all(free)).toEqual([0, 0, []]);
    expect(sync.write(pipe, Buffer.alloc(BLOCKED), 0, BLOCKED, CURRENT, 0)).toBe(BLOCKED);
    expect(await Promise.all(blocked)).toEqual(Array.from({ length: BLOCKED }, () => 1));
  });

  it("a notification for which no thread can be made is written when one can", async () => {
    chmodSync(scratch.dir, 0o755);
    for (const name of ["full", "other"]) {
      fifo(scratch, name);
      chmodSync(path.join(scratch.dir, name), 0o666);
    }
    const script = `
      const { readdirSync, readSync } = require("node:fs");
      const n = require(${JSON.stringify(addon)});
      const fill = n.open("full", ${O_RDWR | O_NONBLOCK}, 0);
      const page = Buffer.alloc(4096);
      while (n.sync.write(fill, page, 0, page.length, ${CURRENT}, 0) > 0) continue;
      n.notify(n.open("full", ${O_RDWR}, 0), [page]);
      const other = n.open("other", ${O_RDWR}, 0);
      const threads = () => readdirSync("/proc/self/task").length;
      const before = threads();
      console.log("ready");
      readSync(0, Buffer.alloc(1));
      n.notify(other, [Buffer.from("a")]).then((results) => { console.log("written", results.join()); process.exit(0); });
      console.log("asked", threads() - before);`;
    // A limit counts for others than root.
    const user = { uid: UNUSED_UID, gid: UNUSED_UID };
    const child = spawn(process.execPath, ["-e", script], { ...user, cwd: scratch.dir, stdio: ["pipe", "pipe", "inherit"] });
    scratch.later(() => child.kill("SIGKILL"));
    const limit = (threads: string): Buffer => execFileSync("prlimit", ["--pid", String(child.pid), `--nproc=${threads}:`], user);
    const lines = createInterface({ input: child.stdout });
    const said = async (): Promise<unknown> => (await once(lines, "line"))[0];
    expect(await said()).toBe("ready");
    limit("1");
    child.stdin.write("\n");
    expect(await said()).toBe("asked 0");
    limit("1000");
    expect(await said()).toBe("written 0");
  });

  it("64 blocked notifications do not hold another", async () => {
    const full = fifo(scratch, "full");
    const filler = opened(scratch, sync.openat2(scratch.fd, bytes("full"), O_RDWR | O_NONBLOCK, 0, 0));
    const page = Buffer.alloc(4096);
    while (sync.write(filler, page, 0, page.length, CURRENT, 0) > 0) continue;
    const blocked = Array.from({ length: BLOCKED }, () => native.notify(full, [page]));
    let settled = 0;
    for (const each of blocked) void each.then(() => settled++);

    const other = fifo(scratch, "other");
    expect(await native.notify(other, [bytes("a"), bytes("bc")])).toEqual([0, 0]);
    const read = Buffer.alloc(8);
    expect(sync.read(other, read, 0, 8, CURRENT, 0)).toBe(3);
    expect(read.toString("utf8", 0, 3)).toBe("abc");
    expect(settled).toBe(0);

    const drain = Buffer.alloc(1 << 20);
    const results: number[][] = [];
    const done = Promise.all(blocked.map(async (each) => results.push(await each)));
    while (results.length < BLOCKED) {
      sync.read(filler, drain, 0, drain.length, CURRENT, 0);
      await native.notify(other, [bytes("x")]);
      sync.read(other, drain, 0, drain.length, CURRENT, 0);
    }
    await done;
    expect(results).toEqual(Array.from({ length: BLOCKED }, () => [0]));
  });

  it("notifications are written in order, each with its own result", async () => {
    const file = opened(scratch, sync.create(scratch.fd, bytes("f"), O_RDWR, 0o600, 0, 0, 0, newStat(), newHandle()));
    expect(await native.notify(file, ["one,", "two,", "three"].map(bytes))).toEqual([0, 0, 0]);
    const read = Buffer.alloc(32);
    expect(read.toString("utf8", 0, sync.read(file, read, 0, 32, 0, 0))).toBe("one,two,three");
    expect(await native.notify(-1, [bytes("a"), bytes("b")])).toEqual([-errno.EBADF, -errno.EBADF]);
  });

  it("threads cannot be changed once in use", async () => {
    await pool.metadata.stat(scratch.fd, newStat());
    expect(() => native.setPoolThreads(8, 8, 8)).toThrow("already in use");
    expect(() => native.setPoolThreads(0, 8, 8)).toThrow(RangeError);
  });
});

describe("a process with pools", () => {
  function run(script: string): { status: number | null; stdout: string } {
    const prelude = `const n = require(${JSON.stringify(addon)});
      const fd = n.open("/", 0, 0); const stat = new Float64Array(20);`;
    return spawnSync(process.execPath, ["-e", prelude + script], { encoding: "utf8", timeout: 20_000 });
  }

  it("lives until its calls are answered, then ends", () => {
    const result = run(`n.setPoolThreads(2, 2, 2); n.pool.metadata.stat(fd, stat).then((r) => console.log("answered", r, stat[1] > 0));`);
    expect([result.status, result.stdout]).toEqual([0, "answered 0 true\n"]);
  });

  it("may end while a call is blocked", () => {
    const result = run(`const { execFileSync } = require("child_process"); const os = require("os"); const fs = require("fs");
      const dir = fs.mkdtempSync(os.tmpdir() + "/coverlay-native-"); execFileSync("mkfifo", [dir + "/p"]);
      const p = n.open(dir + "/p", 2, 0); fs.rmSync(dir, { recursive: true });
      n.pool.data.read(p, Buffer.alloc(8), 0, 8, -1, 0); n.pool.metadata.stat(fd, stat).then(() => { console.log("bye"); process.exit(5); });`);
    expect([result.status, result.stdout]).toEqual([5, "bye\n"]);
  });

  it("runs what awaits an answer before the next answer", () => {
    // One thread, and a last job that tells the main thread, blocked meanwhile, that the others are done.
    const result = run(`const { execFileSync } = require("child_process"); const os = require("os"); const fs = require("fs");
      const dir = fs.mkdtempSync(os.tmpdir() + "/coverlay-native-"); execFileSync("mkfifo", [dir + "/p"]);
      const p = n.open(dir + "/p", 2, 0); fs.rmSync(dir, { recursive: true });
      n.setPoolThreads(1, 1, 1); const order = [];
      const one = async (name) => { await n.pool.sync.stat(fd, stat); order.push(name + 1); await null; await null; order.push(name + 2); };
      const all = [one("a"), one("b"), one("c"), n.pool.sync.write(p, Buffer.alloc(1), 0, 1, -1, 0)];
      n.sync.read(p, Buffer.alloc(1), 0, 1, -1, 0);
      Promise.all(all).then(() => console.log(order.join(" ")));`);
    expect([result.status, result.stdout]).toEqual([0, "a1 a2 b1 b2 c1 c2\n"]);
  });

  it("works in a worker thread, and when that ends in the middle of a call", () => {
    const worker = `const n = require(${JSON.stringify(addon)}); const s = new Float64Array(20); const fd = n.open("/", 0, 0);
      n.pool.data.stat(fd, s).then((r) => { console.log("worker", r); n.pool.data.stat(fd, s); n.notify(fd, [Buffer.alloc(1)]); process.exit(3); });`;
    const result = run(`const { Worker } = require("worker_threads");
      const code = ${JSON.stringify(worker)};
      new Worker(code, { eval: true }).on("exit", (c) => n.pool.data.stat(fd, stat).then((r) => console.log("main", r, c)));`);
    expect([result.status, result.stdout]).toEqual([0, "worker 0\nmain 0 3\n"]);
  });

  it("goes on when a worker is ended while it asks", () => {
    const worker = `const n = require(${JSON.stringify(addon)}); const s = new Float64Array(20);
      require("worker_threads").parentPort.postMessage("asks");
      for (;;) { n.pool.metadata.stat(-1, s); n.notify(-1, []); n.mountDetachedInPool("no-fs", "", [], 0, []); }`;
    const result = run(`const { Worker } = require("worker_threads"); const { once } = require("events");
      (async () => {
        for (let more = 10; more > 0; more--) {
          const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
          await once(worker, "message");
          await new Promise((resolve) => setTimeout(resolve, 5));
          await worker.terminate();
        }
        console.log("goes on", await n.pool.data.stat(fd, stat));
      })();`);
    expect([result.status, result.stdout]).toEqual([0, "goes on 0\n"]);
  });

  it("does not begin what a worker has asked for with its memory, once that has ended", () => {
    const worker = `const n = require(${JSON.stringify(addon)}); const { workerData, parentPort } = require("worker_threads");
      for (const fd of workerData) n.pool.data.read(fd, Buffer.alloc(8), 0, 8, ${CURRENT}, 0);
      parentPort.postMessage("asked");`;
    // One thread, which waits for "a"; what is asked of "b" is in the queue until then.
    const result = run(`const { Worker } = require("worker_threads"); const { once } = require("events");
      const { execFileSync } = require("child_process"); const os = require("os"); const fs = require("fs");
      const dir = fs.mkdtempSync(os.tmpdir() + "/coverlay-native-"); execFileSync("mkfifo", [dir + "/a", dir + "/b"]);
      const [a, b] = ["a", "b"].map((name) => n.open(dir + "/" + name, ${O_RDWR | O_NONBLOCK}, 0));
      const waits = n.open(dir + "/a", ${O_RDWR}, 0); fs.rmSync(dir, { recursive: true });
      n.setPoolThreads(1, 1, 1);
      n.sync.write(b, Buffer.alloc(8), 0, 8, ${CURRENT}, 0);
      (async () => {
        const worker = new Worker(${JSON.stringify(worker)}, { eval: true, workerData: [waits, b] });
        await once(worker, "message");
        await worker.terminate();
        n.sync.write(a, Buffer.alloc(8), 0, 8, ${CURRENT}, 0);
        await n.pool.data.stat(fd, stat);
        console.log(n.sync.read(b, Buffer.alloc(8), 0, 8, ${CURRENT}, 0));
      })();`);
    expect([result.status, result.stdout]).toEqual([0, "8\n"]);
  });

  it("have threads for the own mount that keep nothing open but what wakes the loop, whichever environment asks", () => {
    const script = `
      const { Worker } = require("node:worker_threads");
      const { readdirSync, readlinkSync } = require("node:fs");
      const n = require(${JSON.stringify(addon)});
      const look = (m) => m.pool.own.lookOwnSize(Buffer.from("/"), 2 ** 20 - 1, 1, 0, 0, 0, 0);
      const opened = () => readdirSync("/proc/self/task").map((tid) => {
        const fds = "/proc/self/task/" + tid + "/fd/";
        // What lists them is closed by now.
        const name = (fd) => { try { return [readlinkSync(fds + fd)]; } catch { return []; } };
        return readdirSync(fds).flatMap(name).join();
      });
      look(n).then(async (first) => {
        console.log("main", first, opened().filter((files) => files === "anon_inode:[eventfd]").length);
        const code = "const n = require(" + JSON.stringify(${JSON.stringify(addon)}) + "); (" + look + ")(n).then((r) => console.log('worker', r));";
        const worker = new Worker(code, { eval: true });
        const ended = new Promise((resolve) => worker.on("exit", resolve));
        console.log("beside", await look(n), await ended, await look(n));
      });`;
    const { stdout, stderr } = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 20_000 });
    expect(stderr).toBe("");
    expect(stdout.trim().split("\n").sort()).toEqual([
      `beside ${-errno.EXDEV} 0 ${-errno.EXDEV}`,
      `main ${-errno.EXDEV} 1`,
      `worker ${-errno.EXDEV}`,
    ]);
  });
});
