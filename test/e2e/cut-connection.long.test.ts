/**
 * The connection between two overlays is cut without a word (hazard H13): packets of the owner's port are dropped in a node's namespace, and the lock
 * managers go on. What waits goes on when the cut ends; while it lasts, others are not kept waiting; a disk that hangs is no cut.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { CLOSE_WAIT_MS } from "../../overlay/lower/remote/closes.ts";
import { DEAD_MS } from "../../overlay/lower/wire/heartbeat.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";
import { lowerRoot } from "./lower-root.ts";
import { FROZEN, untilWaitingIn } from "./owner-lower.ts";

/** For answers to blocking ASTs: short, because a disk hangs for longer here. */
const LIMIT_MS = 4000;
const HANG_MS = 3 * DEAD_MS;

let lab: TestLab;
let owner = 0;
let near = 0;
let far = 0;
const frozen: string[] = [];

beforeAll(async () => {
  lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(LIMIT_MS) } });
  owner = await lab.owner();
  [near, far] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
});
afterEach(async () => {
  for (const root of frozen.splice(0)) await run("fsfreeze", ["--unfreeze", root]);
  await nft("delete table inet cut");
  endActors();
});
afterAll(async () => {
  await lab?.end();
});

/** By then the owner has been told of what was closed (hazard F31): no call of that waits beside the one that is looked for. */
const CLOSES_TOLD_MS = 10 * CLOSE_WAIT_MS;

const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });

async function ownerWait(nodeid: number): Promise<string> {
  const { ownerWait: words, why } = await queryOverlayStatus(lab.node(nodeid).runDir);
  // Each says for how long, and a tenth of a second may pass between them.
  const timeless = (text: unknown): string => String(text).replaceAll(/\d+(\.\d+)? s/g, "s");
  expect(timeless(why)).toContain(timeless(words ?? "through"));
  return String(words);
}

/** A write of the near node, and nothing before it, waits at the owner or for it: it has its lock then. */
async function untilWriteWaits(): Promise<void> {
  let words = "";
  const isTold = async (): Promise<boolean> => /1 call waits, a write for/.test((words = await ownerWait(near)));
  await until("it is told that the write waits", isTold, () => words);
}

/** In a namespace, and not in a mount as `lab exec`: that would wait, too. */
async function nft(rules: string): Promise<number | null> {
  return (await run("nsenter", netnsArguments(lab.node(near).netns, ["nft", "-f", "-"]), { input: rules })).status;
}

/** What comes from the owner's overlay is dropped from now on, and no reset is sent. */
async function cut(): Promise<void> {
  const { owner: record } = await queryOverlayStatus(lab.node(near).runDir);
  const { port } = record as { port: number };
  expect(await nft(`table inet cut { chain input { type filter hook input priority 0; tcp sport ${port} drop; }; }\n`)).toBe(0);
}

async function freeze(option: "--freeze" | "--unfreeze", root: string): Promise<void> {
  expect(await run("fsfreeze", [option, root])).toMatchObject({ status: 0 });
}

it("a change whose answer was lost in the cut goes on when the cut ends, and is made once", async () => {
  const program = on(near);
  await program.run(`os.mkdir("before")`);
  await cut();
  // No name was given there before, so nothing but the change itself goes to the owner.
  const made = program.run<string>(`result = code(os.mkdir, "before/once")`, {}, 120_000);
  await untilWaiting(program);
  await until("the connection has ended", async () => (await ownerWait(near)).startsWith("no connection to the owner"));
  let words = "";
  const isOutOfReach = async (): Promise<boolean> => (words = await ownerWait(near)).includes("the owner's host does not answer): ");
  await until("it is known that the owner can not be reached", isOutOfReach, () => words);
  await nft("delete table inet cut");
  expect(await made).toBe("ok");
  expect(await ownerWait(near)).toBe("null");
  expect(await on(far).run(`result = os.listdir("before")`)).toEqual(["once"]);
});

