/**
 * A model of several nodes that look at two directories, change each, and rename between them, to run the pure coherence rules against under a seed. Beside the
 * lock managers (model-resource.ts) there is each node's kernel: it locks a directory for a change and for a LOOKUP, believes a name as long as that is
 * valid, drops one only when the directory is not locked, and all of the mount whatever is locked (INC_EPOCH). Everything that may happen next is a step; the seed picks which.
 */
import { Cover, type Inode, type PinWaiter } from "../../../overlay/coherence/cover.ts";
import { CoherenceState, type Effect, type InvalidationPlan, raiseEpoch } from "../../../overlay/coherence/effect.ts";
import {
  addWaiter,
  handleAst,
  handleBast,
  handleTimerOf,
  removeWaiter,
  tryPin,
  unpin,
} from "../../../overlay/coherence/lock/lock-cache.ts";
import { orderWants } from "../../../overlay/coherence/lock/lock-order.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";
import { noteExpired, tellName } from "../../../overlay/coherence/names/names.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import { ModelResource } from "./model-resource.ts";
import { ModelSteps, performAll } from "./model-steps.ts";
import { seeded } from "./seeded.ts";

export interface DirectoryModelOptions {
  readonly nodes: number;
  readonly steps: number;
  readonly lookersPerNode: number;
  /** They list, and then look at what they were told. */
  readonly listersPerNode: number;
  readonly changersPerNode: number;
  readonly renamersPerNode: number;
  /** Share of waits for a lock whose callers are killed, and of changes whose callers are, before they are answered. */
  readonly killed?: number;
}

export interface DirectoryModelResult {
  readonly violation: string | null;
  readonly operations: number;
  readonly unfinished: number;
  /** Conversions that waited in place, and were granted. */
  readonly raised: number;
  /** Conversions that met another. */
  readonly refused: number;
  readonly epochs: number;
  readonly listed: number;
  /** Revokes that waited for a listing, to go by epoch then. */
  readonly waited: number;
  readonly killed: number;
  readonly steps: number;
}

/** A directory in a node's kernel. */
interface KernelDirectory {
  readonly cover: Cover;
  /** The version that the valid name stands for; null: there is none. */
  valid: number | null;
  locked: boolean;
  /** A listing is answered, and its names are not installed. */
  installing: boolean;
  /** Invalidations that wait until they are. */
  readonly behind: (() => void)[];
  readonly lockWaiters: (() => void)[];
}

interface Node {
  readonly id: number;
  readonly state: CoherenceState;
  readonly directories: readonly KernelDirectory[];
  performing: boolean;
  epoch: number;
  /** INC_EPOCH that the kernel has not taken yet, and who waits for that. */
  epochsSent: number;
  epochWaiters: (() => void)[];
}

type PinModeOf = typeof Mode.PR | typeof Mode.EX;

const NAME = Buffer.from("name");
const DIRECTORIES = [0, 1] as const;
/** One of so many invalidations begins only so many turns later. */
const LEAVING = { oneOf: 4, turns: 25 };

function createNode(id: number): Node {
  const directories = DIRECTORIES.map((at) => {
    const cover = new Cover({ ino: 100 + at, generation: 1 }, "directory");
    cover.inode = { fuseNodeid: 2 + at, id: cover.id, kind: "directory", nlookup: 1, openCount: 0, mappableCount: 0, cover };
    return { cover, valid: null, locked: false, installing: false, behind: [], lockWaiters: [] };
  });
  return { id, state: new CoherenceState(), directories, performing: false, epoch: 1, epochsSent: 0, epochWaiters: [] };
}

