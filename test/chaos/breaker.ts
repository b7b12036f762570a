/** Makes the faults happen in a lab, and undoes them. */
import { setTimeout as sleep } from "node:timers/promises";
import { assertNever } from "../../dlmd/base/assert.ts";
import { overlayProcess } from "../../overlay/lab/boot.ts";
import { must } from "../../overlay/lab/command.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import { nodeProcesses } from "../../overlay/lab/power.ts";
import { signalProcess } from "../../overlay/lab/processes.ts";
import { existingLab, labNode } from "../../overlay/lab/state.ts";
import type { TestLab } from "../e2e/lab.ts";
import type { VolatileDisk } from "./disk-client.ts";
import type { FaultDraw } from "./fault.ts";

/** A node loses its power after so many more writes of its disk, at most; and not later than after so many looks. */
const MID_WRITES = 6;
const MID_WRITE_TRIES = 100;
const MID_WRITE_POLL_MS = 10;

export interface World {
  readonly lab: TestLab;
  readonly disk: VolatileDisk;
  /** Ends the programs of the load there: a node that is stopped in order has no programs left. */
  readonly endLoad: (nodeid: number) => Promise<void>;
}

/** Undoes what a fault did; what has ended through it is started again afterwards, by `lab start`. */
export type Heal = () => Promise<void>;

function deviceOf(lab: TestLab, nodeid: number): string {
  const { device } = labNode(existingLab(lab.dir), `node${nodeid}`);
  if (device === null) throw new Error(`node${nodeid} has no disk`);
  return device;
}

function stall(lab: TestLab, nodeid: number, what: "dlmd" | "overlay"): Heal {
  const state = existingLab(lab.dir);
  const node = labNode(state, `node${nodeid}`);
  const pid = (what === "dlmd" ? node.dlmd : overlayProcess(state, node))?.pid;
  if (pid === undefined) throw new Error(`node${nodeid} should have a process of ${what}`);
  process.kill(pid, "SIGSTOP");
  return () => {
    try {
      process.kill(pid, "SIGCONT");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    return Promise.resolve();
  };
}

/** Its disk stands still between a write and the flush after it, where there is something to lose. A node that writes nothing goes as it is. */
async function untilMidWrite(disk: VolatileDisk, device: string, { seed }: FaultDraw): Promise<void> {
  await disk.command({ do: "hang-after", device, writes: 1 + (seed % MID_WRITES) });
  for (let tries = 0; tries < MID_WRITE_TRIES; tries++) {
    if ((await disk.command({ do: "figures" })).hanging.includes(device)) return;
    await sleep(MID_WRITE_POLL_MS);
  }
}

/** Drops what comes in, or what goes out. */
async function oneWay(lab: TestLab, nodeid: number, chain: "input" | "output"): Promise<Heal> {
  const { netns } = lab.node(nodeid);
  const loopback = chain === "input" ? "iifname" : "oifname";
  const rules = `table inet chaos {
  chain ${chain} { type filter hook ${chain} priority 0; policy drop;
    ${loopback} "lo" accept
  }
}
`;
  const nft = (input: string): Promise<string> => must("nsenter", netnsArguments(netns, ["nft", "-f", "-"]), { input });
  await nft(rules);
  return async () => void (await nft("delete table inet chaos\n"));
}

export async function begin({ lab, disk, endLoad }: World, nodeid: number, draw: FaultDraw): Promise<Heal> {
  const node = `node${nodeid}`;
  const undo =
    (...words: string[]): Heal =>
    async () =>
      void (await lab.lab(...words));
  const nothing: Heal = () => Promise.resolve();
  switch (draw.kind) {
    case "power-off": {
      const device = deviceOf(lab, nodeid);
      await untilMidWrite(disk, device, draw);
      // All at one moment, as it is with power: nothing of the node sees how its disk fails.
      for (const ref of nodeProcesses(existingLab(lab.dir), labNode(existingLab(lab.dir), node))) signalProcess(ref, "SIGSTOP");
      await disk.command({ do: "power-off", device, seed: draw.seed, keepPercent: draw.keepPercent });
      await lab.kill(nodeid);
      return nothing;
    }
    case "kill-overlay":
      await lab.kill(nodeid, "overlay");
      return nothing;
    case "kill-dlmd":
      await lab.kill(nodeid, "dlmd");
      return nothing;
    case "cut":
      await lab.lab("cut", node);
      return undo("uncut", node);
    case "hang": {
      const device = deviceOf(lab, nodeid);
      await disk.command({ do: "hang", device });
      return async () => void (await disk.command({ do: "unhang", device }));
    }
    case "partition":
      await lab.lab("partition", node);
      return undo("heal", node);
    case "deaf":
      return oneWay(lab, nodeid, "input");
    case "mute":
      return oneWay(lab, nodeid, "output");
    case "stall-overlay":
      return stall(lab, nodeid, "overlay");
    case "stall-dlmd":
      return stall(lab, nodeid, "dlmd");
    case "loss":
      await lab.lab("net", node, "--loss", String(2 + (draw.seed % 9)), "--delay", "0");
      return undo("net", node, "--loss", "0", "--delay", "0");
    case "delay":
      await lab.lab("net", node, "--loss", "0", "--delay", String(5 + (draw.seed % 46)));
      return undo("net", node, "--loss", "0", "--delay", "0");
    case "restart":
      await endLoad(nodeid);
      await lab.stop(nodeid);
      return nothing;
    default:
      return assertNever(draw.kind, "fault");
  }
}
