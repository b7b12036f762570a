/** What a crashed process has left in its journal, as plain data (README.md). A damaged journal is refused in words. */
import { createHash } from "node:crypto";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { InodeRow } from "../inode/table.ts";
import { negotiatedShape, type RestartState } from "../restart/state.ts";
import type { FormerProcess } from "./former-process.ts";
import {
  AT,
  BODY,
  CALL,
  CALL_BODY_AT,
  CONSTANTS_AT,
  CONSTANTS_MAX,
  FILE,
  HANDLE,
  JOURNAL_HEIRS_MAX,
  JOURNAL_VERSION,
  JOURNAL_VERSION_BEFORE,
  KINDS,
  MAGIC,
  NLOOKUP,
  TABLES,
} from "./layout.ts";
import { Rows } from "./rows.ts";

export interface HandleBefore {
  readonly fh: number;
  readonly fuseNodeid: number;
  readonly lowerHandle: number;
  readonly writable: boolean;
  readonly cached: boolean;
  readonly writeToken: boolean;
  readonly mappable: boolean;
}

export interface FileBefore {
  readonly handle: number;
  readonly id: { readonly ino: number; readonly generation: number };
  readonly flags: number;
  readonly directory: boolean;
}

export interface CallBefore {
  readonly row: number;
  readonly id: number;
  readonly type: number;
  /** Of dlmd, that of the process which made it. */
  readonly client: number;
  /** The kernel's number of the request that waits for it; 0: none, it was made behind. */
  readonly request: number;
  /** Not known yet, or its answer: an errno if it "failed". Of a change of the owner's own mount it is never known. */
  readonly outcome: "unknown" | "answered" | "failed";
  /** Made behind: what was asked, data at the end. Else the answer. */
  readonly body: Uint8Array | null;
  readonly data: Uint8Array | null;
  /** A change that its process has made itself, as the owner (OwnJournal.making). */
  readonly own: boolean;
  readonly sure: boolean;
}

/** What does not change as long as the mount has this owner. */
export interface Constants {
  readonly connection: number;
  readonly ownerEpoch: number;
  /** This process is that owner. */
  readonly isOwner: boolean;
  readonly process: FormerProcess;
  /** A process after it has found that all which was changed at that owner is on the disk: whoever the owner is, nothing of it is lost any more. */
  readonly kept: boolean;
  /** The key under which dlmd gives a new process what the old one had (ConnectOptions.owner). */
  readonly key: string;
  /** RestartState.hasOwned */
  readonly hasOwned: boolean;
  readonly negotiated: RestartState["negotiated"];
}

const count = z.number().int().nonnegative();

const constantsShape: z.ZodType<Constants> = z.object({
  connection: count,
  ownerEpoch: count,
  isOwner: z.boolean(),
  process: z.object({ pid: count, startTime: z.string() }),
  kept: z.boolean(),
  key: z.string(),
  hasOwned: z.boolean(),
  negotiated: negotiatedShape,
});

/** What a new process has found in the rows. */
export interface RowsBefore {
  readonly freeInodes: readonly number[];
  /** By the key of the table. */
  readonly handles: ReadonlyMap<number, number>;
  readonly files: ReadonlyMap<number, number>;
  /** `request` 0: made behind. */
  readonly calls: readonly { readonly request: number; readonly row: number }[];
}

export interface JournalBefore {
  readonly constants: Constants;
  /** The client of dlmd whose locks cover what the kernel has: without them nobody may go on. */
  readonly servingClient: number;
  /** Those of processes that would have gone on before this one: some of the locks may be theirs by now. */
  readonly heirs: readonly number[];
  readonly inodes: readonly (InodeRow & { readonly row: number })[];
  readonly nextCounted: number;
  readonly handles: readonly HandleBefore[];
  readonly nextFh: number;
  readonly files: readonly FileBefore[];
  readonly calls: readonly CallBefore[];
  /** A request that was being answered with a handle: if it comes again the kernel does not have that one. null: none. */
  readonly giving: { readonly request: number; readonly fh: number } | null;
  readonly rows: RowsBefore;
}

/** Exported for what else stands in it. */
export function refused(found: string): OperatingError {
  return new OperatingError(`the journal of a mount in version ${JOURNAL_VERSION} expected, found ${found}`, {
    code: "bad-journal",
    hint: "umount (-l), and mount again.",
  });
}

/** Throws OperatingError "bad-journal". */
export function readJournal(memory: ArrayBuffer): JournalBefore {
  const head = new DataView(memory, 0, CONSTANTS_AT);
  if (!Buffer.from(memory, 0, MAGIC.length).equals(MAGIC)) throw refused("something else");
  const version = head.getUint32(AT.version, true);
  if (version !== JOURNAL_VERSION && version !== JOURNAL_VERSION_BEFORE) throw refused(`version ${version}`);
  const constants = readConstants(memory);
  const freeInodes: number[] = [];
  const inodes = readInodes(memory, freeInodes);
  const handles = readHandles(memory);
  const files = readFiles(memory);
  const open = new Set(handles.map(({ one }) => one.fuseNodeid));
  const known = inodes.filter(({ fuseNodeid, nlookup }) => nlookup > 0 || open.has(fuseNodeid));
  for (const { fuseNodeid, nlookup, row } of inodes) if (nlookup === 0 && !open.has(fuseNodeid)) freeInodes.push(row);
  const calls = readCalls(memory);
  const givingTo = head.getFloat64(AT.givingTo, true);
  const found: JournalBefore = {
    constants,
    servingClient: head.getUint32(AT.servingClient, true),
    heirs: readHeirs(head),
    inodes: known,
    nextCounted: head.getFloat64(AT.nextCounted, true),
    handles: handles.map(({ one }) => one),
    nextFh: Math.max(1, head.getFloat64(AT.nextFh, true)),
    files: files.map(({ one }) => one),
    calls,
    giving: givingTo === 0 ? null : { request: givingTo, fh: head.getFloat64(AT.givingFh, true) },
    rows: {
      freeInodes,
      handles: new Map(handles.map(({ one, row }) => [one.fh, row])),
      files: new Map(files.map(({ one, row }) => [one.handle, row])),
      calls,
    },
  };
  check(found);
  return found;
}

