/**
 * Each node is stopped and started again in turn, the owner too, while programs work on the others: no call ends with an error. A node that prefers to be
 * the owner gets the volume back.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { coverlay, noConfigChange, startLab, type TestLab } from "./lab.ts";
import { untilRole } from "./role.ts";
import { SteadyWorker } from "./steady-worker.ts";

describe("a restart of each node in turn", () => {
  let lab: TestLab;
  const workers = new Map<number, SteadyWorker>();

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(async () => {
    for (const one of workers.values()) one.kill();
    await lab?.end();
  });

  it("no program on the other nodes gets an error, and nothing is lost", async () => {
    let total = 0;
    let moves = 0;
    let lives = 0;
    const begin = (nodeid: number): void => void workers.set(nodeid, new SteadyWorker(lab.node(nodeid).mount, [`life${++lives}`]));
    for (const { nodeid } of lab.nodes) begin(nodeid);
    for (const nodeid of [1, 2, 3, await lab.owner()]) {
      for (const one of workers.values()) await one.goesOn();
      if ((await lab.owner()) === nodeid) moves++;
      total += (await workers.get(nodeid)?.end()) ?? 0;
      workers.delete(nodeid);
      await lab.stop(nodeid);
      for (const one of workers.values()) await one.goesOn();
      await lab.start(nodeid);
      begin(nodeid);
    }
    for (const one of workers.values()) await one.goesOn();
    for (const one of workers.values()) total += await one.end();
    expect(moves).toBeGreaterThan(0);
    for (const { mount } of lab.nodes) expect(Number(readFileSync(`${mount}/shared`, "utf8"))).toBe(total);
  });

  it("the volume goes back to the node that prefers to be its owner, each time that this node was away", async ({ skip }) => {
    skip(noConfigChange !== null, noConfigChange ?? "");
    const preferred = 2;
    for (const one of workers.values()) one.kill();
    workers.clear();
    const yaml = readFileSync(path.join(lab.dir, "cluster.yaml"), "utf8");
    const changed = path.join(lab.dir, "preferred.yaml");
    writeFileSync(changed, yaml.replace("version: 1", "version: 2").replace("name: node2,", "name: node2, owner: preferred,"));
    const { status, stderr } = await coverlay(["config", "apply", changed, "--run-dir", lab.node(1).runDir, "--json"]);
    rmSync(changed);
    expect([status, stderr]).toEqual([0, ""]);
    // Mounts know what was in force when they were made.
    await lab.stop(preferred);
    const others = lab.nodes.filter(({ nodeid }) => nodeid !== preferred);
    const steady = others.map(({ mount, nodeid }) => new SteadyWorker(mount, [`steady${nodeid}`]));
    for (const one of steady) workers.set(100 + workers.size, one);
    for (let turn = 0; turn < 2; turn++) {
      for (const one of steady) await one.goesOn();
      // Somebody else has it.
      expect(await lab.owner()).not.toBe(preferred);
      await lab.start(preferred);
      await untilRole(lab, preferred, "owner");
      for (const one of steady) await one.goesOn();
      await lab.stop(preferred);
      for (const one of steady) await one.goesOn();
    }
    await lab.start(preferred);
    // It shows that no call has ended with an error, and that all is there.
    for (const one of steady) expect(await one.end()).toBeGreaterThan(0);
  });
});
