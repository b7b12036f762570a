/**
 * A model of callers that are killed (hazard F50): the real operations over a lower that makes each call at a later time (kill-model-lower.ts), under a kernel that
 * keeps the changes of an inode apart as the real one does (kill-model-kernel.ts). What was answered must have an order (kill-model-check.ts).
 */
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { errnoError, E } from "../../../dlmd/base/errno.ts";
import type { Waiter, Want } from "../../../overlay/coherence/api.ts";
import { Cover, type Inode, type PinMode } from "../../../overlay/coherence/cover.ts";
import { SizeGates } from "../../../overlay/coherence/size/gate.ts";
import type { KernelSizes, SizeChange } from "../../../overlay/coherence/size/kernel-sizes.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { fileKey } from "../../../overlay/lower/lower.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { unexplained } from "./kill-model-check.ts";
import { type Asked, type Caller, KillModelKernel } from "./kill-model-kernel.ts";
import { idOf, KillModelLower } from "./kill-model-lower.ts";
import { changeElsewhere, KINDS, MODEL_PAGE_BYTES, type ModelFile, runPrograms, type World, writeBack } from "./kill-model-programs.ts";
import { applied, modelInode, ROOT_INO, type State } from "./kill-model-state.ts";
import { KillModelSteps } from "./kill-model-steps.ts";
import { modelMount } from "./model-mount.ts";
import { RecordingCoherence } from "./recording-coherence.ts";
import { rightSizes } from "./right-sizes.ts";

const FILES = [20, 21];
const DIRECTORY = 3;
const STEPS_MAX = 5000;
/** So many steps after its request a caller is killed. */
const DEATHS = [0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 10];

export interface KillModelResult {
  readonly violation: string | null;
  /** What was asked, and in which order: of a seed that fails. */
  readonly history: string;
  readonly kills: number;
  readonly requests: number;
}

/** The kernel has the right sizes, but changes of one and what tells it wait for each other as ever. */
function sizesOfGates(): KernelSizes {
  const gates = new SizeGates();
  const holds = (change: SizeChange): boolean => change === "holds" || change === "truncates";
  return {
    ...rightSizes,
    begin: ({ cover }, change, waiter) => gates.take(cover).begin(holds(change), waiter, change === "truncates"),
    made: ({ cover }, change) => {
      if (holds(change)) gates.take(cover).made();
    },
    end: ({ cover }, change, waiter) => gates.take(cover).end(holds(change), waiter),
    known: ({ cover }) => gates.get(cover)?.changing !== true,
    tell: async ({ cover }, _waiter, read, answer) => {
      const gate = gates.take(cover);
      await gate.tell();
      try {
        answer(await read());
      } finally {
        gate.told();
      }
    },
  };
}

/** Locks that come at once or later; what it is asked to drop is dropped later. */
class KillModelCoherence extends RecordingCoherence {
  readonly #steps: KillModelSteps;
  kernel: KillModelKernel | null = null;
  /** A dirty page of that file is written back before it goes (mm/truncate.c, folio_launder). */
  launder: (inode: Inode) => Promise<void> = () => Promise.resolve();

  constructor(steps: KillModelSteps) {
    super();
    this.#steps = steps;
    this.looksUnpinned = true;
    this.sizes = sizesOfGates();
  }

