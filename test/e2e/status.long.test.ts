/** `coverlay status` while a cluster of three gets worse: what it finds, what it says to do, its exit statuses, and --watch through all of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Report } from "../../overlay/status/report.ts";
import { until } from "./actor.ts";
import { coverlay, coverlayProgram, startLab, testEngine, type TestLab } from "./lab.ts";

let lab: TestLab;
let watcher: ChildProcess | null = null;
beforeAll(async () => {
  lab = await startLab({ nodes: 3 });
});
afterAll(async () => {
  watcher?.kill("SIGKILL");
  await lab?.end();
});

const ask = (nodeid: number, ...words: string[]) => coverlay(["status", "--run-dir", lab.node(nodeid).runDir, ...words]);
const report = async (nodeid: number): Promise<Report> => JSON.parse((await ask(nodeid, "--json", "--check")).stdout) as Report;
const codes = ({ problems }: Report): string[] => problems.map(({ code }) => code);

it("well, a new owner after a death, no quorum, no dlmd: each with its exit status", async () => {
  await until("multicast is heard", async () => (await report(3)).level === "well");
  const well = await ask(3, "--check");
  expect(well).toMatchObject({ status: 0, stdout: "well: 3 of 3 nodes in the view, 1 mount here\n", stderr: "" });
  const before = await report(3);
  const owner = await lab.owner();
  expect(before.volumes).toMatchObject([
    {
      volume: "lab",
      owner: `node${owner}`,
      mounts: [{ mountpoint: lab.node(3).mount, well: true, lease: "holds", readOnly: false, lastOwnerChange: null }],
    },
  ]);
  // With corosync nothing comes by multicast of dlmd's.
  const heard = before.nodes.map(({ node, multicastSilentMs }) => node !== "node3" && multicastSilentMs !== null);
  expect(heard).toEqual(testEngine === "builtin" ? [true, true, false] : [false, false, false]);

  // What the examples ask for is there (test/unit/status/metrics.test.ts plays the figures of a mount).
  const figures = await coverlay(["metrics", "--run-dir", lab.node(3).runDir]);
  expect(figures.status).toBe(0);
  const names = new Set([...figures.stdout.matchAll(/^(coverlay_\w+)/gm)].map(([, name]) => name));
  const examples = ["prometheus/coverlay.rules.yml", "grafana/coverlay.json"].map((file) =>
    readFileSync(path.resolve("examples", file), "utf8"),
  );
  const asked = new Set(examples.flatMap((text) => [...text.matchAll(/\bcoverlay_[a-z_]+/g)].map(([name]) => name)));
  // There was no change of the owner yet.
  expect([...asked].filter((name) => !names.has(name)).toSorted()).toEqual([
    "coverlay_mount_last_owner_change_duration_seconds",
    "coverlay_mount_last_owner_change_timestamp_seconds",
  ]);

  // One of the two that are left asks all the time, in a terminal of nobody.
  const survivor = owner === 3 ? 2 : 3;
  const other = [1, 2, 3].find((nodeid) => nodeid !== owner && nodeid !== survivor) ?? 0;
  watcher = spawn(process.execPath, [
    coverlayProgram,
    "status",
    "--json",
    "--check",
    "--watch",
    "0.2",
    "--run-dir",
    lab.node(survivor).runDir,
  ]);
  const seen: string[] = [];
  createInterface({ input: watcher.stdout! }).on("line", (line) => {
    const { level } = JSON.parse(line) as Report;
    if (seen.at(-1) !== level) seen.push(level);
  });
  const ended = new Promise<number | null>((resolve) => watcher?.on("exit", resolve));
  await until("the first turn", () => seen.length > 0);

  await lab.kill(owner);
  await until("there is another owner, and nothing but a node is missing", async () => {
    const now = await report(survivor);
    return now.level === "degraded" && codes(now).join() === "node-away" && now.volumes[0]?.mounts[0]?.lastOwnerChange !== null;
  });
  const after = await report(survivor);
  expect(after.problems).toMatchObject([{ node: `node${owner}`, action: expect.stringContaining(`start dlmd on node${owner}`) }]);
  const [mount] = after.volumes[0]?.mounts ?? [];
  expect(mount?.lastOwnerChange).toMatchObject({ from: `node${owner}`, to: after.volumes[0]?.owner });
  expect(mount?.lastOwnerChange?.pauseMs).toBeGreaterThan(0);
  expect(await ask(survivor, "--check")).toMatchObject({ status: 1, stdout: expect.stringMatching(/^degraded: node-away: /) });
  const words = await ask(survivor);
  expect(words.status).toBe(0);
  expect(words.stdout).toMatch(
    new RegExp(`^status {3}degraded\n {9}degraded: node${owner} is away: .*\n {9}do: start dlmd on node${owner}`),
  );
  expect(words.stdout).toMatch(/\nvolume {3}lab: owner node\d; .*last change of owner .* ago from node\d to node\d in [\d.]+ s \(/);

  const { stdout } = await coverlay(["metrics", "--run-dir", lab.node(survivor).runDir]);
  expect(stdout).toMatch(/^coverlay_level 1$/m);
  expect(stdout).toMatch(/^coverlay_mount_last_owner_change_duration_seconds\{.*\} [\d.]+$/m);
  expect(stdout).toMatch(/^coverlay_problems\{code="node-away",level="degraded"\} 1$/m);

  await lab.kill(other);
  await until("the quorum is lost, and said", async () => codes(await report(survivor)).includes("no-quorum"));
  expect(await ask(survivor, "--check")).toMatchObject({ status: 2, stdout: expect.stringMatching(/^down: /) });
  expect((await ask(survivor)).status).toBe(1);

  await lab.kill(survivor, "dlmd");
  await until("dlmd cannot be asked, and is said so", async () => (await report(survivor)).level === "unknown");
  expect(await ask(survivor, "--check")).toMatchObject({ status: 3, stdout: expect.stringMatching(/^unknown: dlmd-silent: /) });
  expect(await ask(survivor)).toMatchObject({ status: 1, stderr: expect.stringContaining("Start dlmd") });

  await until("the watcher has seen all of it", () => seen.at(-1) === "unknown");
  watcher.kill("SIGTERM");
  expect(await ended).toBe(3);
  expect(seen.filter((level) => level !== "well")).toEqual(expect.arrayContaining(["degraded", "down", "unknown"]));
});
