/**
 * H13: an overlay that stands still just while it takes the owner's role, or gives it up, or keeps another one from it. Nobody is the owner then, and no
 * mount has a limit for its inodes' locks. One that only waits for its disk meanwhile goes on.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { processRef } from "../../overlay/lab/processes.ts";
import { decodeClusterLocks } from "../../overlay/query/cluster-locks.ts";
import { askCluster } from "../../overlay/query/dlmd-query.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { noHang } from "./hung-disk.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";
import { rolesOf } from "./role.ts";

const LIMIT_MS = 8000;
const LONG_MS = 120_000;

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(LIMIT_MS) } });
});
afterEach(() => endActors());
afterAll(() => lab?.end());

const pidOf = async (nodeid: number): Promise<number> => (await queryOverlayStatus(lab.node(nodeid).runDir)).pid;

/** What those of that node's locks that are granted on a resource of the election say: "EX", "CR -> EX". */
async function held(nodeid: number, resource: string): Promise<string[]> {
  const { answer } = await askCluster(lab.node(1).runDir, () => ({ lockspace: "", resource, nodeid: 0, waitingMs: null }));
  const rows = decodeClusterLocks(answer).resources.flatMap(({ grantQueue, convertQueue }) => [...grantQueue, ...convertQueue]);
  const modes = rows.filter((row) => row.nodeid === nodeid && row.granted !== "NL");
  return modes.map(({ granted, requested }) => `${granted}${requested === null ? "" : ` -> ${requested}`}`);
}

async function standStill(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  await until("it stands still", () => /\) T /.test(readFileSync(`/proc/${pid}/stat`, "latin1")));
}

let names = 0;

/** A call that waits for there to be an owner: nobody knows that name. */
async function call(nodeid: number): Promise<{ readonly actor: Actor; readonly answer: Promise<string> }> {
  const actor = startActor({ cwd: lab.node(nodeid).mount });
  names += 1;
  const answer = actor.run<string>(`result = code(os.stat, name)`, { name: `nobody-made-it-${names}` }, LONG_MS);
  await untilWaiting(actor);
  return { actor, answer };
}

/** The one that stood still is ended by its dlmd, for that lock; and its node mounts again. */
async function expectEnded(nodeid: number, pid: number, lock: RegExp): Promise<void> {
  expect(processRef(pid)).toBeNull();
  expect(readFileSync(`${path.dirname(lab.node(nodeid).runDir)}/dlmd.log`, "utf8")).toMatch(lock);
  await lab.start(nodeid);
  const back = startActor({ cwd: lab.node(nodeid).mount });
  expect(await back.run<string>(`result = code(os.stat, "nobody-made-it")`)).toBe("ENOENT");
}

const hand = (from: number, to: number) => coverlay(["handover", "lab", `node${to}`, "--run-dir", lab.node(from).runDir]);

it("while it takes the role: it is ended, and another node takes it", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  const [owner, taker, far] = await rolesOf(lab);
  const pid = await pidOf(taker);
  // Its disk holds it where it has its turn, and has mounted nothing yet.
  await lab.lab("hang", `node${taker}`);
  const moved = hand(owner, taker);
  await until("the heir has its turn", async () => (await held(taker, "next")).includes("EX"));
  await standStill(pid);
  await lab.lab("unhang", `node${taker}`);
  const calls = [await call(owner), await call(far)];
  expect(await held(taker, "next")).toEqual(["EX"]);
  expect(await Promise.all(calls.map(({ answer }) => answer))).toEqual(["ENOENT", "ENOENT"]);
  expect([owner, far]).toContain(await lab.owner());
  await moved;
  await expectEnded(taker, pid, /not answered a blocking AST for \S+ mounts-alive \(EX is wanted\)/);
});

it("while it gives the role up: not as long as it only waits for its disk; then it is ended, and another node takes it", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  const [owner, near, far] = await rolesOf(lab);
  const pid = await pidOf(owner);
  await lab.lab("hang", `node${owner}`);
  process.kill(pid, "SIGTERM");
  await until("the disk is being released", async () => (await held(owner, "owner")).includes("EX"));
  const calls = [await call(near), await call(far)];
  // Others ask it at each of their looks, and it answers.
  await sleep(3 * LIMIT_MS);
  expect([processRef(pid) !== null, await held(owner, "owner")]).toEqual([true, ["EX"]]);
  await standStill(pid);
  await lab.lab("unhang", `node${owner}`);
  expect(await Promise.all(calls.map(({ answer }) => answer))).toEqual(["ENOENT", "ENOENT"]);
  expect([near, far]).toContain(await lab.owner());
  await expectEnded(owner, pid, /not answered a blocking AST for \S+ mounts-alive \(EX is wanted\)/);
});

it("while others move the role: it is ended, for the record that it does not give up, and the move goes on", async () => {
  const [owner, heir, far] = await rolesOf(lab);
  const pid = await pidOf(far);
  await standStill(pid);
  const moved = hand(owner, heir);
  await until("the owner waits to change the record", async () => (await held(owner, "owner")).includes("PW -> EX"));
  expect(await held(far, "owner")).toEqual(["CR"]);
  const { answer } = await call(heir);
  expect(await answer).toBe("ENOENT");
  await moved;
  expect(await lab.owner()).toBe(heir);
  await expectEnded(far, pid, /not answered a blocking AST for \S+ (owner|mounts-alive) \(EX is wanted\)/);
});
