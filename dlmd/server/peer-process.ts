/**
 * The process at the other end of a local connection, as the kernel knows it (unix(7) SO_PEERCRED, pidfd_open(2)): what a program says of itself
 * is for people only. Node.js has none of these calls, so this and service-manager.ts are the files of dlmd that use native.
 */
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoName } from "../base/errno.ts";
import { OperatingError } from "../base/error.ts";
import { type Native, nativeAddon } from "../../native/index.ts";
import { type KernelWait, kernelWaitOf } from "./kernel-wait.ts";

const SIGKILL = 9;
const ESRCH = 3;
/** A pidfd cannot be waited for in Node.js: it is looked at that often after a SIGKILL. */
const LOOK_EVERY_MS = 20;

export interface Credentials {
  /** 0: in a pid namespace that this process does not see. */
  readonly pid: number;
  readonly uid: number;
}

/** A process that cannot be mistaken for another that gets its number. */
export interface ProcessHandle {
  /** SIGKILL; resolves when it has ended, with true, or at once with false if `close` was called meanwhile. Rejects if it may not be killed. */
  kill(): Promise<boolean>;
  /** Whether it waits in the kernel, where a signal would not end it (kernel-wait.ts). Takes a while where it may be so. */
  kernelWait(): Promise<KernelWait>;
  readonly ended: boolean;
  close(): void;
}

export interface PeerProcesses {
  credentialsOf(socket: Socket): Credentials;
  /** null: its process is not to be seen from here, or has ended. */
  open(socket: Socket): ProcessHandle | null;
}

/** The descriptor of a connected socket: Node.js has it, and does not document where. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd?: number } | null };
  return handle?.fd ?? -1;
}

function handleOf(native: Native, pidfd: number, pid: number): ProcessHandle {
  let closed = false;
  let ended = false;
  const close = (): void => {
    if (!closed) native.sync.close(pidfd);
    closed = true;
  };
  const kill = async (): Promise<boolean> => {
    const sent = native.pidfdSignal(pidfd, SIGKILL);
    if (sent < 0 && sent !== -ESRCH)
      throw new OperatingError(`SIGKILL was refused with ${errnoName(-sent)}`, { code: "cannot-kill", hint: "Run dlmd as root." });
    for (;;) {
      if (closed) return false;
      ended = native.pidfdEnded(pidfd) === 1;
      if (ended) return true;
      await sleep(LOOK_EVERY_MS);
    }
  };
  return {
    kill,
    // Another process may have its number: one that has ended waits for nothing.
    kernelWait: async () => (native.pidfdEnded(pidfd) === 1 ? "none" : kernelWaitOf(pid)),
    close,
    get ended() {
      return ended;
    },
  };
}

/** Why that process may not talk to this one; null: it may. Whoever runs dlmd may, and root. */
export function objectionTo({ pid, uid }: Credentials): string | null {
  const own = process.getuid?.() ?? 0;
  if (uid === 0 || uid === own) return null;
  if (uid < 0) return "the kernel does not say who is at the other end of this connection";
  return `this socket is for root and for uid ${own}, not for process ${pid} of uid ${uid}`;
}

/** Throws OperatingError where the addon is not there or is of another build: without it nobody could be let in. */
export function peerProcesses(): PeerProcesses {
  let native: Native;
  try {
    native = nativeAddon();
  } catch (error) {
    throw new OperatingError(`dlmd cannot tell who connects to it: ${(error as Error).message}`, {
      code: "no-addon",
      hint: "Build it: npm run build.",
      cause: error,
    });
  }
  if (typeof native.peerCredentials !== "function") {
    throw new OperatingError("the native addon is of an older release than this dlmd", {
      code: "no-addon",
      hint: "Build it anew: npm run build.",
    });
  }
  const credentialsOf = (socket: Socket): Credentials => {
    const found = new Float64Array(3);
    const code = native.peerCredentials(descriptorOf(socket), found);
    // It has closed the connection already: nobody is let in as that.
    return code < 0 ? { pid: 0, uid: -1 } : { pid: found[0] ?? 0, uid: found[1] ?? -1 };
  };
  return {
    credentialsOf,
    open(socket) {
      const pidfd = native.peerPidfd(descriptorOf(socket));
      return pidfd < 0 ? null : handleOf(native, pidfd, credentialsOf(socket).pid);
    },
  };
}
