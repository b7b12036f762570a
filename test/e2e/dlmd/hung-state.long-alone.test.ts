/** A disk under the state of a node that hangs: it takes nothing, and says nothing. No view hangs on it, and the node says why it leaves. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { createCluster, type TestCluster, threeWithLock } from "./cluster.ts";
import { keptAfterView } from "./small-disk.ts";

/** EX_IOERR. */
const UNKEPT = 74;
let cluster: TestCluster;
let dir: string;
let disk: string;
const freeze = (option: "--freeze" | "--unfreeze"): void => void execFileSync("fsfreeze", [option, disk], { stdio: "pipe" });
beforeEach(() => {
  cluster = createCluster({ nodes: 4 });
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-hung-"));
  disk = path.join(dir, "disk");
  const image = path.join(dir, "image");
  mkdirSync(disk);
  writeFileSync(image, "");
  truncateSync(image, 16 << 20);
  execFileSync("mkfs.ext4", ["-q", "-F", image]);
  execFileSync("mount", ["-t", "ext4", "-o", "loop", image, disk]);
  chmodSync(disk, 0o700);
});
afterEach(async () => {
  try {
    freeze("--unfreeze");
  } catch {
    // It is not frozen.
  }
  // Those that it held up end now.
  await cluster.close().finally(() => execFileSync("umount", [disk]));
  rmSync(dir, { recursive: true });
});

test("a node whose state disk hangs leaves with words; the others go on without it, and it ends when the disk answers", async () => {
  const { first, here, there, lock } = await threeWithLock(cluster, { stateDir: disk });

  await keptAfterView(disk, 1, 2, 3);
  freeze("--freeze");
  // Nothing has to be stored in a view that stays.
  expect(await lock.request(Mode.NL)).toBe("granted");
  expect(await lock.request(Mode.EX)).toBe("granted");
  const joins = cluster.start(4);
  expect((await here.disconnected()).message).toContain(
    `this node's state cannot be kept in ${disk}/state.json: its disk has not answered`,
  );
  await joins;
  await there.seen([2, 3, 4]);
  const taken = await there.lock("r");
  expect(await taken.request(Mode.EX)).toBe("granted");

  freeze("--unfreeze");
  expect(await first.exited).toBe(UNKEPT);
  expect(cluster.log(1).at(-1)).toMatchObject({ level: "error", msg: "dlmd ends" });
  expect(JSON.parse(readFileSync(path.join(disk, "state.json"), "utf8"))).toMatchObject({ promisedEpoch: expect.any(Number) as number });
  await cluster.start(1, { stateDir: disk });
  await there.seen([1, 2, 3, 4]);
}, 120_000);

test("a node whose run directory hangs, log and sockets with it, stands still: the others leave it out, and it comes back when the disk answers", async () => {
  symlinkSync(disk, cluster.runDir(1));
  const { here, there } = await threeWithLock(cluster);

  freeze("--freeze");
  await cluster.start(4);
  await there.seen([2, 3, 4]);
  const taken = await there.lock("r");
  expect(await taken.request(Mode.EX)).toBe("granted");
  const proposed = [2, 3, 4].flatMap((nodeid) => cluster.log(nodeid)).filter(({ msg }) => msg === "proposing a view");
  expect(proposed.map(({ why }) => why)).toContainEqual(expect.stringMatching(/lost node 1/));

  freeze("--unfreeze");
  await here.disconnected();
  await there.seen([1, 2, 3, 4]);
}, 120_000);
