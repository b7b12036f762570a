/** Planned moves of the owner while programs work on all nodes: no call ends with an error, and nothing is lost. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunResult } from "../../overlay/lab/command.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { until } from "./actor.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";
import { SteadyWorker } from "./steady-worker.ts";

describe("handover", () => {
  let lab: TestLab;
  const workers: SteadyWorker[] = [];
  const handover = (nodeid: number, ...words: string[]): Promise<RunResult> =>
    coverlay(["handover", ...words, "--run-dir", lab.node(nodeid).runDir]);

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(async () => {
    for (const one of workers) one.kill();
    await lab?.end();
  });

  it("from each node to each, asked for on the owner and elsewhere: no program gets an error, and nothing is lost", async () => {
    for (const { nodeid, mount } of lab.nodes) workers.push(new SteadyWorker(mount, [`node${nodeid}`]));
    for (const one of workers) await one.goesOn();
    expect(await lab.owner()).toBe(1);
    for (const [asked, to] of [
      [1, 3],
      [3, 1],
      [3, 2],
      [1, 3],
      [2, 1],
    ] as const) {
      const { status, stdout, stderr } = await handover(asked, "lab", `node${to}`);
      expect([status, stderr]).toEqual([0, `coverlay: handing volume lab over to node${to}\n`]);
      expect(stdout).toMatch(new RegExp(`^node${to} has volume lab mounted now, before it node\\d; calls waited for \\d+ ms`));
      expect(await lab.owner()).toBe(to);
      for (const one of workers) await one.goesOn();
    }
    // The lowest other node, and for programs.
    const { status, stdout } = await handover(2, "lab", "--json");
    expect([status, JSON.parse(stdout)]).toMatchObject([0, { kind: "done", from: 1, to: 2, owner: 2 }]);
    const rounds = await Promise.all(workers.map((one) => one.end()));
    const total = rounds.reduce((sum, each) => sum + each, 0);
    for (const { mount } of lab.nodes) expect(Number(readFileSync(`${mount}/shared`, "utf8"))).toBe(total);
  });

  it("is refused with words: to the owner, to a node without the mount, of another volume", async () => {
    const owner = await lab.owner();
    const refused = async (asked: number, ...words: string[]): Promise<string> => {
      const { status, stderr } = await handover(asked, ...words);
      expect(status).toBe(1);
      return stderr;
    };
    expect(await refused(owner, "lab", String(owner))).toContain(`node${owner} is the owner already`);
    expect(await refused(3, "data")).toContain("a volume that is mounted on this node expected, found data");
    expect(await refused(3, "lab", "node9")).toContain("a node of the cluster expected, found node9");
    await lab.stop(3);
    expect(await refused(1, "lab", "node3")).toContain(
      "node3 does not have the volume mounted, or does not reach its device: node1 could have it",
    );
    // Its vote stays: over corosync the owner would have no quorum without it.
    await lab.unmount(1);
    expect(await refused(owner, "lab")).toContain("no other node has the volume mounted and reaches its device");
    await lab.start(1, 3);
  });

  it("ends with words when the quorum is lost while it waits, and is refused at once where there is none", async () => {
    const owner = await lab.owner();
    const noQuorum = /^volume lab is not handed over: the cluster has no quorum: .*; this node sees nodes 3$/;
    expect(owner).not.toBe(3);
    await lab.lab("stall", `node${owner}`, "--what", "overlay");
    try {
      const waits = handover(3, "lab", "--json");
      await until("node3 waits for the owner's answer", async () => (await queryOverlayStatus(lab.node(3).runDir)).ownerWait != null);
      await lab.lab("partition", "node3");
      expect(JSON.parse((await waits).stderr)).toMatchObject({
        code: "no-quorum",
        error: expect.stringMatching(noQuorum),
        hint: expect.stringContaining("The owner was asked and has not answered"),
      });
      const { status, stderr } = await handover(3, "lab");
      expect([status, stderr.split("\n")[0]]).toEqual([1, expect.stringMatching(noQuorum.source.replace("^", "^coverlay: "))]);
      expect(JSON.parse((await handover(3, "lab", "--json")).stderr)).toMatchObject({ code: "no-quorum" });
    } finally {
      await lab.lab("unstall", `node${owner}`);
      await lab.lab("heal", "node3");
    }
  });
});