export function runDirectoryModel(seed: number, options: DirectoryModelOptions): DirectoryModelResult {
  const random = seeded(seed);
  const steps = new ModelSteps(random);
  const { free } = steps;
  const nodes = Array.from({ length: options.nodes }, (_, id) => createNode(id));
  const versions = DIRECTORIES.map(() => ({ made: 0, committed: 0 }));
  const counts = { operations: 0, unfinished: 0, raised: 0, refused: 0, epochs: 0, listed: 0, waited: 0, killed: 0 };
  let [stepsLeft, taken] = [options.steps, 0];
  let violation: string | null = null;

  const note = (text: string): void => {
    violation ??= text;
  };
  const toMaster = nodes.map(() => steps.channel());
  const toNode = nodes.map(() => steps.channel());
  const resources = DIRECTORIES.map(
    (at) =>
      new ModelResource((id, message) => {
        toNode[id]?.(() => {
          const node = nodes[id] as Node;
          const { cover } = node.directories[at] as KernelDirectory;
          if ("wanted" in message) handleBast(node.state, cover, message.wanted, steps.now);
          else {
            if (message.status === "granted" && cover.mode === Mode.PR && message.mode === Mode.EX) counts.raised += 1;
            if (message.status === "deadlock") counts.refused += 1;
            handleAst(node.state, cover, message.status, message.mode, steps.now);
          }
          perform(node);
        });
      }),
  );

  const kernelOf = (node: Node, cover: Cover): KernelDirectory => node.directories.find((one) => one.cover === cover) as KernelDirectory;

  const perform = (node: Node): void => performAll(node, (effect) => performOne(node, effect));

  function performOne(node: Node, effect: Effect): void {
    if (effect.do === "request") {
      const { mode, flags, cover } = effect;
      const resource = resources[node.directories.findIndex((one) => one.cover === cover)] as ModelResource;
      if (mode < cover.mode) cover.mode = mode;
      toMaster[node.id]?.(() => resource.request(node.id, mode, flags));
    } else if (effect.do === "settle") {
      effect.waiter.settle(effect.error);
    } else if (effect.do === "invalidate") {
      leave(random() * LEAVING.oneOf < 1 ? LEAVING.turns : 0, () => invalidate(node, kernelOf(node, effect.cover), effect.plan));
    } else if (effect.do === "timer") {
      const { purpose, cover, delayMs } = effect;
      free.push(() => {
        steps.now += delayMs;
        handleTimerOf(purpose, node.state, cover, steps.now);
        perform(node);
      });
    } else if (effect.do !== "ask-anew") note(`an effect that the model does not know: ${effect.do}`);
  }

  /** As shell.ts, which first waits for what the owner is to be told of the inode: a trip, or many turns. */
  function leave(turns: number, then: () => void): void {
    free.push(turns === 0 ? then : () => leave(turns - 1, then));
  }

  /** As kernel/revoke-round.ts does: what waits for a directory that is locked is left behind for the epoch. */
  function invalidate(node: Node, directory: KernelDirectory, plan: InvalidationPlan): void {
    const { cover } = directory;
    const expiry = "expiry" in plan ? plan.expiry : { epoch: false, names: [] };
    const isWaiting = directory.locked && expiry.names.length > 0;
    const underWay = cover.names?.listings ?? [];
    // The time-out (LISTING_WAIT_MS) is for those of which nothing shows that they are over: here it never comes too early.
    if ((expiry.epoch || isWaiting) && underWay.length > 0 && directory.installing) {
      counts.waited += 1;
      directory.behind.push(() => {
        node.state.listings.over(underWay, node.state.epoch);
        invalidate(node, directory, { what: "names", expiry: { ...expiry, epoch: true } });
      });
      return;
    }
    if (expiry.epoch || isWaiting) incrementEpoch(node, cover);
    else if (expiry.names.length > 0) {
      directory.valid = null;
      node.state.listings.over(underWay, node.state.epoch);
      noteExpired(cover);
    }
    const over = (): void => {
      if (node.epochsSent > 0) {
        node.epochWaiters.push(over);
        return;
      }
      handleInvalidated(node.state, cover, false, steps.now);
      perform(node);
    };
    free.push(over);
  }

  function incrementEpoch(node: Node, cover: Cover): void {
    counts.epochs += 1;
    raiseEpoch(node.state, cover);
    node.epochsSent += 1;
    free.push(() => {
      node.epoch += 1;
      for (const directory of node.directories) directory.valid = null;
      node.epochsSent -= 1;
      if (node.epochsSent === 0) for (const waiter of node.epochWaiters.splice(0)) free.push(waiter);
    });
  }

  function lockInKernel(directory: KernelDirectory, then: () => void): void {
    if (directory.locked) {
      directory.lockWaiters.push(() => lockInKernel(directory, then));
      return;
    }
    directory.locked = true;
    then();
  }

  function unlockInKernel(directory: KernelDirectory): void {
    directory.locked = false;
    for (const behind of directory.behind.splice(0)) behind();
    for (const waiter of directory.lockWaiters.splice(0)) free.push(waiter);
  }

  const dies = (): boolean => random() < (options.killed ?? 0);

  /** `ended`: instead of `then`, where the caller is killed. */
  function pin(node: Node, { cover }: KernelDirectory, mode: PinModeOf, then: () => void, ended: () => void): void {
    const pinned = (): void => {
      if (!modeCovers(cover.mode, mode)) note(`node ${node.id} runs under ${mode} with ${cover.mode}`);
      for (const other of nodes) {
        const theirs = other.directories.find((one) => one.cover.key === cover.key)?.cover.mode ?? Mode.NL;
        if (other !== node && !modesCompatible(theirs, cover.mode)) note(`modes ${cover.mode} on ${node.id} and ${theirs} on ${other.id}`);
      }
      then();
    };
    if (tryPin(cover, mode)) {
      free.push(pinned);
      return;
    }
    const settle: PinWaiter["settle"] = (error) => void free.push(error === null ? pinned : ended);
    const waiter: PinWaiter = { mode, passes: false, settle };
    addWaiter(node.state, cover, waiter, steps.now);
    perform(node);
    if (!dies()) return;
    leave(Math.floor(random() * 20), () => {
      if (!removeWaiter(node.state, cover, waiter, steps.now)) return;
      counts.killed += 1;
      perform(node);
    });
  }

  /** The answer that carries the name, with or without validity; the kernel has it before the directory is unlocked. */
  function answer(node: Node, directory: KernelDirectory, version: number, sentAt: number, returned: () => void): void {
    const isValid = tellName(directory.cover, NAME, null, true, node.state.epoch, steps.now);
    free.push(() => {
      // A LOOKUP that was under way during INC_EPOCH brings a name of before.
      directory.valid = isValid && node.epoch === sentAt ? version : null;
      unlockInKernel(directory);
      returned();
    });
    unpin(node.state, directory.cover, steps.now);
    perform(node);
  }

  const versionOf = (at: number): { made: number; committed: number } => versions[at] as { made: number; committed: number };

  function look(node: Node, at: number, done: () => void): void {
    const directory = node.directories[at] as KernelDirectory;
    const floor = versionOf(at).committed;
    const seen = (version: number): void => {
      if (version < floor) note(`node ${node.id} saw version ${version} of directory ${at} after ${floor} was made`);
      done();
    };
    // A walk does not lock the directory where the name is valid.
    if (directory.valid !== null) return seen(directory.valid);
    lockInKernel(directory, () => {
      const sentAt = node.epoch;
      pin(
        node,
        directory,
        Mode.PR,
        () => {
          const { made } = versionOf(at);
          answer(node, directory, made, sentAt, () => seen(made));
        },
        () => {
          unlockInKernel(directory);
          done();
        },
      );
    });
  }

  /** As look, but that the name is installed with the epoch of that moment, and nothing tells when that was. */
  function list(node: Node, at: number, fh: number, done: () => void): void {
    const directory = node.directories[at] as KernelDirectory;
    const { state } = node;
    lockInKernel(directory, () => {
      state.listings.heard({ op: "readdirplus", pid: fh, fh }, directory.cover, state.epoch);
      pin(
        node,
        directory,
        Mode.PR,
        () => {
          const { made } = versionOf(at);
          const listing = state.listings.of(directory.cover, fh, fh);
          const isValid = tellName(directory.cover, NAME, directory.cover, true, state.epoch, steps.now, false, true);
          if (listing !== null) state.listings.begin(listing);
          directory.installing = true;
          leave(LEAVING.turns, () => {
            directory.installing = false;
            directory.valid = isValid ? made : null;
            unlockInKernel(directory);
            counts.listed += 1;
            done();
          });
          unpin(state, directory.cover, steps.now);
          perform(node);
        },
        () => {
          unlockInKernel(directory);
          done();
        },
      );
    });
  }

  /** Its caller was told EINTR, and others may look: when it is made, all names of the mount are expired (op/change.ts). */
  function orphan(node: Node, ats: readonly number[], done: () => void): void {
    counts.killed += 1;
    const directories = ats.map((at) => node.directories[at] as KernelDirectory);
    for (const directory of directories) unlockInKernel(directory);
    let made: readonly number[] = [];
    let listed = 0;
    const dropped = (): void => {
      if (listed > 0) return;
      if (node.epochsSent > 0) return void node.epochWaiters.push(dropped);
      ats.forEach((at, index) => {
        versionOf(at).committed = Math.max(versionOf(at).committed, made[index] as number);
      });
      for (const { cover } of directories) unpin(node.state, cover, steps.now);
      perform(node);
      done();
    };
    leave(Math.floor(random() * LEAVING.turns), () => {
      made = ats.map((at) => (versionOf(at).made += 1));
      incrementEpoch(node, (directories[0] as KernelDirectory).cover);
      // Names of listings under way come behind it: they are expired one by one, for which the directory is locked (revoke-round.ts, expireListed).
      for (const directory of directories) {
        const underWay = directory.cover.names?.listings ?? [];
        if (!directory.installing || underWay.length === 0) continue;
        listed += 1;
        directory.behind.push(() => {
          directory.valid = null;
          node.state.listings.over(underWay, node.state.epoch);
          listed -= 1;
          dropped();
        });
      }
      dropped();
    });
  }

  function change(node: Node, ats: readonly number[], done: () => void): void {
    const directories = ats.map((at) => node.directories[at] as KernelDirectory);
    const wants = orderWants(directories.map(({ cover }) => ({ inode: cover.inode as Inode, mode: Mode.EX })));
    const lockNext = (left: readonly KernelDirectory[], then: () => void): void => {
      const [first, ...rest] = left;
      if (first === undefined) then();
      else lockInKernel(first, () => lockNext(rest, then));
    };
    const pinNext = (left: readonly KernelDirectory[], then: () => void): void => {
      const [first, ...rest] = left;
      const ended = (): void => {
        for (const directory of directories) {
          if (!left.includes(directory)) unpin(node.state, directory.cover, steps.now);
          unlockInKernel(directory);
        }
        perform(node);
        done();
      };
      if (first === undefined) then();
      else pin(node, first, Mode.EX, () => pinNext(rest, then), ended);
    };
    // The kernel takes its own locks in an order of its own.
    lockNext(directories, () => {
      for (const { cover } of directories) node.state.listings.heard({ op: "create", pid: 0 }, cover, node.state.epoch);
      const sentAt = node.epoch;
      pinNext(
        wants.map(({ inode }) => kernelOf(node, inode.cover)),
        () => {
          if (dies()) return orphan(node, ats, done);
          const made = ats.map((at) => (versionOf(at).made += 1));
          free.push(() => {
            let left = ats.length;
            const returned = (): void => {
              left -= 1;
              if (left > 0) return;
              ats.forEach((at, index) => {
                versionOf(at).committed = Math.max(versionOf(at).committed, made[index] as number);
              });
              done();
            };
            ats.forEach((at, index) => {
              answer(node, node.directories[at] as KernelDirectory, made[index] as number, sentAt, returned);
            });
          });
        },
      );
    });
  }

  const eitherOf = (): number => (random() < 0.5 ? 0 : 1);
  function program(work: (done: () => void) => void): void {
    if (stepsLeft <= 0) return;
    counts.unfinished += 1;
    work(() => {
      counts.unfinished -= 1;
      counts.operations += 1;
      free.push(() => program(work));
    });
  }

  for (const node of nodes) {
    for (let k = 0; k < options.lookersPerNode; k += 1) program((done) => look(node, eitherOf(), done));
    for (let k = 0; k < options.listersPerNode; k += 1) {
      const fh = 1 + k;
      program((done) => list(node, eitherOf(), fh, done));
    }
    for (let k = 0; k < options.changersPerNode; k += 1) program((done) => change(node, [eitherOf()], done));
    for (let k = 0; k < options.renamersPerNode; k += 1) program((done) => change(node, [1, 0], done));
  }
  // After the last new operation, everything begun must come to its end.
  while (taken < options.steps * 4 && steps.take()) {
    taken += 1;
    stepsLeft -= 1;
    if (violation !== null) break;
  }
  return { violation, ...counts, steps: taken };
}
