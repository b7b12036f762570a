/**
 * A model of several nodes that share one file, to run the pure coherence rules against under a seed: the lock manager (one master,
 * FIFO channels: model-resource.ts), each node's kernel (model-node.ts: a page with its lock, INVAL_INODE that waits for it) and the lower file (a version).
 * Everything that may happen next is a step; the seed picks which.
 */
import { type Inode, type PinWaiter, tokenHeld } from "../../../overlay/coherence/cover.ts";
import type { Effect } from "../../../overlay/coherence/effect.ts";
import {
  addWaiter,
  handleAst,
  handleBast,
  handleTimerOf,
  holdOf,
  pinChild,
  removeWaiter,
  tryPin,
  unpin,
  unpinData,
} from "../../../overlay/coherence/lock/lock-cache.ts";
import { enterUnregistered, registerBorn } from "../../../overlay/coherence/lock/new-inodes.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";
import { closeToken, handleTokenAst, handleTokenBast, openToken } from "../../../overlay/coherence/lock/write-token.ts";
import type { Errno } from "../../../dlmd/base/errno.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import { createModelNode, type ModelNode } from "./model-node.ts";
import { ModelResource } from "./model-resource.ts";
import { ModelSteps, performAll } from "./model-steps.ts";
import { seeded } from "./seeded.ts";

export interface ModelOptions {
  readonly nodes: number;
  readonly steps: number;
  readonly writersPerNode: number;
  readonly readersPerNode: number;
  /** Callers of truncate(2): they pass during a revoke like writes from a page cache, and open nothing. */
  readonly truncatersPerNode?: number;
  /** LOOKUPs that would like to have the lock, and ask no other node to give it up at once. */
  readonly lookersPerNode?: number;
  /** Share of waits for the lock whose callers are killed. */
  readonly killed?: number;
  /** The first node has made the file a moment ago, and has it open. */
  readonly born?: boolean;
}

export interface ModelResult {
  readonly violation: string | null;
  readonly operations: number;
  readonly unfinished: number;
  readonly rounds: number;
  /** Rounds that left the page of a READ alone. */
  readonly heldBack: number;
  readonly killed: number;
  readonly steps: number;
  /** Opens that had the write token without dlmd. */
  readonly implied: number;
  /** It was asked for because the lock was to leave. */
  readonly registered: number;
}

