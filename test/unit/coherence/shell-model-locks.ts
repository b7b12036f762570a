/**
 * The lock manager of the model of shells (shell-model.ts), as their programs see it: locks of many resources, each with a channel of its own to and from each node.
 * So what concerns two inodes may overtake each other, as between two masters.
 */
import { type Lock, LockFlag, type LockHandlers, type LockStatus, type Lockspace } from "../../../dlmd/client/api.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import type { ModelSteps } from "./model-steps.ts";

type Send = (step: () => void) => void;

/** A lock at its master. */
interface MasterLock {
  readonly node: number;
  granted: Mode;
  requested: Mode | null;
  /** Conversions down that came: a blocking AST of before is dropped by the holder (hazard H5). */
  downs: number;
  readonly tell: (status: LockStatus, mode: Mode) => void;
  readonly want: (wanted: Mode, downs: number) => void;
}

class Resource {
  readonly locks = new Set<MasterLock>();
  #converting: MasterLock[] = [];
  #waiting: MasterLock[] = [];

  #others(lock: MasterLock): MasterLock[] {
    return [...this.locks].filter((other) => other !== lock);
  }

  request(lock: MasterLock, mode: Mode, flags: number): void {
    const isNew = !this.locks.has(lock);
    if (!isNew && modeCovers(lock.granted, mode)) {
      lock.granted = mode;
      lock.downs += 1;
      return this.#grant();
    }
    const blockers = this.#others(lock).filter(({ granted }) => !modesCompatible(granted, mode));
    const isFree = blockers.length === 0 && this.#converting.length === 0 && (!isNew || this.#waiting.length === 0);
    if (isFree) {
      this.locks.add(lock);
      lock.granted = mode;
      return lock.tell("granted", mode);
    }
    if ((flags & LockFlag.NOQUEUE) !== 0) {
      if ((flags & LockFlag.NOQUEUEBAST) !== 0) for (const one of blockers) one.want(mode, one.downs);
      return lock.tell("again", lock.granted);
    }
    const { granted } = lock;
    if (!isNew && this.#converting.some(({ requested }) => !modesCompatible(granted, requested as Mode)))
      return lock.tell("deadlock", granted);
    lock.requested = mode;
    (isNew ? this.#waiting : this.#converting).push(lock);
    for (const one of blockers) one.want(mode, one.downs);
  }

  cancel(lock: MasterLock): void {
    if (lock.requested === null) return;
    lock.requested = null;
    this.#converting = this.#converting.filter((other) => other !== lock);
    this.#waiting = this.#waiting.filter((other) => other !== lock);
    lock.tell("canceled", lock.granted);
    this.#grant();
  }

  release(lock: MasterLock): void {
    this.locks.delete(lock);
    this.#converting = this.#converting.filter((other) => other !== lock);
    this.#waiting = this.#waiting.filter((other) => other !== lock);
    this.#grant();
  }

  cancelOf(node: number): void {
    for (const lock of [...this.#converting, ...this.#waiting]) if (lock.node === node) this.cancel(lock);
  }

  releaseOf(node: number): void {
    for (const lock of [...this.locks, ...this.#waiting]) if (lock.node === node) this.release(lock);
  }

  #grant(): void {
    for (const queue of [this.#converting, this.#waiting]) {
      for (let head = queue[0]; head !== undefined; head = queue[0]) {
        const wanted = head.requested as Mode;
        if (!this.#others(head).every(({ granted }) => modesCompatible(granted, wanted))) break;
        queue.shift();
        this.locks.add(head);
        head.granted = wanted;
        head.requested = null;
        head.tell("granted", wanted);
      }
      if (queue.length > 0) break;
    }
    const head = this.#converting[0] ?? this.#waiting[0];
    if (head === undefined) return;
    const wanted = head.requested as Mode;
    for (const one of this.#others(head)) if (!modesCompatible(one.granted, wanted)) one.want(wanted, one.downs);
  }
}

interface Channels {
  readonly to: Send;
  readonly from: Send;
}

export class ModelLockManager {
  readonly #steps: ModelSteps;
  readonly #resources = new Map<string, Resource>();
  readonly #channels = new Map<string, Channels>();
  /** Nodes whose lock manager has died. */
  readonly #cutOff = new Set<number>();

  constructor(steps: ModelSteps) {
    this.#steps = steps;
  }

  /** Granted, as the masters have it. */
  held(): string[] {
    return [...this.#resources].flatMap(([name, { locks }]) => [...locks].map(({ node, granted }) => `${name} ${granted} of node ${node}`));
  }

  /** What is on its way to or from that node is lost; its locks stay. */
  cutOff(node: number): void {
    this.#cutOff.add(node);
  }

  /** Its locks go to others; of some it has what was granted still, but not what it had asked for. */
  releaseAll(node: number, but: ReadonlySet<string> = new Set()): void {
    for (const [name, resource] of this.#resources) {
      if (but.has(name)) resource.cancelOf(node);
      else resource.releaseOf(node);
    }
  }

  #channelsOf(node: number, resource: string): Channels {
    const key = `${node} ${resource}`;
    let channels = this.#channels.get(key);
    if (channels === undefined) {
      const [to, from] = [this.#steps.channel(), this.#steps.channel()];
      const living =
        (send: Send): Send =>
        (step) =>
          send(() => {
            if (!this.#cutOff.has(node)) step();
          });
      channels = { to: living(to), from: living(from) };
      this.#channels.set(key, channels);
    }
    return channels;
  }

  #resourceOf(name: string): Resource {
    const resource = this.#resources.get(name) ?? new Resource();
    this.#resources.set(name, resource);
    return resource;
  }

  lockspace(node: number): Lockspace {
    const createLock = <A>(resource: string, handlers: LockHandlers<A | undefined>, astarg?: A): Lock =>
      this.#createLock(node, resource, handlers, astarg);
    return { name: "model", createLock, batch: (make) => make(), whenOver: () => () => undefined };
  }

  #createLock<A>(node: number, resource: string, handlers: LockHandlers<A | undefined>, astarg?: A): Lock {
    const { to, from } = this.#channelsOf(node, resource);
    const master = this.#resourceOf(resource);
    const lock = { resource, mode: Mode.NL as Mode, exists: false, busy: false, lvb: null, lvbValid: false, error: null };
    let downs = 0;
    const end = (status: LockStatus): void => handlers.ast(made, status, astarg);
    const newAtMaster = (): MasterLock => {
      const own: MasterLock = {
        node,
        granted: Mode.NL,
        requested: null,
        downs: 0,
        tell: (status, mode) =>
          from(() => {
            lock.busy = false;
            if (status === "granted") lock.exists = true;
            if (lock.exists) lock.mode = mode;
            end(status);
          }),
        want: (wanted, since) =>
          from(() => {
            const stands = there === own && since === downs;
            if (stands && lock.exists && lock.mode !== Mode.NL) handlers.bast(made, wanted, astarg);
          }),
      };
      return own;
    };
    let there = newAtMaster();
    const isAlive = (): boolean => !this.#cutOff.has(node);
    const made: Lock = Object.assign(lock, {
      request: (mode: Mode, flags: number) => {
        if (lock.busy) throw new Error(`${resource}: a request is outstanding`);
        lock.busy = true;
        if (!lock.exists) {
          there = newAtMaster();
          downs = 0;
        }
        const asked = there;
        if (lock.exists && modeCovers(lock.mode, mode)) {
          lock.mode = mode;
          downs += 1;
          queueMicrotask(() => {
            if (!isAlive()) return;
            lock.busy = false;
            end("granted");
          });
        }
        to(() => master.request(asked, mode, flags));
      },
      unlock: () => {
        if (lock.busy) throw new Error(`${resource}: a request is outstanding`);
        if (!lock.exists) throw new Error(`${resource}: nothing to unlock`);
        lock.busy = true;
        lock.mode = Mode.NL;
        const asked = there;
        to(() => master.release(asked));
        queueMicrotask(() => {
          if (!isAlive()) return;
          Object.assign(lock, { busy: false, exists: false });
          end("unlocked");
        });
      },
      cancel: () => {
        const asked = there;
        if (lock.busy) to(() => master.cancel(asked));
      },
    });
    return made;
  }
}
