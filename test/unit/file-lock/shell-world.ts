/**
 * What the shells of file locks (VolumeFileLocks) of several processes talk to: the real master of dlmd's service, a model of the lock manager for the state of each
 * file, and the ways between them. What comes to a process comes by one socket, in order, and often several at once: callbacks of one turn.
 */
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { LockFlag, type Lock, type LockHandlers, type Lockspace } from "../../../dlmd/client/api.ts";
import type { FileLockResult, FileLocks } from "../../../dlmd/client/file-lock-api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import type { FileLockRow } from "../../../overlay/file-lock/api.ts";
import { VolumeFileLocks } from "../../../overlay/file-lock/file-locks.ts";
import { endClient } from "./end-client.ts";

const statuses = { ok: "granted", again: "again", deadlock: "deadlock", canceled: "canceled", limit: "limit" } as const;

/** At the lock manager. */
interface StateLock {
  readonly process: ShellProcess;
  readonly tell: (what: "granted" | "again" | "wanted", mode: Mode) => void;
}

type StateRequest = "ask" | "inherit" | "inherit-shared" | "adopt" | "share" | "back" | "give-up";

/** The lock of one file's state: EX, or CW beside CW; in the order of coming. */
class StateResource {
  readonly held = new Map<StateLock, Mode>();
  #queue: { readonly lock: StateLock; readonly shared: boolean }[] = [];
  readonly #told = new Set<StateLock>();

  receive(lock: StateLock, what: StateRequest): void {
    if (what === "ask") this.#queue.push({ lock, shared: false });
    else if (what === "inherit" || what === "inherit-shared") this.#queue.unshift({ lock, shared: what !== "inherit" });
    else if (what === "adopt") this.#adopt(lock);
    else if (what === "give-up") this.#forget(lock);
    else if (what === "share") this.#grant(lock, Mode.CW);
    else if (this.held.size === 1) this.#grant(lock, Mode.EX);
    else lock.tell("again", Mode.CW);
    if (what === "share" || what === "back" || what === "give-up") this.#told.delete(lock);
    this.#settle();
  }

  /** A process that has crashed has it. */
  #adopt(lock: StateLock): void {
    const kept = [...this.held.keys()].find(({ process }) => process.crashed && process.node === lock.process.node);
    if (kept === undefined || this.held.get(kept) !== Mode.EX) throw new Error("a state that is adopted is not there");
    this.#forget(kept);
    this.#told.delete(kept);
    this.#grant(lock, Mode.EX);
  }

  #grant(lock: StateLock, mode: Mode): void {
    this.held.set(lock, mode);
    lock.tell("granted", mode);
  }

  #forget(lock: StateLock): void {
    this.held.delete(lock);
    this.#queue = this.#queue.filter((one) => one.lock !== lock);
  }

  /** All that a process had. */
  end(process: ShellProcess): void {
    for (const lock of [...this.held.keys(), ...this.#queue.map((one) => one.lock)]) if (lock.process === process) this.#forget(lock);
    this.#settle();
  }

  #settle(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const modes = [...this.held.values()];
      const mode = modes.length === 0 && !first.shared ? Mode.EX : modes.every((one) => one === Mode.CW) ? Mode.CW : null;
      if (mode === null) {
        for (const holder of this.held.keys()) {
          if (!this.#told.has(holder)) holder.tell("wanted", Mode.NL);
          this.#told.add(holder);
        }
        return;
      }
      this.#queue.shift();
      this.#grant(first.lock, mode);
    }
  }
}

/** A process that serves the mount of a node. */
export interface ShellProcess {
  readonly node: number;
  readonly client: number;
  readonly locks: VolumeFileLocks;
  /** What it has written down. */
  readonly rows: Map<string, FileLockRow>;
  /** It has let go, or is dead: it hears nothing more. */
  over: boolean;
  crashed: boolean;
  readonly errors: Error[];
}

export class ShellWorld {
  readonly processes: ShellProcess[] = [];
  readonly #files: readonly string[];
  readonly #below: (limit: number) => number;
  readonly #channels = new Map<string, (() => void)[]>();
  readonly #states = new Map<string, StateResource>();
  /** Of each request of the service, by client and number. */
  readonly #asked = new Map<string, { readonly file: string; readonly ended: (result: FileLockResult) => void }>();
  readonly #master: PlockMaster;
  #blocked = false;