  #come(waiter: Waiter, take: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      let ended = false;
      waiter.onInterrupt = (): void => {
        ended = true;
        reject(errnoError(E.EINTR));
      };
      const came = async (): Promise<void> => {
        await this.#steps.turn();
        if (ended) return;
        waiter.onInterrupt = null;
        take();
        resolve();
      };
      void came();
    });
  }
  /** Nothing is made that nobody else knows. */
  override untilBirthsKnown(): void {
    // Others have pins at that moment.
  }
  override tryPin(inode: Inode, mode: PinMode): boolean {
    return !this.#steps.chance(0.1) && super.tryPin(inode, mode);
  }
  override pin(inode: Inode, mode: PinMode, waiter: Waiter): Promise<void> {
    return this.#come(waiter, () => void super.tryPin(inode, mode));
  }
  override pinAll(wants: readonly Want[], waiter: Waiter): MaybePromise<void> {
    if (!this.#steps.chance(0.1)) return super.pinAll(wants, waiter);
    return this.#come(waiter, () => void super.pinAll(wants, waiter));
  }
  override pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter): MaybePromise<void> {
    if (!this.#steps.chance(0.1)) return super.pinData(inode, mode, cached, waiter);
    return this.#come(waiter, () => void super.tryPin(inode, mode));
  }
  override async dropKernelCaches(inodes: readonly Inode[], pages: boolean): Promise<void> {
    await super.dropKernelCaches(inodes, pages);
    await this.#steps.turn();
    if (inodes.some(({ kind }) => kind === "directory")) {
      this.told.clear();
      this.kernel?.expireNames();
    }
    if (!pages) return;
    for (const inode of inodes) {
      await this.kernel?.pageFree(inode.fuseNodeid);
      await this.launder(inode);
    }
  }
  override async dropPages(inode: Inode, offset: number, bytes: number): Promise<void> {
    await super.dropPages(inode, offset, bytes);
    await this.#steps.turn();
    if (offset < MODEL_PAGE_BYTES) await this.kernel?.pageFree(inode.fuseNodeid);
  }
  override attributesChanged(inode: Inode, caller: number, held: boolean): MaybePromise<void> {
    void super.attributesChanged(inode, caller, held);
    // What the caller has locked is told within the turn, but where somebody else's notification of it is under way.
    return this.#steps.chance(held ? 0.02 : 0.2) ? this.#steps.turn() : undefined;
  }
  override moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    const [old, now] = [`${oldDir.cover.key} ${oldName.toString()}`, `${newDir.cover.key} ${newName.toString()}`];
    const moved = this.told.get(old);
    this.told.delete(old);
    if (moved === undefined) this.told.delete(now);
    else this.told.set(now, moved);
  }
  override exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    const keys = [`${oldDir.cover.key} ${oldName.toString()}`, `${newDir.cover.key} ${newName.toString()}`] as const;
    const [old, now] = keys.map((key) => this.told.get(key));
    keys.forEach((key) => this.told.delete(key));
    if (now !== undefined) this.told.set(keys[0], now);
    if (old !== undefined) this.told.set(keys[1], old);
  }
}

function firstState(steps: KillModelSteps): State {
  const file = (bytes: string): State[number] =>
    modelInode(false, steps.pick([0o755, 0o755, 0o6755]), steps.pick([1000, 1001]), 1000, bytes);
  const directory = modelInode(true, 0o755, 0, 0);
  return {
    [ROOT_INO]: { ...directory, names: { a: 20, d: DIRECTORY } },
    [DIRECTORY]: { ...directory, names: { a: 21 } },
    20: file("xxxx"),
    21: file("yyyy"),
  };
}

function mountOf(lower: KillModelLower, coherence: KillModelCoherence): Mount {
  const covers = new Map<string, Cover>();
  const inodes = new InodeTable({
    root: lower.root,
    createCover: (id, kind) => {
      const cover = covers.get(fileKey(id)) ?? new Cover(id, kind);
      covers.set(fileKey(id), cover);
      return cover;
    },
    dropped: () => undefined,
  });
  return modelMount({ lower, coherence, inodes });
}

function known(mount: Mount, ino: number, mode: number): InodeRecord {
  const record = mount.inodes.remember(idOf(ino), mode);
  record.nlookup = 1;
  mount.inodes.leave(record);
  return record;
}

function opened(mount: Mount, lower: KillModelLower, ino: number): ModelFile {
  const record = known(mount, ino, 0o100755);
  const [cached, direct] = [true, false].map((isCached) => {
    mount.inodes.opened(record, isCached);
    return mount.handles.add(record, lower.handleOf(ino), true, isCached, isCached, isCached);
  });
  return { fuseNodeid: record.fuseNodeid, cachedFh: cached?.fh ?? 0, directFh: direct?.fh ?? 0 };
}

