/** The simulations by name: one run of each under one seed, and what came of it. */
import { Cluster } from "./cluster.ts";
import { ConfigSim } from "./config-change.ts";
import type { Script } from "./deed.ts";
import { EngineTrouble } from "./engine/trouble.ts";
import type { FaultOptions } from "./faults.ts";
import type { QuorumOptions } from "../../dlmd/engine/boot.ts";
import { MountGroupSim } from "./mount-group/mount-group-sim.ts";
import { PlockCluster } from "./plock-cluster.ts";

export interface RunOptions {
  readonly seed: number;
  readonly steps: number;
  /** 0: as the seed says. */
  readonly nodes: number;
  readonly faults: FaultOptions;
  /** Of the engine's simulation. */
  readonly quorum: QuorumOptions;
}

export interface Failure {
  /** "SimFailure: node 2 ..." */
  readonly words: string;
  readonly stack: string;
  readonly step: number;
  readonly nowMs: number | null;
  readonly lastEvents: string;
  /** With which it fails again; null: only with its seed. */
  readonly script: Script | null;
}

export interface Outcome {
  readonly failure: Failure | null;
  /** How much happened: a run in which nothing does shows nothing. */
  readonly counts: Readonly<Record<string, number>>;
}

export interface Simulation {
  readonly about: string;
  run(options: RunOptions): Outcome;
}

function wordsAndStack(error: unknown): { words: string; stack: string } {
  if (!(error instanceof Error)) return { words: String(error), stack: String(error) };
  return { words: `${error.name}: ${error.message}`, stack: error.stack ?? error.message };
}

export function runCluster(cluster: Cluster, steps: number): Outcome {
  let failure: Failure | null = null;
  try {
    cluster.run(steps);
  } catch (error) {
    const { nowMs } = cluster.agenda;
    // What had been done by then is all of it; a failure at rest keeps its rest.
    const script: Script = { ...cluster.script, deeds: cluster.done, quietMs: cluster.quiet ? cluster.quietMs : nowMs + 1 };
    failure = { ...wordsAndStack(error), step: cluster.steps, nowMs, lastEvents: cluster.lastEvents(), script };
  }
  const {
    checker,
    plockChecker,
    groupChecker,
    sightChecker,
    lockspaceChecker,
    evictions,
    hangs,
    ended,
    keptClients,
    notEnded,
    fences,
    slowDisks,
    frozen,
    mixed,
    forged,
    forgotten,
    smallViews,
    script,
    history,
  } = cluster;
  const counts = {
    grants: checker.grants,
    "file locks": plockChecker.grants,
    "value blocks read": checker.reads,
    deadlocks: checker.deadlocks,
    "group messages delivered": groupChecker.delivered,
    "answers to who has what": sightChecker.answers,
    "programs asked about a dead node": lockspaceChecker.asked,
    "of which it was not known what it had open": lockspaceChecker.askedUnknown,
    "programs that a death did not concern": lockspaceChecker.spared,
    "views entered": groupChecker.views,
    evictions,
    "fenced nodes": fences,
    "fenced halves of two": cluster.twoNode ? fences : 0,
    "slow disks": slowDisks,
    "standstills between what a node decides and what it does": frozen,
    "backlogs read in another order": mixed,
    "messages that nobody can have meant": forged,
    "disks that forgot": forgotten,
    "views by half of the votes or less": smallViews,
    "configurations in force": history.changes,
    "of these while locks were held": history.underLocks,
    "configurations refused": history.refused,
    "configurations that were forgotten": history.forgotten,
    "nodes with a file of their own": history.strays,
    "seeds with drifting clocks": (script.weather.drift ?? 0) > 0 ? 1 : 0,
    "programs that stood still": hangs,
    "programs ended for that": ended,
    "programs kept for an heir": keptClients,
    "programs that wait in the kernel, not ended": notEnded,
    ...Object.fromEntries(history.beside),
  };
  return { failure, counts };
}

export const simulations: Readonly<Record<string, Simulation>> = {
  cluster: {
    about: "whole nodes: views, locks, file locks, groups, questions; programs and faults at random",
    run: (options) => runCluster(Cluster.drawn(options), options.steps),
  },
  engine: {
    about: "views and ordered messages alone, under more load",
    run({ seed, steps, nodes, faults, quorum }) {
      const trouble = new EngineTrouble({ seed, nodes, faults, quorum });
      const { sim } = trouble;
      let failure: Failure | null = null;
      try {
        trouble.run(steps);
      } catch (error) {
        failure = { ...wordsAndStack(error), step: sim.steps, nowMs: sim.agenda.nowMs, lastEvents: sim.lastEvents(), script: null };
      }
      const { delivered, views, reduced } = sim.checker;
      const counts = {
        "messages delivered": delivered,
        "views entered": views,
        "by fewer votes": reduced,
        datagrams: sim.datagrams,
        "refused as full": trouble.full,
        "slow disks": trouble.slowDisks,
      };
      return { failure, counts };
    },
  },
  "file-locks": {
    about: "file locks alone, with views that change at any moment",
    run({ seed, steps, nodes }) {
      const cluster = new PlockCluster(seed, nodes);
      let failure: Failure | null = null;
      try {
        cluster.run(steps);
      } catch (error) {
        failure = { ...wordsAndStack(error), step: cluster.steps, nowMs: null, lastEvents: cluster.lastEvents(), script: null };
      }
      const { grants, deadlocks, overtakes } = cluster.checker;
      return { failure, counts: { grants, deadlocks, overtakings: overtakes, views: cluster.views } };
    },
  },
  "mount-group": {
    about: "mounters of a volume: jids, recovery and blocks over the engine's groups",
    run({ seed, steps, nodes }) {
      const sim = new MountGroupSim(seed, nodes);
      const { engines } = sim;
      let failure: Failure | null = null;
      try {
        sim.run(steps);
      } catch (error) {
        const { steps: step, agenda } = engines;
        failure = { ...wordsAndStack(error), step, nowMs: agenda.nowMs, lastEvents: engines.lastEvents(), script: null };
      }
      return { failure, counts: sim.checker.counts };
    },
  },
  config: {
    about: "changes of the configuration, with crashes between any two steps",
    run({ seed, steps }) {
      const sim = new ConfigSim(seed);
      let failure: Failure | null = null;
      const counts = { "changes in force": 0, views: 0 };
      try {
        const { committedVersion, views } = sim.run(steps);
        Object.assign(counts, { "changes in force": committedVersion - 1, views });
      } catch (error) {
        failure = { ...wordsAndStack(error), step: sim.steps, nowMs: null, lastEvents: sim.story.slice(-100).join("\n"), script: null };
      }
      return { failure, counts };
    },
  },
};
