/**
 * What one process of a mount gives to the next one (hazard F33), as plain data, and how it is written: a head that says what it is, then JSON. A state that is cut off,
 * damaged, or of a version that is not known is refused in words. Pure but for the digest.
 *
 *     "COVRSTRT", version u32, bytes u32 (little endian), sha256 of what follows, JSON
 */
import { createHash } from "node:crypto";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { InodeKind } from "../coherence/cover.ts";
import type { SizeEffect } from "../coherence/cover-parts.ts";
import type { Negotiated } from "../fuse/init.ts";
import type { Changed } from "../lower/unsynced.ts";

/** Another meaning of anything below is another version. */
export const STATE_VERSION = 6;

const MAGIC = Buffer.from("COVRSTRT");
const DIGEST_BYTES = 32;
const HEAD_BYTES = MAGIC.length + 8 + DIGEST_BYTES;

interface FileIdState {
  ino: number;
  generation: number;
}

/** `owner`: in decimal. */
export interface LockOwnerState {
  kind: "posix" | "flock";
  owner: string;
}

/** Plain data. Sets of one kind stand in their order. */
export interface RestartState {
  /** N of /sys/fs/fuse/connections/N. */
  connection: number;
  /** Of the owner at which all is open. */
  ownerEpoch: number;
  /** Its flags in decimal: JSON has no numbers of 64 bits. */
  negotiated: Omit<Negotiated, "flags"> & { flags: string };
  inodes: { fuseNodeid: number; id: FileIdState; kind: InodeKind; nlookup: number; nlinkHint: number }[];
  nextCounted: number;
  handles: {
    fh: number;
    fuseNodeid: number;
    lowerHandle: number;
    writable: boolean;
    cached: boolean;
    writeToken: boolean;
    mappable: boolean;
    manyNew: boolean;
  }[];
  nextFh: number;
  /** Inodes of files that are written through a mapping (hazard F9). */
  mapped: number[];
  /** Replies that change the kernel's size, and may not be taken yet (hazard F5). `end`: null: beyond any size. */
  lates: { fuseNodeid: number; effect: SizeEffect; tid: number; end: number | null }[];
  openFiles: { handle: number; id: FileIdState; flags: number; directory: boolean; lossesTold: number }[];
  unsynced: {
    changed: [string, { at: number; what: Changed; data?: boolean | undefined; named?: readonly string[] | undefined }][];
    lost: [string, { death: number; told: boolean; behind: boolean; data?: boolean | undefined }][];
    deaths: number;
    syncfsFails: boolean;
    tick: number;
  };
  staleOnce: string[];
  /** File locks; numbers of 64 bits in decimal. `shared`: they are in dlmd's service, because other nodes use the file. */
  fileLocks: {
    fuseNodeid: number;
    shared: boolean;
    held: (LockOwnerState & { type: "read" | "write"; start: string; end: string; pid: number; heldMs: number })[];
    users: (LockOwnerState & { handles: number[] })[];
  }[];
  /** Inodes that the kernel could not drop: nobody may change them before the next process has their locks (hazard F42). */
  shared: number[];
  /** This mount was the owner once: it does not ask for that again (volume/preferred-owner.ts). */
  hasOwned: boolean;
  standIns: { shownTo: [number, number][]; threads: [number, boolean][] };
  /** The ticket under which the owner keeps what this mount has (hazard F35); null: the process before has it, or nobody. */
  custody: string | null;
  /** The process before was the owner, and has given its disk back, clean: the next one is to be the owner, and nobody in between (hazard F43). */
  gaveBack: boolean;
  /** Requests of the kernel that were read and have not begun, in base64. */
  held: string[];
  /** Of some that were read there is nothing here: the kernel is to send all again that have no answer (hazard F42). */
  again: boolean;
}

/** The owner that the next process needs: the one before, itself (hazard F43), or another one, which keeps what was left to it (hazard F44). */
export function ownerAfter({ gaveBack, custody }: Pick<RestartState, "gaveBack" | "custody">): "same" | "itself" | "another" {
  if (!gaveBack) return "same";
  return custody === null ? "itself" : "another";
}

const count = z.number().int().nonnegative();
const flag = z.boolean();
const decimal = z.string().regex(/^\d{1,20}$/);
const lockOwner = { kind: z.enum(["posix", "flock"]), owner: decimal };
const fileId = z.object({ ino: count, generation: count });

export const negotiatedShape: z.ZodType<RestartState["negotiated"]> = z.object({
  minor: count,
  flags: decimal,
  maxWriteBytes: count,
  maxReadBytes: count,
  maxPages: count,
  maxReadaheadBytes: count,
  entryExpire: flag,
  incEpoch: flag,
  readdirplus: flag,
  posixAcl: flag,
  handleKillpriv: flag,
  createSuppGroup: flag,
  autoInvalData: flag,
  parallelDirops: flag,
  cacheSymlinks: flag,
  fileLocks: flag,
  fileAttributes: flag,
});

