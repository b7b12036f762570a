/** GETLK, SETLK, SETLKW: file locks (fcntl(2), flock(2)). What FLUSH and RELEASE do to them is in open.ts. */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { FileLockStatus } from "../../dlmd/client/file-lock-api.ts";
import { type FileLocking, lockFile } from "../file-lock/api.ts";
import type { GetlkRequest, SetlkRequest } from "../fuse/request.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { fileOf, type Mount, waiting } from "./mount.ts";

const errnos: Record<Exclude<FileLockStatus, "granted">, number> = {
  again: E.EAGAIN,
  deadlock: E.EDEADLK,
  canceled: E.EINTR,
  limit: E.ENOLCK,
};

/** -o localflocks: the kernel was told so, and never asks. */
function fileLocksOf({ fileLocks }: Mount): FileLocking {
  if (fileLocks === null) throw errnoError(E.ENOSYS);
  return fileLocks;
}

/** Null: the caller is being killed, and has its answer. */
function unlessKilled<T>(call: Call, result: Promise<T>, onKilled: () => void = () => undefined): Promise<T | null> {
  return new Promise((resolve, reject) => {
    call.onInterrupt = (): void => {
      onKilled();
      resolve(null);
    };
    result.then(resolve, reject);
  });
}

function answer(call: Call, status: FileLockStatus | null): void {
  if (status === "granted") call.empty();
  else call.error(status === null ? E.EINTR : errnos[status]);
}

/**
 * Any signal takes the request back. Its caller is told what became of it, because it may have been granted meanwhile; but one that is being killed at once, like any other
 * call. What is granted then is given up: a process has closed its file by then, but an open file may have others.
 */
export async function setlk(mount: Mount, call: Call, request: SetlkRequest): Promise<void> {
  const locks = fileLocksOf(mount);
  const { inode, fh } = fileOf(mount, request.fh);
  const { type, start, end, lockPid: pid, wait } = request;
  const owner = { kind: request.flock ? "flock" : "posix", owner: request.owner } as const;
  // What waited for the lease may be signalled no more.
  call.onSignal = null;
  if (type === "unlock") {
    const unlocked: MaybePromise<FileLockStatus> = locks.unlock(lockFile(inode), owner, start, end);
    return answer(call, waiting(unlocked) ? await unlessKilled(call, unlocked) : unlocked);
  }
  // In the turn in which it may come to have one: the next request that is read may be its close(2).
  if (!request.flock) mount.askFlush(inode);
  const asked = locks.lock(lockFile(inode), fh, owner, { type, start, end, pid }, wait);
  const { done } = asked;
  if (!waiting(done)) return answer(call, done);
  let isSignalled = false;
  const cancel = (): void => {
    isSignalled = true;
    asked.cancel();
  };
  if (wait) {
    call.onSignal = cancel;
    call.onYield = (): void => asked.cancel();
  }
  const status = await unlessKilled(call, done, () => asked.abandon());
  call.onSignal = null;
  call.onYield = null;
  // Hazard F45: it begins again.
  if (status === "canceled" && !isSignalled) call.yielded = true;
  else answer(call, status);
}

export async function getlk(mount: Mount, call: Call, request: GetlkRequest): Promise<void> {
  const locks = fileLocksOf(mount);
  const { inode } = fileOf(mount, request.fh);
  const { type, start, end } = request;
  // As kernels before that answer.
  if (type === "unlock") throw errnoError(E.EINVAL);
  const found = locks.test(lockFile(inode), { kind: "posix", owner: request.owner }, { type, start, end });
  if (!waiting(found)) return void call.lock(found);
  const answered = await unlessKilled(
    call,
    found.then((conflict) => ({ conflict })),
  );
  // Hazard F42: another process is asked again.
  if (answered === null) call.error(E.EINTR);
  else call.lock(answered.conflict);
}