  constructor(below: (limit: number) => number, files: readonly string[]) {
    this.#below = below;
    this.#files = files;
    this.#master = new PlockMaster(
      {
        nodeid: 0,
        nowMs: () => Date.now(),
        send: (client, message) => {
          if (message.kind !== "plock-answer" || message.status === "removed") return;
          const { requestId, status, conflict } = message;
          const request = this.#asked.get(`${client} ${requestId}`);
          const result: FileLockResult = { status: statuses[status], conflict };
          this.#send(`from ${request?.file} service ${client}`, () => this.#toProcess(client, () => request?.ended(result)));
        },
        protest: (node, message) => {
          throw new Error(`client ${node}: ${message}`);
        },
        blocks: () => this.#blocked,
        blocked: () => undefined,
      },
      { fileLocksPerFile: 100_000, fileLocksPerClient: 100_000 },
    );
  }

  #send(channel: string, act: () => void): void {
    const queue = this.#channels.get(channel) ?? [];
    this.#channels.set(channel, queue);
    queue.push(act);
  }

  /** One that is dead says nothing more. */
  #ofProcess(client: number, channel: string, act: () => void): void {
    if (this.processes[client]?.over !== true) this.#send(channel, act);
  }

  #toProcess(client: number, act: () => void): void {
    this.#send(`socket ${client}`, () => {
      if (this.processes[client]?.over === false) act();
    });
  }

  /** Some of what is on its way, of one channel, comes in one turn. False: nothing is. */
  deliver(): boolean {
    const queues = [...this.#channels.values()].filter((queue) => queue.length > 0);
    const queue = queues[this.#below(queues.length)];
    if (queue === undefined) return false;
    for (const act of queue.splice(0, 1 + this.#below(4))) act();
    return true;
  }

  #state(file: string): StateResource {
    const state = this.#states.get(file) ?? new StateResource();
    this.#states.set(file, state);
    return state;
  }

  #createLock(process: ShellProcess, file: string, handlers: LockHandlers): Lock {
    const lock = { resource: file, mode: Mode.NL as Mode, exists: true, busy: false };
    const whole = lock as unknown as Lock;
    const tell = (what: "granted" | "again" | "wanted", mode: Mode): void =>
      this.#send(`from ${file} dlm ${process.client}`, () =>
        this.#toProcess(process.client, () => {
          if (what === "wanted") return handlers.bast(whole, Mode.EX);
          lock.busy = false;
          lock.mode = mode;
          handlers.ast(whole, what);
        }),
      );
    const at: StateLock = { process, tell };
    const request = (mode: Mode, flags: number): void => {
      lock.busy = true;
      const first = (flags & LockFlag.HEADQUE) !== 0;
      const what: StateRequest =
        (flags & LockFlag.ORPHAN) !== 0
          ? "adopt"
          : (flags & LockFlag.CONVERT) !== 0
            ? mode === Mode.CW
              ? "share"
              : "back"
            : !first
              ? "ask"
              : mode === Mode.CW
                ? "inherit-shared"
                : "inherit";
      this.#ofProcess(process.client, `${process.node} dlm ${file}`, () => this.#state(file).receive(at, what));
    };
    const unlock = (): void =>
      this.#ofProcess(process.client, `${process.node} dlm ${file}`, () => this.#state(file).receive(at, "give-up"));
    return Object.assign(lock, { request, unlock }) as unknown as Lock;
  }

  #service(node: number, client: number): FileLocks {
    let last = 0;
    const start: FileLocks["start"] = (
      op,
      file,
      { kind, owner, pid },
      range,
      { wait, begun = false, heldMs = null, first = false },
      ended,
    ) => {
      const requestId = (last += 1);
      this.#asked.set(`${client} ${requestId}`, { file, ended });
      const { type, start: from = 0n, end = maxOffset } = range;
      const who = { clientId: client, ownerKind: kind, owner };
      const how = { wait: wait && op === "lock", entangled: false, begun, heldMs, first };
      this.#ofProcess(client, `${node} service ${file}`, () =>
        this.#master.request(client, { ...who, ...how, requestId, lockspace: "v", file, op, type, start: from, end, pid }),
      );
      return requestId;
    };
    return {
      start,
      cancel: (requestId: number) =>
        this.#ofProcess(client, `${node} service ${this.#asked.get(`${client} ${requestId}`)?.file}`, () =>
          this.#master.cancel(client, requestId),
        ),
      test: (file: string, owner: { kind: "posix"; owner: bigint; pid: number }, wanted: { type: "read" }) =>
        new Promise((resolve) => start("test", file, owner, wanted, { wait: false }, () => resolve(null))),
      release: (file: string, { kind, owner }: { kind: "posix" | "flock"; owner: bigint }) =>
        void start("unlock", file, { kind, owner, pid: 0 }, { type: "read" }, { wait: false }, () => undefined),
    } as unknown as FileLocks;
  }

  start(node: number): ShellProcess {
    const client = this.processes.length;
    const rows = new Map<string, FileLockRow>();
    const errors: Error[] = [];
    const locks: VolumeFileLocks = new VolumeFileLocks({
      lockspace: {
        createLock: (file: string, handlers: LockHandlers) => this.#createLock(process, file, handlers),
      } as unknown as Lockspace,
      service: this.#service(node, client),
      nodeid: node + 1,
      clientId: client,
      now: () => Date.now(),
      fail: (error) => errors.push(error),
      journal: {
        set: (file, row) => void (row === null ? rows.delete(file) : rows.set(file, structuredClone(row))),
        setBeyond: () => undefined,
        locksMax: 256,
        areBeyond: false,
      },
    });
    const process: ShellProcess = { node, client, locks, rows, errors, over: false, crashed: false };
    this.processes.push(process);
    return process;
  }

  /** What dlmd has kept of a process that has crashed goes. What it said before arrives first. */
  forget(process: ShellProcess): void {
    for (const file of this.#files) {
      this.#send(`${process.node} service ${file}`, () =>
        endClient(
          this.#master,
          process.client,
          file,
          Array.from(this.#asked, ([request, asked]) => [request, asked.file] as const),
        ),
      );
      this.#send(`${process.node} dlm ${file}`, () => this.#state(file).end(process));
    }
  }

  /** Nothing is granted by the service: a recovery, or a fence that is awaited. */
  get blocked(): boolean {
    return this.#blocked;
  }

  set blocked(blocked: boolean) {
    this.#blocked = blocked;
    if (!blocked) this.#master.unblock();
  }

  /** The service finds a circle, it says, or one that is none if they wait by turns. */
  sentence(): void {
    const sentence = this.#below(2) === 0 ? "deadlock" : "overtake";
    const waiters = [...this.#master.waiters()].filter(({ holder }) => holder.owner.kind === "posix" || sentence === "overtake");
    const waiter = waiters[this.#below(waiters.length)];
    if (waiter !== undefined) this.#master.sentence(waiter, sentence);
  }

  /** Locks and requests that the service has. */
  inService(): number {
    return [...this.#master.files.values()].reduce((sum, { ranges, flock }) => sum + ranges.size + flock.size, 0);
  }
}