export function runModel(seed: number, options: ModelOptions): ModelResult {
  const random = seeded(seed);
  const steps = new ModelSteps(random);
  const { free } = steps;
  let version = 0;
  let committed = 0;
  let violation: string | null = null;
  let unfinished = 0;
  let rounds = 0;
  let heldBack = 0;
  let killed = 0;
  let implied = 0;
  let registered = 0;
  let stepsLeft = options.steps;
  const nodes: ModelNode[] = Array.from({ length: options.nodes }, (_, id) => createModelNode(id));

  const note = (text: string): void => {
    violation ??= text;
  };
  const toMaster: ((step: () => void) => void)[] = [];
  const toNode: ((step: () => void) => void)[] = [];
  for (let id = 0; id < options.nodes; id += 1) {
    toMaster.push(steps.channel());
    toNode.push(steps.channel());
  }

  const inodeLock = new ModelResource((node, message) => {
    const to = toNode[node] as (step: () => void) => void;
    to(() => {
      const { state, cover } = nodes[node] as ModelNode;
      if ("status" in message) handleAst(state, cover, message.status, message.mode, steps.now);
      else handleBast(state, cover, message.wanted, steps.now);
      perform(nodes[node] as ModelNode);
    });
  });
  const tokenLock = new ModelResource((node, message) => {
    const to = toNode[node] as (step: () => void) => void;
    to(() => {
      const { state, cover } = nodes[node] as ModelNode;
      const token = cover.token;
      if (token === null) return;
      if ("status" in message) handleTokenAst(state, cover, token, message.status, steps.now);
      else handleTokenBast(state, cover, token);
      perform(nodes[node] as ModelNode);
    });
  });

  const perform = (node: ModelNode): void => performAll(node, (effect) => performOne(node, effect));

  function performOne(node: ModelNode, effect: Effect): void {
    const send = toMaster[node.id] as (step: () => void) => void;
    switch (effect.do) {
      case "request": {
        const { mode, flags } = effect;
        // A conversion down takes effect at the holder when it is sent (hazard H2).
        if (mode < node.cover.mode) node.cover.mode = mode;
        send(() => inodeLock.request(node.id, mode, flags));
        return;
      }
      case "request-token":
        send(() => tokenLock.request(node.id, Mode.PW, 0));
        if (node.cover.token !== null && node.state.registering.has(node.cover.token)) {
          // What was born here is not taken back.
          registered += 1;
          return;
        }
        free.push(() => send(() => tokenLock.cancel(node.id)));
        return;
      case "unlock-token":
        send(() => tokenLock.unlock(node.id));
        return;
      case "settle":
        effect.waiter.settle(effect.error);
        return;
      case "settle-token":
        effect.waiter(effect.result);
        return;
      case "expect":
        expect(node);
        return;
      case "ask-anew":
        // Asked for when the old one is gone, as without it: only the message is another.
        return;
      case "settle-child":
        effect.waiter(effect.pinned);
        return;
      case "invalidate":
        rounds += 1;
        // There is one page.
        free.push(() => invalidate(node, !("except" in effect.plan) || effect.plan.except.length === 0));
        return;
      case "timer": {
        const { purpose } = effect;
        free.push(() => {
          steps.now += effect.delayMs;
          handleTimerOf(purpose, node.state, node.cover, steps.now);
          perform(node);
        });
        return;
      }
    }
  }

  /** What a reader will want is read under the lock that is asked for in his stead, and kept for him (op/prefetch.ts). */
  function expect(node: ModelNode): void {
    const settle = (): void => {
      const hold = holdOf(node.cover);
      free.push(() => {
        node.ahead = { hold, version };
      });
      unpin(node.state, node.cover, steps.now);
      perform(node);
    };
    addWaiter(node.state, node.cover, { mode: Mode.PR, passes: false, expected: true, settle }, steps.now);
  }

  // INVAL_INODE: waits for the folio, drops it, and only then comes back.
  function invalidate(node: ModelNode, page: boolean): void {
    if (page && node.folio !== null) {
      node.folioWaiters.push(() => free.push(() => invalidate(node, page)));
      return;
    }
    if (page) node.page = null;
    else heldBack += 1;
    free.push(() => {
      handleInvalidated(node.state, node.cover, false, steps.now);
      perform(node);
    });
  }

  function unlockFolio(node: ModelNode): void {
    node.folio = null;
    const waiters = node.folioWaiters;
    node.folioWaiters = [];
    for (const waiter of waiters) free.push(waiter);
  }

  /** `ended`: instead of `then`, where the caller is killed. */
  function pin(
    node: ModelNode,
    mode: typeof Mode.PR | typeof Mode.EX,
    passes: boolean,
    then: () => void,
    ended: () => void,
    isRead = false,
  ): void {
    if (tryPin(node.cover, mode)) {
      free.push(then);
      return;
    }
    const settle = (error: Errno | null): void => void free.push(error === null ? then : ended);
    const waiter: PinWaiter = { mode, passes, ...(isRead ? { pages: { from: 0, to: 4096 } } : {}), settle };
    addWaiter(node.state, node.cover, waiter, steps.now);
    perform(node);
    if (random() >= (options.killed ?? 0)) return;
    const kill = (turns: number): void => {
      if (turns > 0) free.push(() => kill(turns - 1));
      else if (removeWaiter(node.state, node.cover, waiter, steps.now)) {
        killed += 1;
        perform(node);
      }
    };
    kill(Math.floor(random() * 20));
  }

  /** A name of the file is looked up: attributes are valid if the lock is to be had. */
  function looker(node: ModelNode): void {
    if (stepsLeft <= 0) return;
    unfinished += 1;
    const over = (): void => {
      unfinished -= 1;
      node.operations += 1;
      free.push(() => looker(node));
    };
    const told = (pinned: boolean): void => {
      if (!pinned) return over();
      checkPins(node, Mode.PR);
      free.push(() => {
        unpin(node.state, node.cover, steps.now);
        perform(node);
        over();
      });
    };
    const now = pinChild(node.state, node.cover, (pinned) => void free.push(() => told(pinned)), random() < 0.5);
    perform(node);
    if (now !== null) free.push(() => told(now));
  }

  function checkPins(node: ModelNode, mode: Mode): void {
    if (!modeCovers(node.cover.mode, mode)) note(`node ${node.id} runs under ${mode} with ${node.cover.mode}`);
    for (const other of nodes) {
      if (other !== node && !modesCompatible(other.cover.mode, node.cover.mode)) {
        note(`modes ${node.cover.mode} on ${node.id} and ${other.cover.mode} on ${other.id}`);
      }
    }
  }

  /** read(2) on a read-only cached descriptor. */
  function read(node: ModelNode, done: () => void): void {
    const floor = committed;
    const finish = (seen: number): void => {
      if (seen < floor) note(`node ${node.id} read version ${seen} after ${floor} was written`);
      done();
    };
    const attempt = (): void => {
      if (node.page !== null) {
        finish(node.page);
        return;
      }
      if (node.folio !== null) {
        node.folioWaiters.push(attempt);
        return;
      }
      node.folio = { write: false, cached: true };
      pin(
        node,
        Mode.PR,
        true,
        () => {
          checkPins(node, Mode.PR);
          const hold = holdOf(node.cover);
          const ahead = hold !== 0 && node.ahead?.hold === hold ? node.ahead.version : version;
          if (ahead !== version) note(`node ${node.id} kept version ${ahead} under its hold, and the file has ${version}`);
          const seen = ahead;
          free.push(() => {
            node.page = seen;
            unpinData(node.state, node.cover, steps.now);
            perform(node);
            unlockFolio(node);
            finish(seen);
          });
        },
        () => {
          unlockFolio(node);
          done();
        },
        true,
      );
    };
    attempt();
  }

  /** write(2): the version of a cached write is in the page before the request is answered (hazard F14). */
  function writeCached(node: ModelNode, done: () => void): void {
    if (node.folio !== null) {
      node.folioWaiters.push(() => writeCached(node, done));
      return;
    }
    node.folio = { write: true, cached: true };
    pin(
      node,
      Mode.EX,
      true,
      () => {
        checkPins(node, Mode.EX);
        version += 1;
        const mine = version;
        free.push(() => {
          node.page = mine;
          unpinData(node.state, node.cover, steps.now);
          perform(node);
          unlockFolio(node);
          committed = Math.max(committed, mine);
          done();
        });
      },
      () => {
        unlockFolio(node);
        done();
      },
    );
  }

  /** A direct write drops the local pages again after it was executed and before it is answered: a READ may have come between. */
  function writeDirect(node: ModelNode, done: () => void): void {
    if (node.folio === null) node.page = null;
    pin(
      node,
      Mode.EX,
      false,
      () => {
        checkPins(node, Mode.EX);
        version += 1;
        const mine = version;
        const drop = (): void => {
          if (node.folio !== null) {
            node.folioWaiters.push(drop);
            return;
          }
          node.page = null;
          unpinData(node.state, node.cover, steps.now);
          perform(node);
          committed = Math.max(committed, mine);
          done();
        };
        free.push(drop);
      },
      done,
    );
  }

  function truncater(node: ModelNode): void {
    if (stepsLeft <= 0) return;
    unfinished += 1;
    pin(
      node,
      Mode.EX,
      true,
      () => {
        checkPins(node, Mode.EX);
        free.push(() => {
          unpinData(node.state, node.cover, steps.now);
          perform(node);
          unfinished -= 1;
          node.operations += 1;
          free.push(() => truncater(node));
        });
      },
      () => {
        unfinished -= 1;
        free.push(() => truncater(node));
      },
    );
  }

  function reader(node: ModelNode): void {
    if (stepsLeft <= 0) return;
    unfinished += 1;
    read(node, () => {
      unfinished -= 1;
      node.operations += 1;
      free.push(() => reader(node));
    });
  }

  function writer(node: ModelNode): void {
    if (stepsLeft <= 0) return;
    unfinished += 1;
    const opened = (access: "cached" | "direct"): void => {
      if (access === "cached" && nodes.some((other) => other !== node && (other.cover.token?.users ?? 0) > 0 && tokenHeld(other.cover)))
        note("two nodes have a page cache with write access");
      // O_RDWR: a mapping could be made, and writes of it come without a word (hazard F9).
      const inode = node.cover.inode as Inode;
      const mappable = access === "cached" && random() < 0.5 ? 1 : 0;
      inode.mappableCount += mappable;
      let left = Math.floor(random() * 3);
      const next = (): void => {
        if (left > 0) {
          left -= 1;
          (access === "cached" ? writeCached : writeDirect)(node, next);
          return;
        }
        inode.mappableCount -= mappable;
        if (access === "cached") {
          closeToken(node.state, node.cover);
          perform(node);
        }
        unfinished -= 1;
        node.operations += 1;
        free.push(() => writer(node));
      };
      next();
    };
    const open = (): void => {
      if (openToken(node.state, node.cover, (result) => free.push(() => opened(result)))) {
        if (node.cover.token?.unregistered === true) implied += 1;
        opened("cached");
      }
      perform(node);
    };
    if (node.cover.grant > 0 || options.born !== true) return open();
    // As Coherence.openForWrite.
    const looked = (): void => {
      unpin(node.state, node.cover, steps.now);
      perform(node);
      open();
    };
    pin(node, Mode.PR, false, looked, () => {
      unfinished -= 1;
    });
  }

  if (options.born === true) {
    const { state, cover, id } = nodes[0] as ModelNode;
    enterUnregistered(state, cover, 0);
    registerBorn(state, { shared: false, keeps: true });
    state.effects.length = 0;
    inodeLock.locks.push({ granted: Mode.EX, requested: null, node: id });
    handleAst(state, cover, "granted", Mode.EX, 0);
  }

  for (const node of nodes) {
    for (let k = 0; k < options.readersPerNode; k += 1) reader(node);
    for (let k = 0; k < options.writersPerNode; k += 1) writer(node);
    for (let k = 0; k < (options.truncatersPerNode ?? 0); k += 1) truncater(node);
    for (let k = 0; k < (options.lookersPerNode ?? 0); k += 1) looker(node);
  }

  let taken = 0;
  // After the last new operation, everything begun must come to its end.
  while (taken < options.steps * 4 && steps.take()) {
    taken += 1;
    stepsLeft -= 1;
    if (violation !== null) break;
  }
  const operations = nodes.reduce((sum, node) => sum + node.operations, 0);
  return { violation, operations, unfinished, rounds, heldBack, killed, steps: taken, implied, registered };
}
