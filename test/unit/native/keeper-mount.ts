/** What a keeper's mount and journal are like for tests of its letting go: rows of inodes, pages that nobody sends, and the processes that drop them. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { expect, vi } from "vitest";
import { AT, TABLES } from "../../../overlay/crash/layout.ts";
import { statFields } from "./keeper-lab.ts";
import { native, opened, type Scratch } from "./scratch.ts";
import { FILE_NODEID, OPCODE, type TinyFuse } from "./tiny-fuse.ts";

const { usedInodes: USED_ROWS_AT, usedHandles: USED_HANDLES_AT, connection: CONNECTION_AT } = AT;
const { at: ROWS_AT, rowBytes: ROW_BYTES } = TABLES.inodes;
const STATE_AT = 28;
const { at: HANDLES_AT, rowBytes: HANDLE_ROW_BYTES } = TABLES.handles;
const HANDLE_NODEID_AT = 8;
const HANDLE_STATE_AT = 24;

/** The kernel does not have it. */
export const NO_NODEID = 999_999;

const PARENT_FIELD = 4 - 3;
const SESSION_FIELD = 6 - 3;
export const UNSEEN = { timeout: 30_000, interval: 2 };

/** Minor numbers of more than 8 bits stand apart (makedev(3)). */
export function connectionOf(mountPoint: string): number {
  const { dev } = statSync(mountPoint);
  return (dev & 0xff) | ((dev >> 12) & 0xfff00);
}

interface JournalOptions {
  readonly connection: number;
  /** By rows, numbers of inodes; 0: the row is free. */
  readonly nodeids: readonly number[];
  /** By rows of the table of handles: of what is open. */
  readonly open?: readonly number[];
}

export function makeJournal(scratch: Scratch, { connection, nodeids, open = [] }: JournalOptions): number {
  const bytes = Buffer.alloc(ROWS_AT + nodeids.length * ROW_BYTES);
  bytes.writeUInt32LE(nodeids.length, USED_ROWS_AT);
  bytes.writeUInt32LE(connection, CONNECTION_AT);
  for (const [row, nodeid] of nodeids.entries()) {
    const at = ROWS_AT + row * ROW_BYTES;
    bytes.writeDoubleLE(nodeid === 0 ? NO_NODEID : nodeid, at);
    bytes.writeUInt32LE(nodeid === 0 ? 0 : 1, at + STATE_AT);
  }
  bytes.writeUInt32LE(open.length, USED_HANDLES_AT);
  const journal = opened(
    scratch,
    native.memfdCreate("journal", open.length > 0 ? HANDLES_AT + open.length * HANDLE_ROW_BYTES : bytes.length),
  );
  native.sync.write(journal, bytes, 0, bytes.length, 0, 0);
  for (const [row, nodeid] of open.entries()) {
    const handle = Buffer.alloc(HANDLE_ROW_BYTES);
    handle.writeDoubleLE(nodeid === 0 ? NO_NODEID : nodeid, HANDLE_NODEID_AT);
    handle.writeUInt32LE(nodeid === 0 ? 0 : 1, HANDLE_STATE_AT);
    native.sync.write(journal, handle, 0, handle.length, HANDLES_AT + row * HANDLE_ROW_BYTES, 0);
  }
  return journal;
}

/** Processes of that session, with their parents and names. */
export function session(sid: number): { pid: number; parent: number; name: string }[] {
  return readdirSync("/proc").flatMap((entry) => {
    const pid = Number(entry);
    try {
      if (!(pid > 0) || Number(statFields(pid)[SESSION_FIELD]) !== sid) return [];
      return [{ pid, parent: Number(statFields(pid)[PARENT_FIELD]), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() }];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}

export function drops(sid: number): number {
  return session(sid).filter(({ name }) => name === "coverlay-drop").length;
}

/** So many programs wait for pages of the files behind "f", which nobody sends. */
export async function holdReads(scratch: Scratch, fuse: TinyFuse, count: number): Promise<{ readonly ended: Promise<unknown> }> {
  fuse.hold(OPCODE.READ);
  const before = fuse.seen.length;
  const script = `for each in $(seq ${count}); do head -c 1 "$0/f$each" & done; wait`;
  const child = spawn("/bin/sh", ["-c", script, fuse.mountPoint], { stdio: "ignore" });
  scratch.later(() => child.kill("SIGKILL"));
  const ended = once(child, "exit");
  const reads = (): number => fuse.seen.slice(before).filter((opcode) => opcode === OPCODE.READ).length;
  // Not expect.poll: it must know which test this is, of several at the same time.
  await vi.waitFor(() => expect(reads()).toBe(count), UNSEEN);
  return { ended };
}

/** Of so many files behind "f". */
export const nodeidsBehind = (count: number): number[] => Array.from({ length: count }, (_, at) => FILE_NODEID + 1 + at);
