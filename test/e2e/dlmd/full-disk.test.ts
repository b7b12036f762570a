/** A disk under the state of a node that takes nothing any more: no view hangs on it, and no stack is all that is said. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { createCluster, dlmdProgram, type TestCluster, threeWithLock, TIMEOUT_MS } from "./cluster.ts";
import { SmallDisk } from "./small-disk.ts";

/** EX_IOERR. */
const UNKEPT = 74;
let cluster: TestCluster;
let disk: SmallDisk;
beforeEach(() => {
  cluster = createCluster({ nodes: 4 });
  disk = new SmallDisk();
});
afterEach(async () => {
  try {
    await cluster.close();
  } finally {
    await disk.remove();
  }
});

/** Starts a node that is to fail, in a run directory of its own; what it said. */
function refusal(nodeid: number, ...words: string[]): string {
  const args = [
    dlmdProgram,
    "--config",
    cluster.configFile,
    "--node",
    `node${nodeid}`,
    "--metrics",
    "none",
    "--log-level",
    "error",
    ...words,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 });
  expect([stdout, status]).toEqual(["", UNKEPT]);
  return stderr;
}

test("a node that cannot keep its state leaves with words; the others go on without it, and it comes back when there is room", async () => {
  const { first, here, there, lock } = await threeWithLock(cluster, { stateDir: disk.dir });

  await disk.fillAfterView(1, 2, 3);
  // Nothing has to be stored in a view that stays.
  expect(await lock.request(Mode.NL)).toBe("granted");
  expect(await lock.request(Mode.EX)).toBe("granted");
  const joins = cluster.start(4);
  expect((await here.disconnected()).message).toContain(`this node's state cannot be kept in ${disk.dir}/state.json: ENOSPC`);
  expect(await first.exited).toBe(UNKEPT);
  await joins;
  await there.seen([2, 3, 4]);
  const taken = await there.lock("r");
  expect(await taken.request(Mode.EX)).toBe("granted");
  const last = cluster.log(1).at(-1);
  expect(last).toMatchObject({ level: "error", msg: "dlmd ends" });
  expect(last?.["hint"]).toBe(`Make room on that disk (df ${disk.dir}), and start dlmd again.`);
  expect(readdirSync(disk.dir).sort()).toEqual(["config.json", "filler", "state.json"]);

  expect(refusal(1, "--run-dir", cluster.runDir(1), "--state-dir", disk.dir)).toBe(
    `dlmd: this node's state cannot be kept in ${disk.dir}/state.json: ENOSPC: no space left on device, write\n` +
      `  Make room on that disk (df ${disk.dir}), and start dlmd again.\n`,
  );
  disk.makeRoom();
  await cluster.start(1, { stateDir: disk.dir });
  await there.seen([1, 2, 3, 4]);
}, 90_000);

test("room that comes back in time is enough", async () => {
  await Promise.all([1, 2, 3].map((nodeid) => cluster.start(nodeid, nodeid === 1 ? { stateDir: disk.dir } : {})));
  const here = await cluster.connect(1);
  await here.seen([1, 2, 3]);
  await disk.fillAfterView(1, 2, 3);
  const joins = cluster.start(4);
  const said = (words: string): boolean => cluster.log(1).some(({ msg }) => msg === words);
  await expect
    .poll(() => said("a view waits for the disk, and then this node leaves"), { timeout: TIMEOUT_MS * 5, interval: 20 })
    .toBe(true);
  disk.makeRoom();
  await joins;
  await here.seen([1, 2, 3, 4]);
  expect(said("this node's state is kept again")).toBe(true);
  expect(here.ended.reason).toBeNull();
}, 60_000);

test("a start in a full run directory says what could not be written", () => {
  mkdirSync(path.join(disk.dir, "run"), { mode: 0o700 });
  mkdirSync(path.join(disk.dir, "state"), { mode: 0o700 });
  disk.fill();
  const dirs = ["--run-dir", path.join(disk.dir, "run"), "--state-dir", cluster.dir];
  execFileSync("chmod", ["700", cluster.dir]);
  expect(refusal(1, ...dirs)).toMatch(
    /^dlmd: the lease of this node cannot be kept in .*\/run\/lease: ENOSPC.*\n {2}Make room on that disk/m,
  );
  expect(refusal(1, "--run-dir", path.join(disk.dir, "run"), "--state-dir", path.join(disk.dir, "state"))).not.toMatch(/^ +at /m);
});
