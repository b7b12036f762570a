/** The package's `coverlay/dlm`: everything that a program needs to use the lock manager. */
export type {
  ClusterInfo,
  DlmClient,
  DlmClientHandlers,
  GoneClient,
  InheritedClient,
  InheritedLock,
  Lock,
  LockHandlers,
  LockStatus,
  Lockspace,
  RequestOptions,
  ViewInfo,
} from "./api.ts";
export type {
  FileLockConflict,
  FileLockOwner,
  FileLockRange,
  FileLockRequest,
  FileLockResult,
  FileLocks,
  FileLockStatus,
  FileLockWanted,
} from "./file-lock-api.ts";
export type { Group, GroupChange, GroupHandlers, GroupMember, GroupMessage } from "./group-api.ts";
export type { FenceAnswer, FenceQuestion } from "../wire/fence-life.ts";
export type { DeviceState, LifeAnswer, LifeSeen, ProcessLife, ProcessState } from "../wire/peer-life.ts";
export { LockFlag } from "./api.ts";
export { connectDlm } from "./client.ts";
export { type ConvertOptions, type HeldLock, type TakeOptions, takeLock } from "./held-lock.ts";
export { Mode } from "../wire/mode.ts";
