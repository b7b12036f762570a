/** H13: an owner's overlay that stands still, or whose disk hangs, while calls of other nodes wait for its answer and nobody wants a lock of it. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { processRef } from "../../overlay/lab/processes.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, untilWaiting } from "./actor.ts";
import { noHang } from "./hung-disk.ts";
import { coverlay, logOf, startLab, type TestLab } from "./lab.ts";
import { rolesOf } from "./role.ts";

const LIMIT_MS = 8000;
const LONG_MS = 120_000;

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(LIMIT_MS) } });
});
afterEach(() => endActors());
afterAll(() => lab?.end());

it("a disk that hangs ends no owner: it lives, and says so, for as long as others wait for it", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  const [owner, near, far] = await rolesOf(lab);
  const { pid } = await queryOverlayStatus(lab.node(owner).runDir);
  const writer = startActor({ cwd: lab.node(near).mount });
  await writer.run(`put("big", "x" * 8000000); fd = os.open("big", os.O_RDWR); os.fsync(fd)`, {}, LONG_MS);
  await lab.lab("hang", `node${owner}`);
  const waits = writer.run<string>(`result = code(lambda: (os.pwrite(fd, b"y" * 65536, 0), os.fsync(fd)))`, {}, LONG_MS);
  await untilWaiting(writer);
  await sleep(3 * LIMIT_MS);
  const { ownerWait } = await queryOverlayStatus(lab.node(near).runDir);
  expect(ownerWait).toMatch(/the owner has not answered: .*fsync/);
  expect([await lab.owner(), (await queryOverlayStatus(lab.node(owner).runDir)).pid]).toEqual([owner, pid]);
  await lab.lab("unhang", `node${owner}`);
  expect(await waits).toBe("ok");
  const reader = startActor({ cwd: lab.node(far).mount });
  expect(await reader.run<string>(`result = get("big")[:3]`)).toBe("yyy");
});

it("an overlay that stands still is ended by its dlmd, and the calls go on with another node", async () => {
  const [owner, near, far] = await rolesOf(lab);
  const { pid } = await queryOverlayStatus(lab.node(owner).runDir);
  const one = startActor({ cwd: lab.node(near).mount });
  const other = startActor({ cwd: lab.node(far).mount });
  const reader = startActor({ cwd: lab.node(far).mount });
  // All three have begun.
  for (const actor of [one, other, reader]) await actor.run(`pass`);
  await lab.lab("stall", `node${owner}`, "--what", "overlay");
  // Neither asks for a lock that the owner's node has: all that they wait for is its answer.
  const answers = [one, other].map((actor) => actor.run<string>(`result = code(os.stat, "nobody-made-it")`, {}, LONG_MS));
  for (const actor of [one, other]) await untilWaiting(actor);
  expect((await lab.status()).find(({ nodeid }) => nodeid === owner)?.stalled).toEqual(["overlay"]);
  // What a node has read it answers without the owner.
  expect(await reader.run<string>(`result = get("big")[:3]`)).toBe("yyy");
  expect(await Promise.all(answers)).toEqual(["ENOENT", "ENOENT"]);
  expect([near, far]).toContain(await lab.owner());
  expect(processRef(pid)).toBeNull();
  expect(readFileSync(`${path.dirname(lab.node(owner).runDir)}/dlmd.log`, "utf8")).toMatch(
    /not answered a blocking AST for \S+ owner-alive/,
  );
  await lab.start(owner);
  const back = startActor({ cwd: lab.node(owner).mount });
  expect(await back.run<string>(`put("back", "x"); result = get("big")[:3]`)).toBe("yyy");
});

it("an owner whose disk hangs is fenced by a person: the calls go on with another node, and the disk is clean", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  const [owner, near, far] = await rolesOf(lab);
  const [one, other] = [near, far].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor];
  const calls = ([actor, name]: [Actor, string]): Promise<string[]> =>
    actor.run(`result = [code(os.pwrite, fd, b" anew", 6), code(os.fsync, fd)]`, { name }, LONG_MS);
  const programs: [Actor, string][] = [
    [one, "first"],
    [other, "second"],
  ];
  for (const [actor, name] of programs)
    await actor.run(`put(name, "synced"); fd = os.open(name, os.O_RDWR); os.fsync(fd); os.fsync(os.open(".", os.O_RDONLY))`, { name });
  await lab.lab("hang", `node${owner}`);
  const underWay = programs.map(calls);
  for (const [actor] of programs) await untilWaiting(actor);
  const { runDir } = lab.node(near);
  expect((await queryOverlayStatus(runDir))["role"]).toBe("remote");
  const fence = await coverlay(["fence", `node${owner}`, "--yes", "--run-dir", runDir]);
  expect([fence.status, fence.stdout]).toEqual([0, expect.stringMatching(new RegExp(`node${owner} .*fenced`))]);
  // A change that the owner had been sent, and had not answered, may be on its disk or not.
  for (const said of (await Promise.all(underWay)).flat()) expect(["ok", "EIO"]).toContain(said);
  for (const program of programs) expect(await calls(program)).toEqual(["ok", "ok"]);
  const next = await lab.owner();
  expect([near, far]).toContain(next);
  // The lab's agent lets the disk answer before it cuts it (overlay/lab/power.ts): an owner that was put out may let go of it by itself meanwhile.
  expect(logOf(lab, next)).toMatch(/lower mounted epoch=\d+ .*proof=(fenced|released)/);
  const history = await coverlay(["fence", "history", "--run-dir", runDir]);
  expect(history.stdout).toMatch(new RegExp(`node${owner} .*fenced`));
  for (const [actor] of programs) expect(await actor.run(`result = [get("first"), get("second")]`)).toEqual(Array(2).fill("synced anew"));
  endActors();
  for (const [actor] of programs) await actor.ended;
  // The vote of the one that was fenced counts: the lock managers stay.
  for (const nodeid of [near, far]) await lab.unmount(nodeid);
  expect((await run("e2fsck", ["-fn", labFiles(lab.dir).image])).status).toBe(0);
});
