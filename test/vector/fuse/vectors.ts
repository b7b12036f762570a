/**
 * The captured vectors as values: what a kernel sent, what it means (found by an implementation of its own, capture/memory_fs.py), and the
 * replies that the kernel took.
 */
import { readFileSync } from "node:fs";
import type { LockFound } from "../../../overlay/fuse/reply.ts";
import type { Attr, StatFs } from "../../../overlay/lower/lower.ts";

interface DirRecord {
  readonly name: Buffer;
  readonly type: number;
  readonly ino: number;
  readonly cookie: bigint;
  readonly fuseNodeid?: number;
  readonly generation?: number;
  readonly attr?: Attr;
}

interface EntryFields {
  readonly fuseNodeid: number;
  readonly generation: number;
  readonly attr: Attr;
  readonly entryValid: boolean;
  readonly attrValid: boolean;
}

export type ReplySpec = { readonly hex: string } & (
  | { readonly kind: "empty" | "negative" }
  | { readonly kind: "error"; readonly errno: number }
  | { readonly kind: "data"; readonly body: Buffer }
  | ({ readonly kind: "entry" } & EntryFields)
  | ({ readonly kind: "create"; readonly fh: number; readonly openFlags: number } & EntryFields)
  | { readonly kind: "attr" | "statx"; readonly attr: Attr; readonly attrValid: boolean }
  | { readonly kind: "open"; readonly fh: number; readonly openFlags: number }
  | { readonly kind: "write" | "xattrSize"; readonly bytes: number }
  | { readonly kind: "lk"; readonly found: LockFound | null }
  | { readonly kind: "ioctl"; readonly body: Buffer | null }
  | { readonly kind: "lseek"; readonly offset: number }
  | { readonly kind: "statfs"; readonly statfs: StatFs }
  | { readonly kind: "readdir"; readonly plus: boolean; readonly size: number; readonly entries: readonly DirRecord[] }
  | { readonly kind: "init"; readonly want: bigint; readonly options: "plain" | "old" | "acls" | "locks" }
);

export interface RequestVector {
  readonly name: string;
  readonly hex: string;
  readonly expect: Readonly<Record<string, unknown>> & { readonly op: string; readonly unique: number };
  readonly reply?: ReplySpec;
}

export type NotificationVector = { readonly hex: string; readonly errno: number } & (
  | { readonly kind: "invalInode"; readonly fuseNodeid: number; readonly offset: bigint; readonly length: bigint }
  | { readonly kind: "invalEntry"; readonly fuseNodeid: number; readonly name: Buffer; readonly expireOnly: boolean }
  | { readonly kind: "store"; readonly fuseNodeid: number; readonly offset: bigint; readonly data: Buffer }
  | { readonly kind: "delete"; readonly fuseNodeid: number; readonly child: number; readonly name: Buffer }
  | { readonly kind: "incEpoch" | "resend" }
);

interface Vectors {
  readonly about: Readonly<Record<string, string>>;
  readonly requests: readonly RequestVector[];
  readonly notifications: readonly NotificationVector[];
}

function revive(_key: string, value: unknown): unknown {
  if (value === null || typeof value !== "object") return value;
  if ("$big" in value) return BigInt(String(value.$big));
  if ("$hex" in value) return Buffer.from(String(value.$hex), "hex");
  return value;
}

export const vectors: Vectors = JSON.parse(readFileSync(new URL("linux-6.18.json", import.meta.url), "utf8"), revive) as Vectors;
