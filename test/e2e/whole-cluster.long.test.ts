/**
 * The whole cluster loses power at one moment and is started again, in whatever order: it comes up by itself, or says for whom it waits and what
 * to do. What was fsynced anywhere is there, and the disk is clean. And a cluster that is shut down one node after the other.
 */
import { spawn } from "node:child_process";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type RunResult, run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { endActors } from "./actor.ts";
import { coverlay, coverlayProgram, startLab, testEngine, type TestLab, whyNotQuorate, withLab } from "./lab.ts";
import { untilRole } from "./role.ts";
import { type Synced, SyncedLoad, wrongOf } from "./synced-load.ts";

const LONG_MS = 120_000;

afterEach(() => endActors());

const nodeName = (nodeid: number): string => `node${nodeid}`;

const everybody = (lab: TestLab): number[] => lab.nodes.map(({ nodeid }) => nodeid);

let turn = 0;

/** The power goes on all nodes at one moment, while all of them write. */
async function losePower(lab: TestLab): Promise<Synced[]> {
  turn += 1;
  const loads = await Promise.all(everybody(lab).map((nodeid) => SyncedLoad.begin(lab, nodeid, `turn-${turn}-of-${nodeid}`)));
  await lab.lab("kill", everybody(lab).map(nodeName).join(","));
  const lost = await Promise.all(loads.map((load) => load.ended()));
  // Each worked until the power went.
  for (const { errors } of lost) expect(errors).toEqual([expect.stringMatching(/^(ENOTCONN|ECONNABORTED)$/)]);
  endActors();
  return lost;
}

/** All are there, and what was synced is what it was, on each of them. */
async function isWhole(lab: TestLab, lost: readonly Synced[]): Promise<void> {
  const owner = await lab.owner();
  for (const nodeid of everybody(lab)) await untilRole(lab, nodeid, nodeid === owner ? "owner" : "remote");
  for (const nodeid of everybody(lab)) expect(await wrongOf(lab, nodeid, lost)).toEqual([]);
}

/** A command of coverlay on a node that runs, in its network. */
function command(lab: TestLab, nodeid: number, ...words: string[]): Promise<RunResult> {
  const { netns, runDir } = lab.node(nodeid);
  return run("nsenter", [`--net=/run/netns/${netns}`, process.execPath, coverlayProgram, ...words], {
    env: { ...process.env, COVERLAY_RUN_DIR: runDir },
    timeoutMs: LONG_MS,
  });
}

async function deviceOf(lab: TestLab, nodeid: number): Promise<string> {
  return (await lab.status()).find((node) => node.nodeid === nodeid)?.device ?? "";
}

async function mount(lab: TestLab, nodeid: number): Promise<RunResult> {
  const { mount: point, runDir } = lab.node(nodeid);
  return command(lab, nodeid, "mount", await deviceOf(lab, nodeid), point, "-o", `runDir=${runDir}`);
}

/** `mount -o wait`, which says for what it waits before this resolves. */
async function waitingMount(lab: TestLab, nodeid: number, forWhat: string): Promise<{ readonly ended: Promise<number | null> }> {
  const { mount: point, netns, runDir } = lab.node(nodeid);
  const words = [coverlayProgram, "mount", await deviceOf(lab, nodeid), point, "-o", `runDir=${runDir},wait`];
  const child = spawn("nsenter", [`--net=/run/netns/${netns}`, process.execPath, ...words], { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  let stderr = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString("utf8");
      if (stderr.includes(`coverlay: waiting: ${forWhat}`)) resolve();
    });
    void ended.then((status) => reject(new Error(`mount -o wait ended with ${status} and did not wait:\n${stderr}`)));
  });
  return { ended };
}

/** Waits until that node's `coverlay status` says that. Not as a process of the node, which may be off still. */
async function says(lab: TestLab, nodeid: number, words: string): Promise<void> {
  for (const end = Date.now() + LONG_MS; ; ) {
    const { stdout } = await coverlay(["status", "--run-dir", lab.node(nodeid).runDir]);
    if (stdout.includes(words)) return;
    if (Date.now() > end) throw new Error(`node${nodeid} does not say ${words}:\n${stdout}`);
  }
}

/** Its exit status; 0: the disk is clean. */
async function fsck(lab: TestLab): Promise<number | null> {
  return (await run("e2fsck", ["-fn", labFiles(lab.dir).image])).status;
}

/** Another owner in each case. */
async function roles(lab: TestLab): Promise<[owner: number, one: number, other: number]> {
  const owner = await lab.owner();
  return [owner, ...(everybody(lab).filter((nodeid) => nodeid !== owner) as [number, number])];
}

