/** Idle processors do not sleep deeply while programs work in a mount, and may as soon as they do not. The kernel has one limit for all labs. */
import { describe, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import type { CpuLatencyState } from "../../overlay/serve/cpu-latency.ts";
import { cpuLatencyLimitUs, noCpuLatency } from "../cpu-latency.ts";
import { endActors, until } from "./actor.ts";
import { hazardLab } from "./hazards/hazard-lab.ts";
import { coverlay } from "./lab.ts";
import { mountAgain } from "./mount-again.ts";

const cluster = hazardLab();

async function latency(nodeid: number): Promise<CpuLatencyState> {
  const status = await queryOverlayStatus(cluster.lab.node(nodeid).runDir);
  return status["cpuLatency"] as CpuLatencyState;
}

/** Makes and removes a file all the time, until `stop`. */
const WORK = `
import threading
works = True
def work():
    while works:
        put(name, b"x")
        os.unlink(name)
worker = threading.Thread(target=work)
worker.start()`;
const STOP = `
works = False
worker.join()`;

describe("while a program works in a mount", () => {
  it.for(["owner", "other"] as const)(
    "of the %s: the kernel has the limit; it is gone a moment after the last request",
    async (where, { skip }) => {
      skip(noCpuLatency !== null, noCpuLatency ?? "");
      const nodeid = where === "owner" ? cluster.owner : cluster.remotes[0];
      const { limitUs, times } = await latency(nodeid);
      expect(limitUs).toEqual(expect.any(Number));
      const actor = cluster.actor(nodeid);
      await actor.run(WORK, { name: `work-${where}` });
      await until("the limit is held", async () => (await latency(nodeid)).held);
      // It is gone and there again where the machine stands still for a moment.
      await until("the kernel has it", () => cpuLatencyLimitUs() <= Number(limitUs));
      if (where === "other") await until("the owner holds it for its caller", async () => (await latency(cluster.owner)).held);
      await actor.run(STOP);
      await until("nobody holds it", async () => {
        const all = await Promise.all([nodeid, cluster.owner].map(latency));
        return all.every(({ held }) => !held);
      });
      expect((await latency(nodeid)).times).toBeGreaterThan(times);
      await until("the kernel has no limit", () => cpuLatencyLimitUs() > Number(limitUs));
    },
  );

  it("with the option deepidle: no limit", async ({ skip }) => {
    skip(noCpuLatency !== null, noCpuLatency ?? "");
    const nodeid = cluster.remotes[1];
    const node = cluster.lab.node(nodeid);
    const { mount, runDir } = node;
    const { device } = await queryOverlayStatus(runDir);
    try {
      const refused = await coverlay(["mount", mount, "-o", "remount,deepidle"]);
      expect([refused.status, refused.stderr]).toEqual([32, expect.stringContaining("mounted without deepidle")]);
      await mountAgain(node, device, "deepidle");
      expect((await coverlay(["mount", mount, "-o", "remount,deepidle,noatime"])).status).toBe(0);
      await cluster.actor(nodeid).run(`for _ in range(500):\n    put("deep", b"x")\n    os.unlink("deep")`);
      expect(await latency(nodeid)).toEqual({ limitUs: null, why: "the mount has the option deepidle", held: false, times: 0 });
    } finally {
      endActors();
      await mountAgain(node, device);
    }
    expect((await latency(nodeid)).why).toBe(null);
  });
});