function readHeirs(head: DataView): number[] {
  const count = head.getUint32(AT.heirs, true);
  if (count > JOURNAL_HEIRS_MAX) throw refused(`${count} heirs`);
  return Array.from({ length: count }, (_, at) => head.getUint32(AT.heir + 4 * at, true));
}

function readConstants(memory: ArrayBuffer): Constants {
  const from = Buffer.from(memory, CONSTANTS_AT, CONSTANTS_MAX);
  const length = from.readUInt32LE(0);
  if (length === 0 || length + 36 > CONSTANTS_MAX) throw refused(`constants of ${length} bytes`);
  const body = from.subarray(36, 36 + length);
  if (!createHash("sha256").update(body).digest().equals(from.subarray(4, 36))) throw refused("a damaged one: its digest is another");
  const parsed = constantsShape.safeParse(JSON.parse(body.toString("utf8")));
  if (!parsed.success) throw refused(`one that does not fit: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

function readInodes(memory: ArrayBuffer, free: number[]): JournalBefore["inodes"] {
  const rows = new Rows(memory, TABLES.inodes);
  const found: (InodeRow & { row: number })[] = [];
  for (let row = 0; row < rows.used; row += 1) {
    const at = rows.f64At(row);
    const { f64, u32 } = rows;
    const kind = KINDS[(u32[2 * at + 7] as number) - 1];
    if (kind === undefined) {
      free.push(row);
      continue;
    }
    found.push({
      row,
      fuseNodeid: f64[at] as number,
      id: { ino: f64[at + 1] as number, generation: u32[2 * at + 4] as number },
      kind,
      nlookup: (u32[2 * at + NLOOKUP.high] as number) * 2 ** 32 + (u32[2 * at + NLOOKUP.low] as number),
      nlinkHint: u32[2 * at + 6] as number,
    });
  }
  return found;
}

function readHandles(memory: ArrayBuffer): { row: number; one: HandleBefore }[] {
  const rows = new Rows(memory, TABLES.handles);
  const found: { row: number; one: HandleBefore }[] = [];
  for (let row = 0; row < rows.used; row += 1) {
    const at = rows.f64At(row);
    const flags = rows.u32[2 * at + 6] as number;
    if ((flags & HANDLE.used) === 0) continue;
    const [fh, fuseNodeid, lowerHandle] = rows.f64.subarray(at, at + 3) as unknown as [number, number, number];
    const one = {
      fh,
      fuseNodeid,
      lowerHandle,
      writable: (flags & HANDLE.writable) !== 0,
      cached: (flags & HANDLE.cached) !== 0,
      writeToken: (flags & HANDLE.writeToken) !== 0,
      mappable: (flags & HANDLE.mappable) !== 0,
    };
    found.push({ row, one });
  }
  return found;
}

function readFiles(memory: ArrayBuffer): { row: number; one: FileBefore }[] {
  const rows = new Rows(memory, TABLES.files);
  const found: { row: number; one: FileBefore }[] = [];
  for (let row = 0; row < rows.used; row += 1) {
    const at = rows.f64At(row);
    const state = rows.u32[2 * at + 6];
    if (state !== FILE.file && state !== FILE.directory) continue;
    const [handle, ino] = rows.f64.subarray(at, at + 2) as unknown as [number, number];
    const [generation, flags] = rows.u32.subarray(2 * at + 4, 2 * at + 6) as unknown as [number, number];
    found.push({ row, one: { handle, id: { ino, generation }, flags, directory: state === FILE.directory } });
  }
  return found;
}

function readCalls(memory: ArrayBuffer): CallBefore[] {
  const rows = new Rows(memory, TABLES.calls);
  const found: CallBefore[] = [];
  for (let row = 0; row < rows.used; row += 1) {
    const at = rows.u32At(row);
    const [state, id, type, client, bytes, dataBytes, hasBody] = rows.u32.subarray(at, at + 7) as unknown as number[];
    if (state !== CALL.begun && state !== CALL.answered && state !== CALL.failed) continue;
    const from = rows.byteAt(row) + CALL_BODY_AT;
    // Copies: the rows are written to again.
    const part = (begin: number, length: number): Uint8Array => new Uint8Array(memory, begin, length).slice();
    found.push({
      row,
      id: id as number,
      type: type as number,
      client: client as number,
      request: rows.f64[at / 2 + 4] as number,
      outcome: state === CALL.begun ? "unknown" : state === CALL.answered ? "answered" : "failed",
      body: hasBody === BODY.none ? null : part(from, bytes as number),
      own: hasBody === BODY.own || hasBody === BODY.sure,
      sure: hasBody === BODY.sure,
      data: dataBytes === 0 ? null : part(from + (bytes as number), dataBytes as number),
    });
  }
  return found;
}

/** What one part says of another is there. A handle that is being opened or closed just now may be in one table alone. */
function check({ inodes }: JournalBefore): void {
  const numbers = new Set(inodes.map(({ fuseNodeid }) => fuseNodeid));
  if (numbers.size !== inodes.length) throw refused("an inode twice");
}
