import { EngineSim } from "../sim/engine/engine-sim.ts";
import { type EngineLab, engineCompliance } from "./engine.ts";
import { SocketLab } from "./engine-socket-lab.ts";

/** `loss`: of datagrams. */
function simulated(loss: number): EngineLab {
  const sim = new EngineSim({ seed: 11, nodes: 3, checked: false, steady: true });
  sim.weather = { loss, duplicate: loss, late: loss, maxDelayMs: 20 };
  for (const node of sim.nodes) node.start();
  return {
    command(nodeid, command) {
      let result: ReturnType<EngineLab["command"]> | null = null;
      sim.node(nodeid).command(
        () => command,
        (given) => {
          result = given;
        },
      );
      return result ?? "not-joined";
    },
    events: (nodeid) => sim.node(nodeid).events,
    start: (nodeid) => sim.node(nodeid).start(),
    crash: (nodeid) => sim.node(nodeid).crash(),
    partition: (groups) => sim.partition(groups),
    heal: () => sim.heal(),
    async until(what, condition) {
      if (!sim.runUntil(condition, 60_000)) throw new Error(`not within 60 s: ${what}\n${sim.lastEvents()}`);
    },
    async close() {},
  };
}

engineCompliance("builtin, simulated,", async () => simulated(0));
engineCompliance("builtin, simulated with loss,", async () => simulated(0.05));

let nextPort = 31_000 + ((process.pid * 16) % 20_000);
engineCompliance("builtin, over sockets,", async () => new SocketLab(nextPort++).lab());
