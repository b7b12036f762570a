/** Two volumes mounted on one node: each mount has a status of its own, and what is asked of one is answered by that one. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { processRef, waitGone } from "../../overlay/lab/processes.ts";
import { coverlay, coverlayProgram, keepersOf, noConfigChange, startLab, type TestLab } from "./lab.ts";
import { attachLoop, run } from "./volume/disk.ts";

interface Status {
  readonly level: string;
  readonly volumes: readonly {
    readonly volume: string;
    readonly owner: string;
    readonly mounts: readonly { readonly mountpoint: string }[];
  }[];
  readonly overlay: { readonly mountpoint: string } | null;
  readonly overlays: readonly { readonly mountpoint: string; readonly volume: string; readonly role: string; readonly pid: number }[];
}

let lab: TestLab;
let device = "";
let second = "";
beforeAll(async () => {
  lab = await startLab({ nodes: 2 });
  const image = path.join(lab.dir, "second.img");
  second = path.join(lab.node(1).mount, "../second");
  mkdirSync(second);
  writeFileSync(image, "");
  truncateSync(image, 64 << 20);
  run("mkfs.ext4", "-q", "-F", image);
  device = attachLoop(image);
});
afterAll(async () => {
  if (device !== "") {
    // Mounted still if the test failed.
    spawnSync("umount", ["-q", "-l", second]);
    run("losetup", "--detach", device);
    for (const file of ["second.img", "second.yaml"]) rmSync(path.join(lab.dir, file), { force: true });
  }
  await lab?.end();
});

async function must(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await coverlay(words);
  expect(`${status} ${stderr}`).toBe("0 ");
  return stdout;
}
const status = async (): Promise<Status> => JSON.parse(await must("status", "--json", "--run-dir", lab.node(1).runDir)) as Status;

it("status lists both mounts, the lab goes on with its own, and one that is killed is said to be gone", async ({ skip }) => {
  skip(noConfigChange !== null, noConfigChange ?? "");
  const { runDir, mount } = lab.node(1);
  expect((await status()).overlays.map(({ mountpoint }) => mountpoint)).toEqual([mount]);

  const yaml = readFileSync(path.join(lab.dir, "cluster.yaml"), "utf8");
  const cluster = /^cluster: (\S+)$/m.exec(yaml)?.[1] ?? "";
  const { uuid } = JSON.parse(await must("volume", "enable", device, "--cluster", cluster, "--name", "second", "--json")) as {
    uuid: string;
  };
  const changed = path.join(lab.dir, "second.yaml");
  writeFileSync(changed, `${yaml.replace("version: 1", "version: 2").trimEnd()}\n  - { name: second, uuid: ${uuid}, lower: device }\n`);
  await must("config", "apply", changed, "--run-dir", runDir, "--json");
  await lab.mustExec(1, [process.execPath, coverlayProgram, "mount", device, second, "-o", `runDir=${runDir}`]);

  const both = await status();
  expect(both.level).toBe("well");
  expect(both.volumes.map(({ volume, owner, mounts }) => [volume, owner, ...mounts.map(({ mountpoint }) => mountpoint)])).toEqual([
    ["lab", "node1", mount],
    ["second", "node1", second],
  ]);
  expect(Object.fromEntries(both.overlays.map(({ mountpoint, volume }) => [mountpoint, volume]))).toEqual({
    [mount]: "lab",
    [second]: "second",
  });
  expect(both.overlay?.mountpoint).toBe(both.overlays[0]?.mountpoint);
  const words = await must("status", "--run-dir", runDir);
  expect(words).toContain(`mount    ${mount}: volume lab on `);
  expect(words).toContain(`mount    ${second}: volume second on ${device}, owner, process `);
  for (const [at, volume] of [
    [mount, "lab"],
    [second, "second"],
  ] as const) {
    expect(await queryOverlayStatus(runDir, 5000, at)).toMatchObject({ mountpoint: at, volume });
  }
  expect(await lab.owner()).toBe(1);
  expect((await lab.status()).map(({ state }) => state)).toEqual(["up", "up"]);

  const overlay = processRef(both.overlays.find(({ volume }) => volume === "second")?.pid ?? 0);
  if (overlay === null) throw new Error("the overlay of the second volume is not there");
  // A crash of the process alone is a pause.
  for (const keeper of keepersOf(second)) process.kill(keeper, "SIGKILL");
  process.kill(overlay.pid, "SIGKILL");
  await waitGone([overlay], 10_000);
  const check = await coverlay(["status", "--check", "--run-dir", runDir]);
  expect(check).toMatchObject({ status: 2, stdout: expect.stringMatching(/^down: mount-gone: the process \d+ of .* is gone/) });
  const gone = await must("status", "--run-dir", runDir);
  expect(gone).toContain(`mount    ${mount}: volume lab on `);
  expect(gone).toMatch(new RegExp(`its process ${overlay.pid} is gone, and every call there fails: umount ${second}, and mount it again`));
  run("umount", second);
  expect((await status()).overlays.map(({ mountpoint }) => mountpoint)).toEqual([mount]);
});
