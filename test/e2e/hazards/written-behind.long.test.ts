/** F23: a program was told that its data is written, and the owner has not taken it yet. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import { AFTER_HELD_UP_MS } from "../../../overlay/lower/local/small-writes.ts";
import { run } from "../../../overlay/lab/command.ts";
import { processRef } from "../../../overlay/lab/processes.ts";
import { WRITE_REST_MS } from "../../../overlay/serve/mount-process.ts";
import { type Actor, endActors, startActor, until, untilWaiting, untilWaitingOrEnded } from "../actor.ts";
import { startLab, type TestLab } from "../lab.ts";
import { lowerRoot } from "../lower-root.ts";
import { rolesOf } from "../role.ts";

/** One write that was held up on a busy machine, and for AFTER_HELD_UP_MS the owner says that there is no room. */
const ATTEMPTS_MS = 3 * AFTER_HELD_UP_MS;
const ROUNDS = 10;
const LONG_MS = 60_000;
/** Longer than a small frame has room for in one packet of a loopback device. */
const TEXT = "written behind ".repeat(200);

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3 });
});
let attempts = 0;
let stopped: number | null = null;
const letGo = (): void => {
  if (stopped !== null && processRef(stopped) !== null) process.kill(stopped, "SIGCONT");
  stopped = null;
};
afterEach(() => {
  letGo();
  endActors();
});
afterAll(async () => lab?.end());

const actorOn = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
const overlayOf = async (nodeid: number): Promise<number> => (await queryOverlayStatus(lab.node(nodeid).runDir)).pid;

/** Every overlay's log of that node. */
function logsOf(nodeid: number): string {
  const { runDir } = lab.node(nodeid);
  const logs = readdirSync(runDir).filter((file) => file.endsWith(".log"));
  return logs.map((file) => readFileSync(`${runDir}/${file}`, "utf8")).join("\n");
}

/** In one step: the owner's word that there is room is soon too old on a busy machine. */
const STANDS = `
def stands(pid):
    try: stats = [open("/proc/%d/task/%s/stat" % (pid, tid), encoding="latin1").read() for tid in os.listdir("/proc/%d/task" % pid)]
    except OSError: return False
    return all(stat.rpartition(") ")[2][0] == "T" for stat in stats)
`;
const STOP = `
os.kill(owner, signal.SIGSTOP)
while not stands(owner): pass
with open("/proc/self/comm", "w") as file: file.write(stood)
`;
const NEW = `fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)`;
/** It was there before; its first write is waited for, and the one behind goes on in it. */
const OLD = `fd = os.open("old", os.O_RDWR)
os.ftruncate(fd, 0)
os.pwrite(fd, b"before", 0)
os.lseek(fd, 6, os.SEEK_SET)`;

/** The owner stands still, and the program has written all the same, and done what is `next`. Gives the name. */
async function writtenBehind(owner: number, writer: Actor, next = "", file = NEW): Promise<string> {
  for (const end = Date.now() + ATTEMPTS_MS; Date.now() < end; ) {
    const name = `behind-${Date.now()}`;
    const pid = await overlayOf(owner);
    stopped = pid;
    const source = `${STANDS}${file}${STOP}result = os.write(fd, text.encode())\n${next}`;
    // The name of its process from then on: what it waits for before that may be its creation, or a page of its own program.
    const stood = `stands-${(attempts += 1)}`;
    const wrote = writer.run<number>(source, { name, owner: pid, text: TEXT, stood }, LONG_MS);
    await until("the owner stands still", () => readFileSync(`/proc/${writer.pid}/comm`, "utf8") === `${stood}\n`);
    const count = await untilWaitingOrEnded(writer, wrote);
    if (count === TEXT.length) return name;
    // The owner's word that there is room was too old all the same, or it has said no: then the program waits.
    letGo();
    await wrote;
  }
  throw new Error("each write was waited for");
}

it("other nodes see it as soon as its program does, though the owner had not taken it", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const [writer, reader] = [actorOn(near), actorOn(far)];
  for (let round = 0; round < ROUNDS; round += 1) {
    const name = await writtenBehind(owner, writer);
    const reads = reader.run<string>(`result = get(name)`, { name }, LONG_MS);
    await untilWaiting(reader);
    letGo();
    expect(await reads).toBe(TEXT);
    const here = await writer.run<[number, number, string]>(
      `result = [os.fstat(fd).st_size, os.stat(name).st_size, os.pread(fd, 1 << 20, 0).decode()]\nos.close(fd)`,
    );
    expect(here).toEqual([TEXT.length, TEXT.length, TEXT]);
  }
});

