/**
 * Nodes with the real rules of file locks (overlay/file-lock/core.ts), the real master of dlmd's service (dlmd/plock/master.ts), a model of the
 * lock manager for the state of each file, and a network between them that delays each channel as it likes. What is held is judged from outside.
 */
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { changeOwned, type Held } from "../../../dlmd/plock/owned.ts";
import { IntervalTree } from "../../../dlmd/plock/interval-tree.ts";
import { maxOffset, typesConflict } from "../../../dlmd/wire/plock-range.ts";
import type { PlockAsk, PlockMessage } from "../../../dlmd/wire/peer-plock.ts";
import type { FileLockStatus } from "../../../dlmd/client/file-lock-api.ts";
import type { LockFound } from "../../../overlay/fuse/reply.ts";
import { FileLockCore, type FileLockLimits } from "../../../overlay/file-lock/core.ts";
import type { FileLockAnswer, FileLockAsk, FileLockPort } from "../../../overlay/file-lock/core-port.ts";
import type { LockOwner } from "../../../overlay/file-lock/api.ts";
import { certainlyHeldOn, hasLocks, heldOn, type LockedFile } from "../../../overlay/file-lock/locked-file.ts";
import { endClient } from "./end-client.ts";

const statuses: Record<string, FileLockStatus> = {
  ok: "granted",
  again: "again",
  deadlock: "deadlock",
  canceled: "canceled",
  limit: "limit",
};

const noTable = { holders: new Map() };
const nothing = { ranges: noTable, flock: noTable } as unknown as LockedFile;

/** The lock of a file's state at dlmd: EX, or CW beside CW; in the order of coming. */
class StateResource {
  readonly held = new Map<number, "EX" | "CW">();
  #queue: { readonly node: number; readonly shared: boolean }[] = [];
  readonly #told = new Set<number>();
  readonly #send: (node: number, message: StateMessage) => void;

  constructor(send: (node: number, message: StateMessage) => void) {
    this.#send = send;
  }

  receive(node: number, what: StateRequest): void {
    if (what === "ask") this.#queue.push({ node, shared: false });
    else if (what === "inherit" || what === "inherit-shared") this.#queue.unshift({ node, shared: what !== "inherit" });
    else if (what === "give-up") {
      this.held.delete(node);
      this.#queue = this.#queue.filter((one) => one.node !== node);
    } else if (what === "share") this.held.set(node, "CW");
    else {
      if (this.held.size === 1) this.held.set(node, "EX");
      this.#send(node, this.held.get(node) as "EX" | "CW");
    }
    if (!what.startsWith("inherit") && what !== "ask") this.#told.delete(node);
    this.#settle();
  }

  #settle(): void {
    for (;;) {
      const [first] = this.#queue;
      if (first === undefined) return;
      const { node, shared } = first;
      const modes = [...this.held.values()];
      const mode = modes.length === 0 && !shared ? "EX" : modes.every((one) => one === "CW") ? "CW" : null;
      if (mode === null) {
        for (const holder of this.held.keys()) {
          if (!this.#told.has(holder)) this.#send(holder, "wanted");
          this.#told.add(holder);
        }
        return;
      }
      this.#queue.shift();
      this.held.set(node, mode);
      this.#send(node, mode);
    }
  }
}

type StateMessage = "EX" | "CW" | "wanted";
type StateRequest = "ask" | "inherit" | "inherit-shared" | "share" | "back" | "give-up";

/** A process that serves the mount of a node. */
interface Process {
  readonly node: number;
  /** As the lock manager and the service know it: no other process has it. */
  readonly client: number;
  readonly core: FileLockCore;
  /** Files whose state the process before has, or had: in which mode. */
  readonly inherited: Map<string, "EX" | "CW">;
  /** As it knows them. */
  readonly modes: Map<string, "EX" | "CW">;
  /** It has let go: nothing that comes for it means anything. */
  over: boolean;
  /** What it had is given up. */
  gone: boolean;
}

interface Owned {
  readonly tree: IntervalTree<Held<string>>;
}

