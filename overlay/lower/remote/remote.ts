/**
 * The lower at another node: every call is one message to the volume's owner and one back. While there is no owner
 * calls wait (session: session.ts).
 */
import { MAX_DEPOSIT, MAX_OUTCOMES, OUTCOMES_BYTES_MAX } from "../limits.ts";
import type { FileId, Lower, LowerHandle } from "../lower.ts";
import type { AnswerOf, AskedCall, Outcome, RequestOf } from "../wire/call-types.ts";
import { type CallAgain, makeAgain, type MadeAgain } from "./again.ts";
import { attributesOf } from "./attributes.ts";
import { behindOf } from "./behind-calls.ts";
import { type Adopted, type OpenAtOwner, RemoteCore, type RemoteCoreOptions } from "./core.ts";
import type { OwnerAddress, RemoteCounters } from "./connection.ts";
import { dataOf } from "./data.ts";
import { namesOf } from "./names.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { OwnerWait } from "../owner-wait.ts";
import { partsOf } from "../wire/deposit-parts.ts";

export type RemoteLowerOptions = RemoteCoreOptions;

/** One call takes MAX_DEPOSIT. */
async function depositInParts(
  request: RequestOf<"deposit">,
  call: (part: RequestOf<"deposit">) => MaybePromise<AnswerOf<"deposit">>,
  signal: AbortSignal,
): Promise<string> {
  for (const part of partsOf(request, MAX_DEPOSIT)) {
    if (signal.aborted) return "it was given up meanwhile";
    const { refused } = await call(part);
    if (refused !== "") return refused;
  }
  return "";
}

/** One call takes MAX_OUTCOMES and OUTCOMES_BYTES_MAX. In their order, since the owner makes some of them. About no call it is asked, too: that process is dead. */
async function outcomesInParts(
  calls: readonly AskedCall[],
  ask: (part: readonly AskedCall[]) => Promise<readonly Outcome[]>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  let from = 0;
  do {
    let to = from;
    for (let bytes = 0; to < calls.length && to - from < MAX_OUTCOMES; to += 1) {
      bytes += calls[to]?.body?.byteLength ?? 0;
      if (bytes > OUTCOMES_BYTES_MAX && to > from) break;
    }
    outcomes.push(...(await ask(calls.slice(from, to))));
    from = to;
  } while (from < calls.length);
  return outcomes;
}

export interface RemoteLower extends Lower {
  /** What a mount has had at an owner in its own process that withdrew: to be opened at the next one, under the same numbers. Before anything else. */
  adopt(before: Adopted): void;
  /** What this mount has open at the present owner, for its next process; null: not now, something is under way. */
  openAtOwner(): OpenAtOwner | null;
  /** What the process before had open there. Before `connect`. */
  continueWith(before: OpenAtOwner): void;
  /** Files that the owner could not open. */
  readonly brokenFiles: number;
  /** `ownerFound`, and resolves when calls reach the owner. Rejects with OperatingError (code: the refusal). */
  connect(address: OwnerAddress, epoch: number): Promise<void>;
  /** There is an owner. The same again does nothing; a higher epoch is another owner. */
  ownerFound(address: OwnerAddress, epoch: number): void;
  /** Asks the owner of that epoch to give the volume to that node, 0: to the lowest other. */
  handOver(epoch: number, heir: number): Promise<AnswerOf<"handOver">>;
  /** Hazard F35. Any number of files: asked for in parts. Resolves with why it was refused, in words; "": it was not. */
  deposit(request: RequestOf<"deposit">, signal: AbortSignal): Promise<string>;
  /** Resolves with whether it was there. */
  collect(ticket: string): Promise<boolean>;
  /**
   * Hazard F38. What became of the calls of that client of dlmd, a process of this mount that has died; in their order. Those with a body are made there, if they had not
   * come. Any number: asked for in parts.
   */
  outcomes(client: number, calls: readonly AskedCall[]): Promise<readonly Outcome[]>;
  /** Hazard F41. That call is made at this owner, unless the one before has made it. Before anything else. */
  makeAgain(call: CallAgain): Promise<MadeAgain>;
  /** The owner could not open that file, or it is not open here. */
  isBroken(handle: LowerHandle): boolean;
  /** Of the owner at which all is open; null: of none. `cleanAfter`: that of an owner before, of which all is on the disk, as this one says; 0: of none. */
  readonly openedAt: { readonly epoch: number; readonly cleanAfter: number } | null;
  /** Hazard F38. Of that file something is lost that a program was told to be made: an fsync(2) says so. */
  noteLost(id: FileId): void;
  /** Hazard F38. All that is changed is on the disk then. */
  syncBefore(): Promise<void>;
  /** Something was lost, and not everybody was told. */
  readonly hasLosses: boolean;
  /** Calls are made once more at this owner, which does not know that. */
  readonly hasDoubtful: boolean;
  /** The lock of that inode is about to leave this node: resolves when the owner has open what is open here (hazard F22). */
  tellOpens(id: FileId): MaybePromise<void>;
  /** A lock waits for what was written behind under it. */
  hurry(): void;
  /** The owner died or gave the volume up: calls wait from now on. */
  ownerLost(): void;
  /** `keyring` is another: an owner that proved a key which is not in it any more has to prove another. */
  keysChanged(): void;
  /** No owner answers now. */
  readonly disconnected: boolean;
  /** The owner was asked for a change, or is to be, and has not answered. */
  readonly hasUnansweredChanges: boolean;
  /** For what its calls wait; null: none waits. */
  readonly ownerWait: OwnerWait | null;
  /** The owner has this mount's connection, or its host takes connections for it. */
  readonly ownerThere: boolean;
  /** The owner does not take this node's cluster key, in words; null: it does. Calls wait meanwhile. */
  readonly keyTrouble: string | null;
  readonly openHandles: number;
  readonly counters: RemoteCounters;
  /** Ends the session: calls that wait fail with EIO. */
  shutdown(): void;
}

