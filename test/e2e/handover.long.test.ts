/** Each node is stopped and started again in turn, the owner too, while programs work on the others: no call ends with an error. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLab, type TestLab } from "./lab.ts";
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
    const begin = (nodeid: number): void => void workers.set(nodeid, new SteadyWorker(lab.node(nodeid).mount, `life${++lives}`));
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
});