const names = (...nodeids: number[]): string =>
  nodeids
    .toSorted((a, b) => a - b)
    .map(nodeName)
    .join(", ");

describe("three nodes lose power at once", () => {
  let lab: TestLab;
  beforeAll(async () => {
    lab = await startLab({ nodes: 3, size: "128M" });
  });
  afterAll(() => lab?.end());

  it("one alone says for whom it waits; with the former owner it comes up by itself", async () => {
    const [owner, one, other] = await roles(lab);
    const lost = await losePower(lab);
    const alone = lab.start(one);
    await says(lab, one, `quorum   ${whyNotQuorate(one)}`);
    await says(lab, one, `start ${names(owner, other)}, or mend the network to them; gone for good: coverlay config --help`);
    expect(await mount(lab, one)).toMatchObject({
      status: 32,
      stderr: expect.stringContaining(`the cluster has no quorum: ${whyNotQuorate(one)}`),
    });
    await lab.start(owner);
    await alone;
    await lab.start(other);
    await isWhole(lab, lost);
  });

  it("the former owner last: the two others are refused, and say for whom; with -o wait they go on when it is there", async () => {
    const [owner, one, other] = await roles(lab);
    const lost = await losePower(lab);
    const refusal = new RegExp(
      `${nodeName(owner)} has the volume mounted as .*, and nothing proves that it has ended[^]*coverlay volume release DEVICE --owner ${nodeName(owner)}`,
    );
    await expect(lab.start(one, other)).rejects.toThrow(refusal);
    const waiting = await Promise.all([one, other].map((nodeid) => waitingMount(lab, nodeid, `${nodeName(owner)} has`)));
    await lab.start(owner);
    expect(await Promise.all(waiting.map(({ ended }) => ended))).toEqual([0, 0]);
    await isWhole(lab, lost);
  });

  it("the former owner never: an operator's word is enough", async () => {
    const [owner, one, other] = await roles(lab);
    const lost = await losePower(lab);
    await expect(lab.start(one, other)).rejects.toThrow(/nothing proves that it has ended/);
    const waiting = await Promise.all([one, other].map((nodeid) => waitingMount(lab, nodeid, `${nodeName(owner)} has`)));
    const release = ["volume", "release", await deviceOf(lab, one), "--owner", nodeName(owner), "--yes"];
    expect(await command(lab, one, ...release)).toMatchObject({ status: 0 });
    expect(await Promise.all(waiting.map(({ ended }) => ended))).toEqual([0, 0]);
    expect([one, other]).toContain(await lab.owner());
    // Later a mount that waits would fence the former owner by itself.
    for (const nodeid of [one, other]) {
      const { stdout } = await command(lab, nodeid, "fence", "history", "--json");
      expect((JSON.parse(stdout) as { nodeid: number; outcome: string }[]).filter(({ outcome }) => outcome === "fenced")).toEqual([]);
    }
    await lab.start(owner);
    await isWhole(lab, lost);
  });

  it("all start at once", async () => {
    const lost = await losePower(lab);
    await lab.start(...everybody(lab));
    await isWhole(lab, lost);
    expect(lost.map(({ synced }) => synced >= 20)).toEqual([true, true, true]);
  });

  it("stopped one after the other instead, the last ones do not wait; the first alone waits for those that went on, and the last of them is enough; the disk is clean", async () => {
    const [owner, one, other] = await roles(lab);
    await lab.stopAll(one, owner, other);
    const first = lab.start(one);
    // It knows that the two went on without it, and not which of them was the last. Over corosync all votes count on, so any two are enough.
    const mending =
      testEngine === "corosync"
        ? ", or mend the network to them; gone for good: coverlay config"
        : "; gone for good: coverlay quorum reset";
    await says(lab, one, `start ${names(owner, other)}${mending} --help`);
    await lab.start(other);
    await first;
    await lab.start(owner);
    await isWhole(lab, []);
    await lab.stopAll(...(await roles(lab)));
    expect(await fsck(lab)).toBe(0);
  });
});

it("two nodes lose power at once: one alone waits for the other, and says so; with both, whichever was first, it comes up by itself", () =>
  withLab({ nodes: 2, size: "128M" }, async (lab) => {
    for (const ownerFirst of [true, false]) {
      const owner = await lab.owner();
      const [first, second] = ownerFirst ? [owner, 3 - owner] : [3 - owner, owner];
      const lost = await losePower(lab);
      const alone = lab.start(first);
      await says(lab, first, `start ${nodeName(second)}, or mend the network to them`);
      await lab.start(second);
      await alone;
      await isWhole(lab, lost);
      expect(lost).toHaveLength(2);
    }
    await lab.stopAll(2, 1);
    expect(await fsck(lab)).toBe(0);
  }));