/** An owner of a node, one of its threads if it has several, and the request of that without an answer. */
export interface Caller {
  readonly node: number;
  readonly owner: LockOwner;
  pending: { readonly ask: FileLockAsk; readonly id: number; readonly sinceMs: number } | null;
}

export class LockCluster {
  nowMs = 0;
  /** Sent to the lock manager and to the service. */
  messages = 0;
  readonly nodes: FileLockCore[] = [];
  readonly answers: { readonly node: number; readonly ask: FileLockAsk; readonly answer: FileLockAnswer }[] = [];
  readonly #events: { readonly atMs: number; readonly no: number; readonly run: () => void }[] = [];
  readonly #channels = new Map<string, number>();
  readonly #states = new Map<string, StateResource>();
  readonly #master: PlockMaster;
  readonly #callers: Map<number, Caller>[] = [];
  /** That have ever asked. */
  readonly #all = new Set<Caller>();
  readonly #processes: Process[] = [];
  readonly #limits: Partial<FileLockLimits>;
  /** What an owner holds for certain: not what it is giving up. By file and owner. */
  readonly #certain = new Map<string, Map<string, Owned>>();
  readonly #delayMs: (channel: string) => number;
  /** Of each request of the service, by client and number. */
  readonly #files = new Map<string, string>();
  /** By a process that has crashed. */
  #unanswered: Caller[] = [];
  #onTheWay = 0;
  #blocked = false;
  #no = 0;
  #rank = 0;

