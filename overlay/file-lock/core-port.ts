/** What is asked of the core of file locks, and what it wants done (core.ts). */
import type { FileLockStatus } from "../../dlmd/client/file-lock-api.ts";
import type { LockFound } from "../fuse/reply.ts";
import type { LockOwner, LockRange } from "./api.ts";

export interface FileLockAsk {
  readonly file: string;
  readonly op: "lock" | "unlock" | "test";
  readonly owner: LockOwner;
  readonly range: LockRange;
  readonly pid: number;
  readonly wait: boolean;
}

/** As the service is asked. */
export interface ServiceAsk extends FileLockAsk {
  /** flock: the conversion has begun here. What its owner has now it was given after that, and keeps while this waits. */
  readonly begun: boolean;
  /** For so long its owner has had this lock here; null: it is a new one. */
  readonly heldMs: number | null;
  /** The process before has this lock, and gives it up: it goes before all that wait. */
  readonly first: boolean;
}

/** What a request ended with. */
export interface FileLockAnswer {
  readonly status: FileLockStatus;
  readonly found: LockFound | null;
}

export interface FileLockPort {
  nowMs(): number;
  /** EX of the file's resource, or CW if that is to be had sooner (ALTCW): `stateGranted`. */
  askState(file: string): void;
  /** EX, or CW of a file that is `shared`, at the head of its queue: the process before has it, and gives it up. Nobody is told when it is there. */
  inheritState(file: string, shared: boolean): void;
  /** EX to CW: takes effect at once. The file is shared by then. */
  shareState(file: string): void;
  /** CW to EX, if it is to be had at once: `stateGranted` with what there is then. */
  takeBackState(file: string): void;
  giveUpState(file: string): void;
  /** To the file-lock service: `serviceAnswered`, once. */
  ask(id: number, ask: ServiceAsk): void;
  cancel(id: number): void;
  answer(id: number, answer: FileLockAnswer): void;
  /** `handleTimer` after that time; once more instead of the one before. */
  setTimer(file: string, delayMs: number): void;
}
