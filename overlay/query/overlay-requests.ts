/** What the overlay of a mount says of an inode, and of the requests whose callers wait: for `coverlay why`. */
import * as z from "zod";
import { askOverlay } from "./overlay-query.ts";

/** Who a mount is to the lock manager. */
interface MountClient {
  readonly nodeid: number;
  readonly clientId: number;
  readonly lockspace: string;
  readonly mountpoint: string;
}

export interface OverlayInode extends MountClient {
  /** Inode number and generation (fileKey), one for each generation that the mount knows. */
  readonly keys: readonly string[];
}

export interface OverlayRequest {
  readonly op: string;
  /** The calling thread. */
  readonly pid: number;
  readonly key: string | null;
  /** Of the inode for whose lock it waits; null: for none. Not given: a mount of an older version. */
  readonly lockKey?: string | null | undefined;
  readonly sinceMs: number;
  readonly fileLock: { readonly type: string; readonly start: string; readonly end: string } | null;
}

export interface OverlayRequests extends MountClient {
  readonly requests: readonly OverlayRequest[];
  /** Of all, also those that are not shown. */
  readonly count: number;
  /** Of all that do not wait for a file lock; not given: a mount of an older version. */
  readonly longest?: OverlayRequest | null | undefined;
}

const clientFields = { nodeid: z.number(), clientId: z.number(), lockspace: z.string(), mountpoint: z.string() };
const inodeShape: z.ZodType<OverlayInode> = z.looseObject({ ...clientFields, keys: z.array(z.string()) });
const requestShape: z.ZodType<OverlayRequest> = z.looseObject({
  op: z.string(),
  pid: z.number(),
  key: z.string().nullable(),
  lockKey: z.string().nullable().optional(),
  sinceMs: z.number(),
  fileLock: z.looseObject({ type: z.string(), start: z.string(), end: z.string() }).nullable(),
});
const requestsShape: z.ZodType<OverlayRequests> = z.looseObject({
  ...clientFields,
  requests: z.array(requestShape),
  count: z.number(),
  longest: requestShape.nullable().optional(),
});

/** What that mount calls the inode of that number. Throws as `askOverlay`. */
export function queryOverlayInode(runDir: string, connection: number, ino: number): Promise<OverlayInode> {
  return askOverlay(runDir, connection, { query: "inode", ino }, inodeShape);
}

/** What the callers of that mount wait for, the longest first. Throws as `askOverlay`. */
export function queryOverlayRequests(runDir: string, connection: number, timeoutMs?: number): Promise<OverlayRequests> {
  return askOverlay(runDir, connection, { query: "requests" }, requestsShape, timeoutMs);
}
