/** H13: an owner's overlay that stands still, or whose disk hangs, while calls of other nodes wait for its answer and nobody wants a lock of it. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { processRef } from "../../overlay/lab/processes.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { endActors, startActor, untilWaiting } from "./actor.ts";
import { noHang } from "./hung-disk.ts";
import { startLab, type TestLab } from "./lab.ts";

const LIMIT_MS = 8000;
const LONG_MS = 120_000;

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(LIMIT_MS) } });
});
afterEach(() => endActors());
afterAll(() => lab?.end());

async function roles(): Promise<[owner: number, near: number, far: number]> {
  const owner = await lab.owner();
  return [owner, ...([1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number])];
}

it("a disk that hangs ends no owner: it lives, and says so, for as long as others wait for it", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  const [owner, near, far] = await roles();
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
  const [owner, near, far] = await roles();
  const { pid } = await queryOverlayStatus(lab.node(owner).runDir);
  const one = startActor({ cwd: lab.node(near).mount });
  const other = startActor({ cwd: lab.node(far).mount });
  await lab.lab("stall", `node${owner}`, "--what", "overlay");
  expect((await lab.status()).find(({ nodeid }) => nodeid === owner)?.stalled).toEqual(["overlay"]);
  // Neither asks for a lock that the owner's node has: all that they wait for is its answer.
  const answers = [
    one.run<string>(`result = code(os.stat, "nobody-made-it")`, {}, LONG_MS),
    other.run<string>(`result = get("big")[:3]`, {}, LONG_MS),
  ];
  for (const actor of [one, other]) await untilWaiting(actor);
  expect(await Promise.all(answers)).toEqual(["ENOENT", "yyy"]);
  expect([near, far]).toContain(await lab.owner());
  expect(processRef(pid)).toBeNull();
  expect(readFileSync(`${path.dirname(lab.node(owner).runDir)}/dlmd.log`, "utf8")).toMatch(
    /not answered a blocking AST for \S+ owner-alive/,
  );
  await lab.start(owner);
  const back = startActor({ cwd: lab.node(owner).mount });
  expect(await back.run<string>(`put("back", "x"); result = get("big")[:3]`)).toBe("yyy");
});
