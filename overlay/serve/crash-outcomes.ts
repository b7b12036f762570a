/**
 * What became of the calls that a crashed process had made and of which its journal does not know it (hazards F38, F41): before its locks go, so nobody else has changed anything
 * meanwhile.
 */
import { E } from "../../dlmd/base/errno.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { type AfterCrash, wholeBody } from "../crash/after-crash.ts";
import type { CallBefore, JournalBefore } from "../crash/before.ts";
import type { Journal } from "../crash/journal.ts";
import { decodeRequest } from "../fuse/decode-request.ts";
import type { Request } from "../fuse/request.ts";
import { firstUnique, isResent } from "../fuse/unique.ts";
import type { FileId, LowerHandle } from "../lower/lower.ts";
import type { MadeAgain } from "../lower/remote/again.ts";
import type { RemoteLower } from "../lower/remote/remote.ts";
import { decodeWith } from "../lower/wire/call-codecs.ts";
import { CALLS, callOfType } from "../lower/wire/calls.ts";
import { FrameType } from "../lower/wire/frame.ts";

const NOTHING = new Uint8Array();
/** Nobody can tell whether it was made. */
const UNKNOWN: Uint8Array = Uint8Array.of(E.EIO, 0, 0, 0);

export interface SettledBy {
  readonly remote: Pick<RemoteLower, "outcomes" | "makeAgain" | "noteLost" | "close" | "openedAt">;
  readonly journal: Journal;
  readonly log: Log;
}

/** What a program was told to be made is not: an fsync(2) is to say so. Throws OperatingError "crash-lost" where none could: the file was closed since. */
function lost(call: CallBefore, why: string, files: JournalBefore["files"], { remote, log }: SettledBy): void {
  const id = inodeOf(call, files);
  log.error({ ino: id?.ino, why }, "what a program was told to be made before the crash is lost");
  if (id === null)
    throw new OperatingError("what a program was told to be written is lost, and in which file is not known: no fsync could say so", {
      code: "crash-lost",
      hint: "umount -l, and mount again.",
    });
  remote.noteLost(id);
}

/** Whom the volume belongs to, and what the kernel has sent again. */
export interface FoundNow {
  /** It is not the owner that the process before had. */
  readonly isOther: boolean;
  readonly held: readonly Buffer[];
}

export async function settleUnknown(afterCrash: AfterCrash, { isOther, held }: FoundNow, by: SettledBy): Promise<void> {
  const { calls, files, handles } = afterCrash.before;
  const requests = sentAgain(held);
  for (const { outcome, request } of calls)
    if (outcome !== "unknown" && request !== 0 && !requests.has(request)) by.journal.replied(request);
  for (const call of calls) if (call.request === 0 && call.outcome === "failed") lost(call, "the owner has refused it", files, by);
  await (isOther ? makeUnknown(afterCrash, requests, by) : askOutcomes(afterCrash, requests, by));
  const open = new Set(handles.map(({ lowerHandle }) => lowerHandle));
  for (const handle of afterCrash.writtenThrough) if (!open.has(handle)) by.remote.close(handle as LowerHandle);
}

/** Of a call that was made behind. `answer`: what the owner says of it; null: that it was not made. */
function settleBehind(
  afterCrash: AfterCrash,
  call: CallBefore,
  answer: { readonly failed: boolean; readonly body: Uint8Array } | null,
  by: SettledBy,
): void {
  // Its file may be removed by now: then nobody can miss it.
  const isMade = answer !== null && (!answer.failed || errnoOf(answer.body) === E.ESTALE);
  if (!isMade) lost(call, answer === null ? "it was not made" : `errno ${errnoOf(answer.body)}`, afterCrash.before.files, by);
  afterCrash.settle(by.journal, call, isMade ? { failed: false, body: NOTHING } : null);
}

const errnoOf = (body: Uint8Array): number => Buffer.from(body).readUInt32LE(0);

/** The next process goes on at that one, if it can. */
export function ownerChanged(): OperatingError {
  return new OperatingError("the volume has got another owner meanwhile", { code: "owner-changed", hint: "umount -l, and mount again." });
}

/**
 * The owner lives, and knows. What was made behind is made now, if it was not. It is asked about each process before, and takes nothing of that one from then on: not all
 * that was under way is written down, and what is executed later is executed after changes of other nodes.
 */