it(
  "an owner whose disk hangs for half a minute is waited for: nothing ends, and all goes on",
  async () => {
    const [writer, maker, reader] = [on(near), on(near), on(far)];
    // Without O_DSYNC it might be written behind (F23), and then the program would not wait.
    await writer.run(`put("slow", ""); fd = os.open("slow", os.O_RDWR | os.O_DSYNC); os.pwrite(fd, b"before", 0)`);
    await sleep(CLOSES_TOLD_MS);
    await reader.run(`fd = os.open("slow", os.O_RDONLY); result = os.fstat(fd).st_size`);
    const root = lowerRoot(lab, owner);
    frozen.push(root);
    await freeze("--freeze", root);
    const began = performance.now();
    const written = writer.run<string>(`result = code(os.pwrite, fd, b"during it", 0)`, {}, 180_000);
    // With its lock: before that, the reader would be answered by what its kernel has, or by what the owner has.
    await untilWriteWaits();
    const made = maker.run<string>(`result = code(os.mkdir, "slowly")`, {}, 180_000);
    await untilWaiting(maker);
    // A lock that the write keeps is wanted, for longer than the limit.
    const size = reader.run<number>(`result = os.fstat(fd).st_size`, {}, 180_000);
    await untilWaiting(reader);
    await sleep(HANG_MS - (performance.now() - began));
    expect([1, 2, 3].filter((nodeid) => lab.overlayPid(nodeid) !== null)).toEqual([1, 2, 3]);
    await freeze("--unfreeze", root);
    frozen.pop();
    expect(await Promise.all([written, made])).toEqual(["ok", "ok"]);
    expect(await size).toBe(9);
    expect(await on(far).run(`result = [get("slow"), os.path.isdir("slowly")]`)).toEqual(["during it", true]);
    expect(await lab.owner()).toBe(owner);
  },
  HANG_MS + 120_000,
);

it("an owner whose serving thread waits for its disk is waited for, though another node wants a lock of it for longer than the limit", async () => {
  const [own, wanting] = [on(owner), on(far)];
  await own.run(`os.mkdir("own")`);
  // Locks that do not concern the owner's mount.
  const others = [on(near), on(far)];
  for (const other of others)
    await other.run(`fd = os.open("others", os.O_RDWR | os.O_CREAT); fcntl.lockf(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_UN)`);
  // By a descriptor. A walk may have to ask the owner for names and attributes first, which answers nobody then: a kernel loses them when another node
  // changes a directory on the path, and all of them when the lease of its node ends for a moment. No lock of the owner's mount would be wanted.
  expect(await wanting.run(`fd = os.open("own", os.O_RDONLY); result = os.fstat(fd).st_nlink`)).toBe(2);
  await on(near).run(`os.mkdir("beside")`);
  // From here on that lock is the owner's.
  await own.run(`os.mkdir("own/before")`);
  const pid = lab.overlayPid(owner) ?? 0;
  const dlmdLog = (): string => readFileSync(path.join(lab.node(owner).runDir, "../dlmd.log"), "utf8");
  const logged = dlmdLog().length;
  const root = lowerRoot(lab, owner);
  frozen.push(root);
  await freeze("--freeze", root);
  const began = performance.now();
  // By the serving thread itself: it answers nobody from now on.
  const made = own.run<string>(`result = code(os.mkdir, "own/during")`, {}, 180_000);
  // In this call, and not for a moment in another one: before it, the lock is given to who wants it.
  await untilWaitingIn(pid, FROZEN, ["mkdirat"]);
  expect(readFileSync(`/proc/${pid}/stack`, "latin1")).toMatch(FROZEN);
  const wanted = wanting.run<number>(`result = os.fstat(fd).st_nlink`, {}, 180_000);
  await untilWaiting(wanting);
  const said = (): string => dlmdLog().slice(logged);
  await until("its dlmd has looked at it", () => said().includes("waits in the kernel"), said);
  expect(performance.now() - began).toBeGreaterThan(LIMIT_MS);
  for (const other of [...others, ...others]) await other.run(`fcntl.lockf(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_UN)`);
  await freeze("--unfreeze", root);
  frozen.pop();
  expect(await made).toBe("ok");
  // What is answered at last is what the owner has made, and no older listing.
  expect(await wanted).toBe(4);
  expect(await wanting.run(`result = sorted(os.listdir("own"))`)).toEqual(["before", "during"]);
  expect([await lab.owner(), lab.overlayPid(owner)]).toEqual([owner, pid]);
  expect(await own.run(`result = code(os.mkdir, "own/after")`)).toBe("ok");
});

it("a node that can not reach the owner keeps others from nothing: it is ended for a lock that they want", async () => {
  const [cutOff, wanting] = [on(near), on(far)];
  // Without O_DSYNC it might be written behind (F23), and then the program would not wait.
  await cutOff.run(`put("wanted", ""); fd = os.open("wanted", os.O_RDWR | os.O_DSYNC); os.pwrite(fd, b"before", 0)`);
  await sleep(CLOSES_TOLD_MS);
  await wanting.run(`fd = os.open("wanted", os.O_RDWR); result = os.fstat(fd).st_size`);
  await cutOff.run(`os.pwrite(fd, b"before", 0)`);
  await cut();
  const written = cutOff.run<string>(`result = code(os.pwrite, fd, b"during", 0)`, {}, 120_000).catch(String);
  // Without its lock it would not be what the other node waits for.
  await untilWriteWaits();
  expect(await wanting.run(`result = os.fstat(fd).st_size`, {}, DEAD_MS + 60_000)).toBe(6);
  await until("the mount has ended", async () => (await lab.status()).find(({ nodeid }) => nodeid === near)?.overlayPid === null);
  expect(await written).not.toBe("ok");
}, 120_000);
