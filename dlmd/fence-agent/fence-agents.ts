/**
 * The fence agents of this node, as the core asks for them ("run-fence", "stop-fence"). What an agent says of itself is read when the
 * configuration names it, so that the first death need not wait for that, and a mistake is in the log before.
 */
import type { Log } from "../base/log.ts";
import type { ClusterConfig } from "../config/cluster-config.ts";
import type { AgentResult } from "../fencing/fence-run.ts";
import { fencingMistakes } from "./check.ts";
import { fence, type FenceTarget } from "./fence-device.ts";
import { MetadataShelf } from "./metadata-shelf.ts";

export interface FenceAgents {
  /** Ends in `done`, if `stop` does not come first. */
  run(runId: number, nodeid: number, device: string, done: (result: AgentResult) => void): void;
  /** The action "on" of that device: what fails is in the log. Ends in `done`, if `stop` does not come first. */
  unfence(runId: number, nodeid: number, device: string, isAllowed: boolean, done: (result: AgentResult) => void): void;
  /** Its processes are killed now. */
  stop(runId: number): void;
  /** All of them; resolves when their processes are gone, and those that were stopped before. */
  stopAll(): Promise<void>;
  /** Looks at each agent that the configuration names; mistakes go to the log. */
  look(): Promise<void>;
}

/** Devices of that node in that configuration; undefined: it does not use that one. */
export function targetOf(config: ClusterConfig, nodeid: number, name: string): FenceTarget | undefined {
  const node = config.nodes.find((one) => one.nodeid === nodeid);
  const target = node?.fence?.flat().find(({ device }) => device === name);
  const device = config.fenceDevices.find((one) => one.name === name);
  return node === undefined || target === undefined || device === undefined ? undefined : { device, target, nodeName: node.name };
}

/** As often as its device says. */
async function unfenceOnce(at: FenceTarget, shelf: MetadataShelf, signal: AbortSignal): Promise<AgentResult> {
  let result = await fence(at, "on", shelf, signal);
  for (let tries = 0; !signal.aborted && !result.ok && !result.unable && tries < at.device.retries; tries++) {
    result = await fence(at, "on", shelf, signal);
  }
  return result;
}

export function createFenceAgents(config: () => ClusterConfig, log: Log): FenceAgents {
  const shelf = new MetadataShelf();
  const running = new Map<number, { readonly abort: AbortController; readonly ended: Promise<void> }>();

  const stop = (runId: number): void => {
    running.get(runId)?.abort.abort();
  };

  const missing = (name: string, nodeid: number): AgentResult => ({
    ok: false,
    unable: true,
    words: `no fence device ${name} is configured for node ${nodeid} any more`,
  });

  const unfence = async (nodeid: number, device: string, isAllowed: boolean, signal: AbortSignal): Promise<AgentResult> => {
    if (!isAllowed) {
      log.error({ device }, "this node was fenced in this boot: restart the machine before it gets its storage back");
      return { ok: true };
    }
    const at = targetOf(config(), nodeid, device);
    const result = at === undefined ? missing(device, nodeid) : await unfenceOnce(at, shelf, signal);
    // Of one that was killed nothing is known.
    if (signal.aborted) return result;
    if (result.ok) log.info({ device }, "this node has its storage (unfenced)");
    else log.error({ device, words: result.words }, "this node could not be unfenced: it cannot write to that storage");
    return result;
  };

  return {
    run(runId, nodeid, name, done) {
      const at = targetOf(config(), nodeid, name);
      const abort = new AbortController();
      const action = at?.device.action ?? "off";
      log.warn({ nodeid, device: name, agent: at?.device.agent, action }, "a fence agent runs");
      const work = async (): Promise<void> => {
        const result = at === undefined ? missing(name, nodeid) : await fence(at, action, shelf, abort.signal);
        running.delete(runId);
        if (abort.signal.aborted) return;
        log.warn({ nodeid, device: name, ...result }, "a fence agent has ended");
        done(result);
      };
      // In a later turn: a result is never part of the step that asked for it.
      const ended = Promise.resolve().then(work);
      running.set(runId, { abort, ended });
    },
    unfence(runId, nodeid, device, isAllowed, done) {
      const abort = new AbortController();
      const work = async (): Promise<void> => {
        const result = await unfence(nodeid, device, isAllowed, abort.signal);
        running.delete(runId);
        if (abort.signal.aborted) return;
        done(result);
      };
      running.set(runId, { abort, ended: Promise.resolve().then(work) });
    },
    stop,
    async stopAll() {
      const all = [...running.values()].map(({ ended }) => ended);
      for (const runId of running.keys()) stop(runId);
      await Promise.all(all);
    },
    async look() {
      for (const mistake of await fencingMistakes(config(), shelf)) log.error({ ...mistake }, "a fence device cannot be used on this node");
    },
  };
}