it("in a file that was there before, too: other nodes see it, and what is written through another descriptor of the node comes after it", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const [writer, after, reader] = [actorOn(near), actorOn(near), actorOn(far)];
  await reader.run(`put("old", "old")`);
  for (let round = 0; round < ROUNDS; round += 1) {
    await writtenBehind(owner, writer, "", OLD);
    const wrote = after.run(`fd = os.open("old", os.O_WRONLY)\nos.pwrite(fd, b"AFTER", 4)\nos.close(fd)`, {}, LONG_MS);
    await untilWaiting(after);
    const reads = reader.run<string>(`result = get("old")`, {}, LONG_MS);
    await untilWaiting(reader);
    letGo();
    await wrote;
    const seen = `befoAFTER${TEXT.slice(3)}`;
    expect([`before${TEXT}`, seen]).toContain(await reads);
    expect(await writer.run<[number, string]>(`result = [os.fstat(fd).st_size, os.pread(fd, 1 << 20, 0).decode()]\nos.close(fd)`)).toEqual([
      seen.length,
      seen,
    ]);
    expect(await reader.run<string>(`result = get("old")`)).toBe(seen);
  }
});

it("what its program does next comes after it: truncation, another write, a rename, an unlink", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const writer = actorOn(near);
  const reader = actorOn(far);
  for (const [next, seen] of [
    [`os.ftruncate(fd, 3)`, TEXT.slice(0, 3)],
    [`os.pwrite(fd, b"W", 0)`, `W${TEXT.slice(1)}`],
    [`os.rename(name, name + ".moved")`, null],
    [`os.unlink(name)`, null],
    [`os.fsync(fd)`, TEXT],
  ] as const) {
    const name = await writtenBehind(owner, writer);
    const done = writer.run<string>(`result = code(lambda: ${next})`, {}, LONG_MS);
    await untilWaitingOrEnded(writer, done);
    letGo();
    expect([next, await done]).toEqual([next, "ok"]);
    expect([next, await reader.run<string | null>(`result = get(name) if os.path.exists(name) else None`, { name })]).toEqual([next, seen]);
    expect(await writer.run<string>(`result = os.pread(fd, 1 << 20, 0).decode()\nos.close(fd)`)).toBe(seen ?? TEXT);
  }
});

it("its owner, mode and times too, though the owner of the volume has taken none of it: other nodes see all of it", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const [writer, reader] = [actorOn(near), actorOn(far)];
  const name = await writtenBehind(owner, writer, `os.utime(fd, (1, 2))\nos.fchown(fd, 3, 4)\nos.fchmod(fd, 0o640)`);
  const look = `at = os.stat(name)\nresult = [at.st_size, at.st_mode & 0o7777, at.st_uid, at.st_gid, at.st_mtime]`;
  const reads = reader.run<number[]>(look, { name }, LONG_MS);
  await untilWaiting(reader);
  letGo();
  const seen = [TEXT.length, 0o640, 3, 4, 2];
  expect(await reads).toEqual(seen);
  expect(await writer.run<number[]>(look, { name })).toEqual(seen);
});

it("an unmount waits for it", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const writer = actorOn(near);
  const name = await writtenBehind(owner, writer);
  const overlay = await overlayOf(near);
  endActors();
  await writer.ended;
  const unmounted = lab.unmount(near);
  await until("the kernel has unmounted it", () => logsOf(near).includes("unmounted"));
  expect(processRef(overlay)).not.toBeNull();
  letGo();
  await unmounted;
  await until("its overlay has ended", () => processRef(overlay) === null);
  expect(await actorOn(far).run<string>(`result = get(name)`, { name })).toBe(TEXT);
  expect(logsOf(near)).not.toMatch(/is lost/);
  await lab.stop(near);
  await lab.start(near);
});

it("an unmount ends after a while, and says what is lost; it is not written over what another node writes then", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const writer = actorOn(near);
  const name = await writtenBehind(owner, writer);
  const overlay = await overlayOf(near);
  endActors();
  await writer.ended;
  const later = actorOn(far);
  const from = Date.now();
  const unmounted = lab.unmount(near);
  await until("its overlay has ended", () => processRef(overlay) === null);
  expect(Date.now() - from).toBeGreaterThanOrEqual(WRITE_REST_MS - 100);
  expect(logsOf(near)).toMatch(/the owner has not taken all that was written: that is lost/);
  await unmounted;
  const anew = later.run<string>(`put(name, "anew", os.O_WRONLY | os.O_TRUNC)\nresult = get(name)`, { name }, LONG_MS);
  await untilWaiting(later);
  letGo();
  expect(await anew).toBe("anew");
  await lab.stop(near);
  await lab.start(near);
  expect(await actorOn(near).run<string>(`result = get(name)`, { name })).toBe("anew");
});

it("the owner's node dies: fsync says EIO, and all nodes see the same file", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const writer = actorOn(near);
  const root = lowerRoot(lab, owner);
  const name = await writtenBehind(owner, writer);
  // The name stays, and the data is not there yet.
  expect(await run("sync", ["--file-system", root])).toMatchObject({ status: 0 });
  await lab.kill(owner);
  stopped = null;
  expect(await writer.run<string>(`result = code(os.fsync, fd)`, {}, LONG_MS)).toBe("EIO");
  const look = `result = get(name) if os.path.exists(name) else None`;
  const here = await writer.run<string | null>(look, { name }, LONG_MS);
  expect(await actorOn(far).run<string | null>(look, { name }, LONG_MS)).toBe(here);
  expect(here).toBe("");
  expect(await lab.owner()).not.toBe(owner);
});