  constructor(nodes: number, delayMs: (channel: string) => number, limits: Partial<FileLockLimits> = {}, serviceLimit = 100_000) {
    this.#delayMs = delayMs;
    this.#limits = limits;
    this.#master = new PlockMaster(
      {
        nodeid: 0,
        nowMs: () => this.nowMs,
        send: (client, message) => {
          const process = this.#processes[client] as Process;
          this.#deliver(`service ${process.node} ${this.#fileOf(client, message)}`, () => this.#serviceAnswered(process, message));
        },
        protest: (node, message) => {
          throw new Error(`node ${node}: ${message}`);
        },
        blocks: () => this.#blocked,
        blocked: () => undefined,
      },
      { fileLocksPerFile: serviceLimit, fileLocksPerClient: serviceLimit },
    );
    for (let node = 0; node < nodes; node++) {
      this.#callers.push(new Map());
      this.#start(node);
    }
  }

  #start(node: number): Process {
    const client = this.#processes.length;
    const inherited = new Map<string, "EX" | "CW">();
    const core: FileLockCore = new FileLockCore(this.#port(node, client, inherited), this.#limits);
    const process = { node, client, core, inherited, modes: new Map(), over: false, gone: false };
    this.#processes.push(process);
    this.nodes[node] = core;
    return process;
  }

  // --- another process of a node goes on

  #serving(node: number): Process {
    return this.#processes.findLast((one) => one.node === node) as Process;
  }

  /** It has all that the one before had: programs may ask, if that one has let go. */
  serves(node: number): boolean {
    const { inherited, core } = this.#serving(node);
    return inherited.size === 0 && core.hasInherited;
  }

  /** When all rests, a new process asks for all that this one has until `letGo`: gives how many files are shared. No program asks meanwhile. */
  restart(node: number): number | "waits" {
    const old = this.#serving(node);
    if (!old.core.freeze() || (this.#callers[node]?.size ?? 0) > 0) return "waits";
    return this.#inherit(old);
  }

  /** The process ends at any time, and another one goes on with what was written down. What it had stays until `letGo`, and what it has said arrives. */
  crash(node: number): number {
    const old = this.#serving(node);
    old.over = true;
    for (const caller of this.#callers[node]?.values() ?? []) {
      // The next process has another number for it.
      if (caller.pending !== null) caller.pending = { ...caller.pending, id: -1 };
      this.#unanswered.push(caller);
    }
    this.#callers[node]?.clear();
    return this.#inherit(old);
  }

  #inherit(old: Process): number {
    const isShared = ({ name, state }: LockedFile): boolean =>
      state === "shared" || (state === "returning" && old.modes.get(name) !== "EX");
    const rows = [...old.core.files.values()].filter(hasLocks).map((file) => {
      const shared = isShared(file);
      return { name: file.name, shared, locks: certainlyHeldOn(file, shared) };
    });
    const held = rows.filter(({ locks }) => locks.length > 0);
    const next = this.#start(old.node);
    for (const { name, shared, locks } of held) next.core.inherit(name, locks, shared);
    return held.filter(({ shared }) => shared).length;
  }

  /** All processes before the one that is to serve that node. */
  letGo(node: number): void {
    for (const old of this.#processes.filter((one) => one.node === node).slice(0, -1)) if (!old.gone) this.#letGo(node, old);
  }

  #letGo(node: number, old: Process): void {
    old.over = true;
    old.gone = true;
    // Each file has a master of its own.
    for (const file of new Set(this.#files.values()))
      this.#deliver(`${node} service ${file}`, () => endClient(this.#master, old.client, file, this.#files));
    for (const name of new Set([...this.#states.keys(), ...old.core.files.keys()])) this.#tellState(old, name, "give-up");
  }

  /** The kernel asks the new process once more. */
  askAgain(node: number): void {
    const mine = this.#unanswered.filter((caller) => caller.node === node);
    this.#unanswered = this.#unanswered.filter((caller) => caller.node !== node);
    for (const caller of mine) {
      const ask = caller.pending?.ask;
      caller.pending = null;
      if (ask !== undefined) this.ask(caller, ask);
    }
  }

  #at(atMs: number, run: () => void): void {
    this.#events.push({ atMs, no: this.#no++, run });
  }

  /** In order, on each channel. */
  #deliver(channel: string, run: () => void): void {
    const atMs = Math.max(this.#channels.get(channel) ?? 0, this.nowMs + this.#delayMs(channel));
    this.#channels.set(channel, atMs);
    this.#onTheWay += 1;
    this.#at(atMs, () => {
      this.#onTheWay -= 1;
      run();
    });
  }

  /** The next event; false: there is none, up to that time. */
  step(untilMs: number = Number.POSITIVE_INFINITY): boolean {
    let next = 0;
    const events = this.#events;
    for (let at = 1; at < events.length; at++) {
      const [a, b] = [events[at] as (typeof events)[0], events[next] as (typeof events)[0]];
      if (a.atMs < b.atMs || (a.atMs === b.atMs && a.no < b.no)) next = at;
    }
    if ((events[next]?.atMs ?? 0) > untilMs) return false;
    const [event] = events.splice(next, 1);
    if (event === undefined) return false;
    this.nowMs = Math.max(this.nowMs, event.atMs);
    event.run();
    if (this.#onTheWay === 0) this.#judgeRest();
    return true;
  }

  settle(): void {
    for (let steps = 0; this.step(); steps++) if (steps > 100_000) throw new Error("it never comes to rest");
  }

  #fileOf(client: number, message: PlockMessage): string {
    return message.kind === "plock-answer" ? (this.#files.get(`${client} ${message.requestId}`) ?? "") : "";
  }

  #state(file: string): StateResource {
    let state = this.#states.get(file);
    if (state === undefined) {
      state = new StateResource((client, message) => {
        const { node, core, inherited, modes } = this.#processes[client] as Process;
        this.#deliver(`dlm ${node} ${file}`, () => {
          if (this.#processes[client]?.over === true) return;
          if (message === "wanted") core.stateWanted(file);
          else {
            modes.set(file, message);
            const expected = inherited.get(file);
            if (!inherited.delete(file)) core.stateGranted(file, message === "EX" ? "local" : "shared");
            else if (message !== expected) throw new Error(`${file} is inherited in ${message}`);
          }
        });
      });
      this.#states.set(file, state);
    }
    return state;
  }

  #tellState({ node, client }: Pick<Process, "node" | "client">, file: string, what: StateRequest): void {
    this.messages++;
    this.#deliver(`${node} dlm ${file}`, () => this.#state(file).receive(client, what));
  }

  #port(node: number, client: number, inherited: Map<string, "EX" | "CW">): FileLockPort {
    const state = (file: string, what: StateRequest): void => this.#tellState({ node, client }, file, what);
    return {
      nowMs: () => this.nowMs,
      askState: (file) => state(file, "ask"),
      inheritState: (file, shared) => {
        inherited.set(file, shared ? "CW" : "EX");
        state(file, shared ? "inherit-shared" : "inherit");
      },
      shareState: (file) => {
        (this.#processes[client] as Process).modes.set(file, "CW");
        state(file, "share");
      },
      takeBackState: (file) => state(file, "back"),
      giveUpState: (file) => state(file, "give-up"),
      ask: (id, ask) => {
        this.messages++;
        const { file, op, owner, range, pid, wait, begun, heldMs, first } = ask;
        const kind = { ownerKind: owner.kind, owner: owner.owner } as const;
        const message: PlockAsk = {
          requestId: id,
          lockspace: "v",
          file,
          clientId: client,
          ...kind,
          op,
          ...range,
          pid,
          wait: wait && op === "lock",
          entangled: false,
          begun,
          heldMs,
          first,
        };
        this.#files.set(`${client} ${id}`, file);
        this.#deliver(`${node} service ${file}`, () => this.#master.request(client, message));
      },
      cancel: (id) => this.#deliver(`${node} service ${this.#files.get(`${client} ${id}`)}`, () => this.#master.cancel(client, id)),
      answer: (id, answer) => this.#answered(node, id, answer),
      setTimer: (file, delayMs) => {
        const process = (): Process => this.#processes[client] as Process;
        this.#at(this.nowMs + delayMs, () => void (process().over || process().core.handleTimer(file)));
      },
    };
  }

  #serviceAnswered({ core, over }: Process, message: PlockMessage): void {
    if (over || message.kind !== "plock-answer" || message.status === "removed") return;
    const { conflict } = message;
    const found: LockFound | null = conflict && { type: conflict.type, start: conflict.start, end: conflict.end, pid: conflict.pid };
    core.serviceAnswered(message.requestId, statuses[message.status] as FileLockStatus, found);
  }

  // --- programs

  ask(caller: Caller, ask: Omit<FileLockAsk, "owner">): void {
    const { node, owner } = caller;
    if (caller.pending !== null) throw new Error("one request of a thread at a time");
    this.#all.add(caller);
    const whole = { ...ask, owner };
    this.#giveUpFirst(node, whole);
    const core = this.nodes[node] as FileLockCore;
    let early: FileLockAnswer | null = null;
    this.#early = (answer) => (early = answer);
    const id = core.request(whole);
    this.#early = null;
    if (early !== null) return this.#judge(node, whole, early, this.nowMs);
    caller.pending = { ask: whole, id, sinceMs: this.nowMs };
    this.#callers[node]?.set(id, caller);
  }

  #early: ((answer: FileLockAnswer) => void) | null = null;

  #answered(node: number, id: number, answer: FileLockAnswer): void {
    const caller = this.#callers[node]?.get(id);
    if (caller === undefined) return this.#early?.(answer);
    this.#callers[node]?.delete(id);
    const { pending } = caller;
    caller.pending = null;
    if (pending !== null) this.#judge(node, pending.ask, answer, pending.sinceMs);
  }

  // --- the judge

  #certainOf(file: string, node: number, { kind, owner }: LockOwner): Owned {
    const space = `${file} ${kind}`;
    let owners = this.#certain.get(space);
    if (owners === undefined) {
      owners = new Map();
      this.#certain.set(space, owners);
    }
    const name = `${node}/${owner}`;
    let owned = owners.get(name);
    if (owned === undefined) {
      owned = { tree: new IntervalTree() };
      owners.set(name, owned);
    }
    return owned;
  }

  #change(file: string, node: number, owner: LockOwner, start: bigint, end: bigint, type: "read" | "write" | null): void {
    const { tree } = this.#certainOf(file, node, owner);
    changeOwned(tree, `${node}/${owner.owner}`, { start, end, type, pid: 0 }, null, () => ++this.#rank);
  }

  /** From when it asks for less it may have less. */
  #giveUpFirst(node: number, { file, op, owner, range }: FileLockAsk): void {
    if (op === "unlock" || (op === "lock" && owner.kind === "flock")) return this.#change(file, node, owner, range.start, range.end, null);
    if (op !== "lock" || range.type !== "read") return;
    for (const held of this.#certainOf(file, node, owner).tree.overlapping(range.start, range.end)) {
      const start = held.start > range.start ? held.start : range.start;
      const end = held.end < range.end ? held.end : range.end;
      this.#change(file, node, owner, start, end, "read");
    }
  }

  /** What other threads of the owner have asked for, without an answer. */
  #underWay(file: string, node: number, { kind, owner }: LockOwner): FileLockAsk[] {
    const found: FileLockAsk[] = [];
    for (const { node: of, owner: who, pending } of this.#all)
      if (of === node && who.kind === kind && who.owner === owner && pending?.ask.file === file && pending.ask.op !== "test")
        found.push(pending.ask);
    return found;
  }

  #judge(node: number, ask: FileLockAsk, answer: FileLockAnswer, _sinceMs: number): void {
    this.answers.push({ node, ask, answer });
    const { file, op, owner, range } = ask;
    if (op !== "lock" || answer.status !== "granted") return;
    const others = this.#underWay(file, node, owner);
    if (owner.kind === "flock" && others.length > 0) return;
    this.#change(file, node, owner, range.start, range.end, range.type);
    // Another thread has asked for less, and is not answered: by now its owner may have no more than that.
    for (const other of others) this.#giveUpFirst(node, other);
    const me = `${node}/${owner.owner}`;
    for (const held of this.#certainOf(file, node, owner).tree.overlapping(range.start, range.end))
      for (const [name, { tree }] of this.#certain.get(`${file} ${owner.kind}`) ?? []) {
        if (name === me) continue;
        const other = tree.first(held.start, held.end, ({ type }) => typesConflict(held.type, type));
        if (other !== null)
          throw new Error(
            `${file}: ${me} was granted ${range.type} ${range.start}-${range.end}, ${name} has ${other.type} ${other.start}-${other.end}`,
          );
      }
  }

  /** No message is on its way: what each node has is what the service has, and what excludes each other nobody has. */
  #judgeRest(): void {
    const held: {
      readonly file: string;
      readonly me: string;
      readonly kind: string;
      readonly type: "read" | "write";
      readonly start: bigint;
      readonly end: bigint;
    }[] = [];
    if (this.#blocked) return;
    for (let node = 0; node < this.nodes.length; node++) {
      const process = this.#serving(node);
      if (process.inherited.size > 0 || !process.core.hasInherited) return;
    }
    for (let node = 0; node < this.nodes.length; node++) {
      const { core, client, modes } = this.#serving(node);
      for (const file of core.files.values()) {
        // A conversion that waits in the service has given up what its owner had; here that is seen when it ends.
        const converts = new Set(
          [...file.asked.values()]
            .filter(({ own, op }) => own === null && op === "lock")
            .map(({ owner }) => `${owner.kind}/${owner.owner}`),
        );
        const isKnown = (one: string): boolean => !(one.startsWith("flock") && converts.has(one.split(" ")[0] as string));
        const here = heldOn(file).map(({ owner, range }) => `${owner.kind}/${owner.owner} ${range.type} ${range.start}-${range.end}`);
        for (const { owner, range } of heldOn(file))
          if (isKnown(`${owner.kind}/${owner.owner}`))
            held.push({ ...range, file: file.name, me: `${node}/${owner.owner}`, kind: owner.kind });
        const there: string[] = [];
        for (const { name, ranges, flock } of this.#master.files.values())
          if (name === file.name)
            for (const table of [ranges, flock])
              for (const { owner, ranges: of } of table.holders.values())
                if (owner.nodeid === client)
                  for (const { type, start, end } of of.overlapping(0n, maxOffset))
                    there.push(`${owner.kind}/${owner.owner} ${type} ${start}-${end}`);
        const expected = file.state === "shared" ? here : file.state === "local" ? [] : null;
        if (expected !== null && expected.filter(isKnown).sort().join() !== there.filter(isKnown).sort().join())
          throw new Error(`${file.name} of node ${node} is ${file.state}: it has ${here.join(", ")}, the service ${there.join(", ")}`);
        const mode = this.modes(file.name)[client];
        if (file.state === "local" && mode !== "EX") throw new Error(`${file.name} is local on ${node} with ${mode}`);
        if (file.state === "shared" && mode !== "CW")
          throw new Error(`${file.name} is shared on ${node} with ${mode} ${modes.get(file.name)}`);
      }
    }
    for (const { name, ranges, flock } of this.#master.files.values())
      for (const { owner, ranges: of } of [...ranges.holders.values(), ...flock.holders.values()])
        if (of.size > 0 && this.nodes.some((core, node) => this.#serving(node).client === owner.nodeid && !core.files.has(name)))
          throw new Error(`${name}: the service has what client ${owner.nodeid} does not know of`);
    for (const a of held)
      for (const b of held)
        if (
          a.file === b.file &&
          a.kind === b.kind &&
          a.me !== b.me &&
          typesConflict(a.type, b.type) &&
          a.start <= b.end &&
          b.start <= a.end
        )
          throw new Error(`${a.file}: ${a.me} has ${a.type} ${a.start}-${a.end}, ${b.me} has ${b.type} ${b.start}-${b.end}`);
  }

  /** All has come to rest: who waits, waits for somebody. */
  judgeWaits(): void {
    for (const one of this.#all) {
      const ask = one.pending?.ask;
      if (ask === undefined || this.#unanswered.includes(one)) continue;
      if (ask.op !== "lock" || !ask.wait) throw new Error(`${ask.op} of ${one.node}/${one.owner.owner} has no answer`);
      let waits = false;
      for (let node = 0; node < this.nodes.length; node++)
        for (const { owner, range } of heldOn(this.nodes[node]?.files.get(ask.file) ?? nothing))
          waits ||=
            owner.kind === one.owner.kind &&
            !(node === one.node && owner.owner === one.owner.owner) &&
            typesConflict(range.type, ask.range.type) &&
            range.start <= ask.range.end &&
            range.end >= ask.range.start;
      for (const other of this.#all) {
        const theirs = other.pending?.ask;
        if (theirs === undefined || theirs.file !== ask.file || other.owner.kind !== one.owner.kind) continue;
        if (other.node === one.node && other.owner.owner === one.owner.owner) continue;
        waits ||=
          typesConflict(theirs.range.type, ask.range.type) && theirs.range.start <= ask.range.end && theirs.range.end >= ask.range.start;
      }
      if (!waits)
        throw new Error(
          `${ask.file}: ${one.node}/${one.owner.owner} waits for nobody for ${ask.range.type} ${ask.range.start}-${ask.range.end}`,
        );
    }
  }

  /** A lockspace of which nothing is granted: it is being recovered, or a fence is awaited. */
  set blocked(blocked: boolean) {
    this.#blocked = blocked;
    if (!blocked) this.#master.unblock();
  }

  get blocked(): boolean {
    return this.#blocked;
  }

  /** The service finds a circle, it says, or one that is none if they wait by turns. */
  sentence(which: number, sentence: "deadlock" | "overtake"): void {
    const waiters = [...this.#master.waiters()].filter(({ holder }) => holder.owner.kind === "posix" || sentence === "overtake");
    const waiter = waiters[which % Math.max(1, waiters.length)];
    if (waiter !== undefined) this.#master.sentence(waiter, sentence);
  }

  /** Modes of the file's state at the lock manager, by node. */
  modes(file: string): Record<number, string> {
    return Object.fromEntries(this.#states.get(file)?.held ?? []);
  }

  /** Locks and requests that the service has. */
  inService(): number {
    return [...this.#master.files.values()].reduce((sum, { ranges, flock }) => sum + ranges.size + flock.size, 0);
  }

  release(caller: Caller, file: string): void {
    this.ask(caller, { file, op: "unlock", range: { type: "read", start: 0n, end: maxOffset }, pid: 0, wait: false });
  }
}