/** Not connected yet: `root` and `hasAcls` are known from the first `connect` on. */
export function createRemoteLower(options: RemoteLowerOptions): RemoteLower {
  const core = new RemoteCore(options);
  const { session } = core;
  return {
    get root(): FileId {
      return core.welcome.root;
    },
    get hasAcls(): boolean {
      return core.welcome.hasAcls;
    },
    async connect(address, epoch) {
      session.ownerFound(address, epoch);
      await session.whenRunning();
    },
    adopt: (before) => core.adopt(before),
    openAtOwner: () => core.openAtOwner(),
    continueWith: (before) => core.continueWith(before),
    get brokenFiles(): number {
      return core.brokenFiles;
    },
    ownerFound: (address, epoch) => session.ownerFound(address, epoch),
    handOver: (epoch, heir) => session.call("handOver", { epoch, heir }),
    deposit: (request, signal) => depositInParts(request, (part) => session.call("deposit", part), signal),
    collect: async (ticket) => (await session.call("collect", { ticket })).found,
    noteLost: (id) => core.changes.unsynced.lost(id, true, core.opens.handles.all()),
    syncBefore: () => core.changes.syncBefore(),
    get hasDoubtful(): boolean {
      return session.hasDoubtful;
    },
    get hasLosses(): boolean {
      return core.changes.unsynced.hasLosses(core.opens.handles.all());
    },
    outcomes: (client, calls) => outcomesInParts(calls, (part) => session.call("outcomes", { client, calls: part })),
    makeAgain: (call) => makeAgain(core, call),
    isBroken: (handle) => core.opens.handles.find(handle)?.error !== null,
    get openedAt(): RemoteLower["openedAt"] {
      return session.openedAt;
    },
    tellOpens(id) {
      const told = core.opens.tell(id);
      // Closes, too: another node's unlink is not to overtake them.
      session.hurry();
      return told;
    },
    hurry: () => session.hurry(),
    ownerLost: () => core.ownerLost(),
    keysChanged: () => session.keysChanged(),
    get disconnected(): boolean {
      return !session.running;
    },
    get keyTrouble(): string | null {
      return session.keyTrouble;
    },
    get hasUnansweredChanges(): boolean {
      return session.hasUnansweredChanges;
    },
    get ownerWait(): OwnerWait | null {
      return session.ownerWait;
    },
    get ownerThere(): boolean {
      return session.ownerThere;
    },
    get openHandles(): number {
      return core.opens.handles.count;
    },
    counters: session.counters,
    madeFor: (request) => session.madeFor(request),
    shutdown: () => core.shutdown(),

    ...namesOf(core),
    ...attributesOf(core),
    ...dataOf(core),
    ...behindOf(core),
  };
}