async function askOutcomes(afterCrash: AfterCrash, requests: ReadonlyMap<number, Request>, by: SettledBy): Promise<void> {
  const { remote, journal } = by;
  const byClient = new Map<number, CallBefore[]>(afterCrash.kept.map(({ clientId }) => [clientId, []]));
  // Made when the process was the owner, before it gave the volume to this one.
  const own = afterCrash.unknown.filter((call) => call.own);
  // Done first: what a process between has asked for.
  for (const { clientId } of own.length === 0 ? [] : afterCrash.kept) await remote.outcomes(clientId, []);
  for (const call of own) await makeOne(afterCrash, call, requests, by);
  for (const call of afterCrash.unknown) if (!call.own) byClient.set(call.client, [...(byClient.get(call.client) ?? []), call]);
  const { ownerEpoch } = afterCrash.before.constants;
  for (const [clientId, asked] of byClient) {
    const outcomes = await remote.outcomes(
      clientId,
      asked.map((call) => ({ id: call.id, type: call.type, body: call.request === 0 ? wholeBody(call) : null })),
    );
    const answers = outcomes.map((outcome) =>
      outcome.state === "answered" ? { failed: outcome.type === FrameType.FAILED, body: outcome.body } : null,
    );
    const settle = (call: CallBefore, at: number): void => {
      const answer = answers[at] ?? null;
      if (call.request === 0) settleBehind(afterCrash, call, answer, by);
      else if (!requests.has(call.request)) journal.replied(call.request);
      else if (answer !== null) afterCrash.settle(journal, call, answer);
      else afterCrash.settle(journal, call, outcomes[at]?.state === "not-made" ? null : { failed: true, body: UNKNOWN });
    };
    // What was answered is true, whatever becomes of the owner.
    for (const [at, call] of asked.entries()) if (answers[at] !== null) settle(call, at);
    // Another one knows nothing of the rest; and one that is about to end makes nothing any more.
    const isEnding = asked.some(({ request }, at) => request === 0 && outcomes[at]?.state === "not-made");
    if (isEnding || remote.openedAt?.epoch !== ownerEpoch) throw ownerChanged();
    for (const [at, call] of asked.entries()) if (answers[at] === null) settle(call, at);
  }
}

/**
 * Hazard F41. The owner is another one, and what the one before knew is gone with it: all of these are made here, or found to be made. Of a request that the kernel has not sent
 * again the caller has its answer. Before that this owner is done with processes that have begun with it, and crashed too.
 */
async function makeUnknown(afterCrash: AfterCrash, requests: ReadonlyMap<number, Request>, by: SettledBy): Promise<void> {
  for (const { clientId } of afterCrash.kept) await by.remote.outcomes(clientId, []);
  for (const call of afterCrash.unknown) await makeOne(afterCrash, call, requests, by);
}

async function makeOne(afterCrash: AfterCrash, call: CallBefore, requests: ReadonlyMap<number, Request>, by: SettledBy): Promise<void> {
  const { remote, journal } = by;
  const request = requests.get(call.request);
  const make = (body: Uint8Array): Promise<MadeAgain> => remote.makeAgain({ type: call.type, body, sure: call.sure });
  if (call.request === 0) settleBehind(afterCrash, call, await make(wholeBody(call)), by);
  else if (request === undefined) journal.replied(call.request);
  else if (isOfMapping(request)) afterCrash.settle(journal, call, null);
  else afterCrash.settle(journal, call, await make(wholeBody({ ...call, data: dataOf(request) })));
}

/** By their first numbers. */
function sentAgain(held: readonly Buffer[]): ReadonlyMap<number, Request> {
  const requests = new Map<number, Request>();
  for (const bytes of held) {
    try {
      const request = decodeRequest(bytes, bytes.length);
      if (isResent(request.unique)) requests.set(firstUnique(request.unique), request);
    } catch (error) {
      // It is refused when it is served.
      if (!(error instanceof WireError)) throw error;
    }
  }
  return requests;
}

/** Its pages are written again as they come: the lock of such a file stays here until they are (hazard F1). */
function isOfMapping(request: Request): boolean {
  return request.op === "write" && request.fromCache;
}

function dataOf(request: Request): Uint8Array {
  return request.op === "write" ? request.data : NOTHING;
}

/** Of a change that was made behind: a write, or one of attributes. null: its file is not open any more. */
function inodeOf(call: CallBefore, files: JournalBefore["files"]): FileId | null {
  const name = callOfType(call.type);
  if (name === "setattr") return decodeWith(CALLS.setattr.request, wholeBody(call)).id;
  if (name !== "write") return null;
  const { handle } = decodeWith(CALLS.write.request, wholeBody(call));
  return files.find((file) => file.handle === handle)?.id ?? null;
}
