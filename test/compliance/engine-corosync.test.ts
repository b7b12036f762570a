import { noCorosync } from "./corosync-cluster.ts";
import { CpgSim } from "./cpg-sim.ts";
import { type EngineLab, engineCompliance } from "./engine.ts";
import { CorosyncLab } from "./engine-corosync-lab.ts";

function simulated(): EngineLab {
  const sim = new CpgSim(3);
  for (const node of sim.all) node.start();
  return {
    command: (nodeid, command) => sim.node(nodeid).step((engine) => engine.command(command)) ?? "not-joined",
    events: (nodeid) => sim.node(nodeid).events,
    start: (nodeid) => sim.start(nodeid),
    crash: (nodeid) => sim.crash(nodeid),
    partition: (groups) => sim.partition(groups),
    heal: () => sim.heal(),
    async until(what, condition) {
      if (!sim.runUntil(condition)) throw new Error(`not within 60 s: ${what}\n${sim.all.flatMap(({ log }) => log).join("\n")}`);
    },
    async close() {},
  };
}

engineCompliance("corosync, simulated,", async () => simulated());

engineCompliance("corosync, with its daemons,", async () => new CorosyncLab().lab(), noCorosync());