/** `deadly`: somebody is killed. `idle`: nothing happens any more but what a timer brings; false: none runs. */
export async function runKillModel(seed: number, deadly: boolean, idle: () => boolean): Promise<KillModelResult> {
  const steps = new KillModelSteps(seed);
  const before = firstState(steps);
  const lower = new KillModelLower(steps, before);
  const coherence = new KillModelCoherence(steps);
  const mount = mountOf(lower, coherence);
  const files = FILES.map((ino) => opened(mount, lower, ino));
  const kernel = new KillModelKernel(mount, steps);
  coherence.kernel = kernel;
  let bytes = 0x40;
  const nextByte = (): string => String.fromCharCode((bytes += 1));
  const directories = [1, known(mount, DIRECTORY, 0o040755).fuseNodeid];
  const world: World = { kernel, steps, files, directories, nextByte };

  /** Somebody was told EINTR, or nobody will be. */
  const dead = new Promise<void>((resolve) => (kernel.onKill = resolve));
  let ended = 0;
  let mortal = 0;
  let begun = 0;
  const errors: unknown[] = [];
  const begin = async (work: () => Promise<void>): Promise<void> => {
    begun += 1;
    try {
      await work();
    } catch (error) {
      errors.push(error);
    }
    ended += 1;
  };
  const kind = steps.pick(KINDS);
  const count = 2 + steps.below(3);
  for (let no = 0; no < count; no += 1) {
    const dies = deadly && (no === 0 || steps.chance(0.3)) ? { at: steps.pick([1, 1, 1, 2]), steps: steps.pick(DEATHS) } : null;
    const caller: Caller = { pid: 50 + no, uid: steps.pick([0, 0, 1000, 1000, 1001]), killed: false, call: null, dies, asked: 0 };
    // Most come when somebody was told EINTR.
    const waits = deadly && dies === null && steps.chance(0.7);
    const programs = (dies?.at ?? 0) + 1 + steps.below(3);
    if (dies !== null) mortal += 1;
    void begin(async () => {
      if (waits) await dead;
      await runPrograms(world, caller, kind, programs);
      if (dies === null) return;
      mortal -= 1;
      if (mortal === 0) kernel.onKill();
    });
  }
  const flusher: Caller = { pid: 0, uid: 0, killed: false, call: null, dies: null, asked: 0 };
  let dirty = steps.below(3);
  coherence.launder = async ({ fuseNodeid }): Promise<void> => {
    const file = files.find((one) => one.fuseNodeid === fuseNodeid);
    if (file === undefined || dirty === 0) return;
    dirty -= 1;
    await kernel.withPage(fuseNodeid, () => writeBack({ ...world, files: [file, file] }, { ...flusher }));
  };
  if (kind !== KINDS[1]) for (let left = steps.below(3); left > 0; left -= 1) void begin(() => writeBack(world, { ...flusher }));
  const elsewhere = async (ino: number): Promise<void> => {
    // Its locks are given back when nothing here is pinned.
    do await steps.turn();
    while (coherence.held > 0);
    const step = changeElsewhere(world, ino);
    const after = applied(lower.state, step);
    if (typeof after === "number") return;
    lower.state = after;
    coherence.told.clear();
    kernel.noteElsewhere(step);
  };
  if (steps.chance(0.3)) for (let left = steps.below(5); left > 0; left -= 1) void begin(() => elsewhere(900 + left));
  // What it had cleared may be lost.
  if (steps.chance(0.1)) steps.after(steps.below(40), () => coherence.happens("owner died"));
  await steps.run(STEPS_MAX, idle);

  const { history, bugs } = kernel;
  for (const [key, child] of kernel.names) {
    const [ino, name] = key.split(" ") as [string, string];
    const there = lower.state[Number(ino)]?.names[name];
    const known = child === null ? undefined : kernel.inoOf(child);
    if (there !== known) bugs.push(`the kernel believes that ${name} of ${ino} is ${known}, and it is ${there}`);
  }
  const found = [
    ...errors.map((error) => (error instanceof Error ? (error.stack ?? error.message) : String(error))),
    ...bugs,
    ...coherence.violations,
    ...(ended === begun ? [] : [`${begun - ended} of ${begun} callers hang`]),
    ...(coherence.held === 0 ? [] : [`${coherence.held} pins are left`]),
  ];
  const violation = found.length > 0 ? found.join("\n") : unexplained(history, before, lower.state);
  return {
    violation,
    history: violation === null ? "" : history.map(told).join("\n"),
    kills: kernel.kills,
    requests: history.length,
  };
}

function told({ request, begin, end, uid, inos, unique, killed, answer }: Asked): string {
  const rest = Object.entries(request).flatMap(([key, value]) => {
    if (["op", "fh", "outFh", "lockOwner"].includes(key)) return [];
    if (value instanceof Uint8Array) return [`${key} ${Buffer.from(value).toString("latin1")}`];
    return [`${key} ${JSON.stringify(inos[key] ?? value)}`];
  });
  const found = request.op === "read" ? ` ${answer?.body.toString("latin1")}` : "";
  const outcome = killed ? "killed" : answer === null ? "no answer" : `errno ${answer.errno}${found}`;
  return `${begin}-${end ?? "?"} ${request.op} ${unique} by ${uid}: ${rest.join(", ")}: ${outcome}`;
}