const shape: z.ZodType<RestartState> = z.object({
  connection: count,
  ownerEpoch: count,
  negotiated: negotiatedShape,
  inodes: z.array(
    z.object({ fuseNodeid: count, id: fileId, kind: z.enum(["file", "directory", "other"]), nlookup: count, nlinkHint: count }),
  ),
  nextCounted: count,
  handles: z.array(
    z.object({
      fh: count,
      fuseNodeid: count,
      lowerHandle: count,
      writable: flag,
      cached: flag,
      writeToken: flag,
      mappable: flag,
      manyNew: flag,
    }),
  ),
  nextFh: count,
  mapped: z.array(count),
  lates: z.array(
    z.object({ fuseNodeid: count, effect: z.enum(["raises", "misplaced", "sets"]), tid: count, end: z.union([count, z.null()]) }),
  ),
  openFiles: z.array(z.object({ handle: count, id: fileId, flags: z.number().int(), directory: flag, lossesTold: count })),
  unsynced: z.object({
    changed: z.array(
      z.tuple([
        z.string(),
        z.object({ at: count, what: z.enum(["data", "all"]), data: flag.optional(), named: z.array(z.string()).optional() }),
      ]),
    ),
    lost: z.array(z.tuple([z.string(), z.object({ death: count, told: flag, behind: flag, data: flag.optional() })])),
    deaths: count,
    syncfsFails: flag,
    tick: count,
  }),
  staleOnce: z.array(z.string()),
  fileLocks: z.array(
    z.object({
      fuseNodeid: count,
      shared: flag,
      held: z.array(
        z.object({
          ...lockOwner,
          type: z.enum(["read", "write"]),
          start: decimal,
          end: decimal,
          pid: count,
          heldMs: z.number().nonnegative(),
        }),
      ),
      users: z.array(z.object({ ...lockOwner, handles: z.array(count) })),
    }),
  ),
  hasOwned: flag,
  custody: z.union([z.string(), z.null()]),
  gaveBack: flag,
  standIns: z.object({ shownTo: z.array(z.tuple([count, count])), threads: z.array(z.tuple([count, flag])) }),
  held: z.array(z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/)),
  again: flag,
  shared: z.array(count),
});

function refused(found: string): OperatingError {
  return new OperatingError(`the state of a mount in version ${STATE_VERSION} expected, found ${found}`, {
    code: "bad-state",
    hint: "Nothing was taken over, and the mount goes on in its process: unmount and mount again to have the new program.",
  });
}

export function encodeState(state: RestartState): Buffer {
  const body = Buffer.from(JSON.stringify(state));
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt32LE(STATE_VERSION, MAGIC.length);
  head.writeUInt32LE(body.length, MAGIC.length + 4);
  digestOf(body).copy(head, HEAD_BYTES - DIGEST_BYTES);
  return Buffer.concat([head, body]);
}

function digestOf(body: Buffer): Buffer {
  return createHash("sha256").update(body).digest();
}

/** Throws OperatingError "bad-state". */
export function decodeState(bytes: Buffer): RestartState {
  if (bytes.length < MAGIC.length || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    throw refused(`${bytes.length} bytes of something else`);
  if (bytes.length < HEAD_BYTES) throw refused(`its first ${bytes.length} bytes only`);
  const version = bytes.readUInt32LE(MAGIC.length);
  if (version !== STATE_VERSION) throw refused(`version ${version}`);
  const body = bytes.subarray(HEAD_BYTES);
  const bodyBytes = bytes.readUInt32LE(MAGIC.length + 4);
  if (body.length !== bodyBytes) throw refused(`${body.length} bytes instead of ${bodyBytes}`);
  if (!digestOf(body).equals(bytes.subarray(HEAD_BYTES - DIGEST_BYTES, HEAD_BYTES))) throw refused("a damaged one: its digest is another");
  const parsed = shape.safeParse(JSON.parse(body.toString("utf8")));
  if (!parsed.success) throw refused(`one that does not fit: ${z.prettifyError(parsed.error)}`);
  return checked(parsed.data);
}

/** What one part says of another is there. */
function checked(state: RestartState): RestartState {
  const inodes = new Set(state.inodes.map(({ fuseNodeid }) => fuseNodeid)).add(1);
  const files = new Set(state.openFiles.map((one) => one.handle));
  if (inodes.size !== state.inodes.length + 1) throw refused("an inode twice");
  for (const { fh, fuseNodeid, lowerHandle } of state.handles) {
    if (!inodes.has(fuseNodeid)) throw refused(`handle ${fh} of inode ${fuseNodeid}, which is not in it`);
    if (!files.has(lowerHandle)) throw refused(`handle ${fh} of file ${lowerHandle}, which is not open at the owner`);
  }
  for (const fuseNodeid of state.mapped) if (!inodes.has(fuseNodeid)) throw refused(`a mapping of inode ${fuseNodeid}, which is not in it`);
  for (const { fuseNodeid } of state.lates)
    if (!inodes.has(fuseNodeid)) throw refused(`a reply for inode ${fuseNodeid}, which is not in it`);
  const handles = new Set(state.handles.map(({ fh }) => fh));
  for (const { fuseNodeid, users } of state.fileLocks) {
    if (!inodes.delete(fuseNodeid)) throw refused(`locks of inode ${fuseNodeid}, which is not in it, or twice`);
    for (const fh of users.flatMap((user) => user.handles))
      if (!handles.has(fh)) throw refused(`a lock through handle ${fh}, which is not in it`);
  }
  return state;
}
