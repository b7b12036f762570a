/**
 * The life of a mount that libfuse serves: the same operations as those of mount-session.ts, over callbacks by path. For where the kernel's protocol
 * can not be spoken by ourselves; README.md has what is lost.
 *
 * libfuse tells nobody that the mount has ended: it closes its device then, which is looked at.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { SessionCoherence } from "../../coherence/api.ts";
import type { KernelCaches } from "../../coherence/kernel/revoke-round.ts";
import type { OwnInodes } from "../../coherence/size/own-inodes.ts";
import { endlessLease } from "../../lease/lease.ts";
import { MNT_DETACH } from "../../../native/index.ts";
import type { Mount } from "../../op/mount.ts";
import { MountFlag } from "../../volume/mount-options.ts";
import { RequestBuffers } from "../buffers.ts";
import { abortConnection, connectionNumber } from "../connection.ts";
import { Dispatch } from "../dispatch.ts";
import { Interrupts } from "../interrupt.ts";
import type { Session, SessionOptions } from "../mount-session.ts";
import { createMount, endState, type SessionState } from "../session-state.ts";
import { type FuseNativeBinding, loadFuseNative } from "./binding.ts";
import { createHandlers } from "./handlers.ts";
import { PathOperations } from "./path-operations.ts";
import { Requests } from "./requests.ts";
import { uncachedCaches, uncachedInodes } from "./uncached-kernel.ts";

/** How often it is looked whether the mount is still there. */
export const END_LOOK_MS = 50;

export interface FuseNativeOptions extends Omit<SessionOptions, "createCoherence" | "fileLocks" | "without"> {
  readonly createCoherence: (caches: KernelCaches, own: OwnInodes) => SessionCoherence;
  readonly binding?: FuseNativeBinding;
}

/**
 * Hazard F26: nothing is valid for any time, no page is kept, and each READ and WRITE comes here. Names and attributes that libfuse itself
 * would keep have the same timeouts.
 */
const UNCACHED: readonly string[] = [
  "entry_timeout=0",
  "negative_timeout=0",
  "attr_timeout=0",
  "ac_attr_timeout=0",
  "direct_io",
  "use_ino",
  "big_writes",
];

/** -o of libfuse 2. Flags are set exactly by a remount, and here only so that none is missing before. */
export function libfuseOptions(source: string, mountFlags: number): string {
  const name = source.replaceAll("\\", "\\\\").replaceAll(",", "\\,");
  const mode = (mountFlags & MountFlag.RDONLY) !== 0 ? "ro" : "rw";
  return `-o${[mode, "suid", "dev", "nonempty", "default_permissions", "subtype=clustered", `fsname=${name}`, ...UNCACHED].join(",")}`;
}

/** The descriptors of this process on /dev/fuse. */
function fuseDevices(): Set<string> {
  const found = new Set<string>();
  for (const fd of readdirSync("/proc/self/fd")) if (isFuseDevice(fd)) found.add(fd);
  return found;
}

function isFuseDevice(fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "/dev/fuse";
  } catch {
    // That of the listing itself is closed by now.
    return false;
  }
}

/** Mounts and serves, as mountSession. OperatingError: "no-fuse-native", "mount-failed". */
export async function mountFuseNative(options: FuseNativeOptions): Promise<Session> {
  const binding = options.binding ?? loadFuseNative();
  const serving = new FuseNative(options);
  const before = fuseDevices();
  const refused = (what: string, cause?: unknown): OperatingError =>
    new OperatingError(`libfuse can not mount ${options.mountpoint}: ${what}`, {
      code: "mount-failed",
      hint: "The mount point must be an existing directory, and the caller root.",
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    serving.mount(binding);
  } catch (error) {
    await serving.end();
    throw refused(error instanceof Error ? error.message : String(error), error);
  }
  const connection = connectionNumber(options.mountpoint);
  const device = [...fuseDevices()].find((fd) => !before.has(fd));
  if (connection === null || device === undefined) {
    options.native.umount(options.mountpoint, MNT_DETACH);
    await serving.end();
    throw refused("it is gone already");
  }
  serving.watch(device);
  const { native, source, mountpoint, mountFlags, log } = options;
  const flagged = native.mount(source, mountpoint, "fuse", mountFlags | MountFlag.REMOUNT, "");
  if (flagged < 0) log.error({ errno: -flagged }, "the flags of the mount could not be set");
  log.info({ mountpoint, connection, transport: "fuse-native" }, "mounted");
  return serving.session(connection);
}

class FuseNative {
  readonly ended: Promise<void>;
  readonly #options: FuseNativeOptions;
  readonly #state: SessionState;
  readonly #interrupts: Interrupts;
  readonly #paths: PathOperations;
  readonly #log: Log;
  /** What libfuse's threads use, as long as this process lives. */
  readonly #memory: Buffer[] = [];
  #stopWatch: (() => void) | null = null;
  #ending = false;
  #resolveEnded: () => void = () => {};

  constructor(options: FuseNativeOptions) {
    const { system, log, lower } = options;
    this.#options = options;
    this.#log = log;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    const requests = new Requests(log, options.lease ?? endlessLease);
    this.#interrupts = new Interrupts(system);
    let mount: Mount | null = null;
    const coherence = options.createCoherence(
      uncachedCaches,
      uncachedInodes(() => mount),
    );
    // The kernel keeps file locks, and applies umasks, itself.
    mount = createMount({
      lower,
      system,
      log,
      coherence,
      fileLocks: null,
      clusterLocks: false,
      dontMask: false,
      handleKillpriv: false,
      fileAttributes: false,
      askFlush: () => {},
    });
    const dispatch = new Dispatch({
      mount,
      port: requests.port,
      buffers: new RequestBuffers(1, () => {}),
      interrupts: this.#interrupts,
      log,
      init: () => log.error({}, "INIT by a path"),
      retrieved: () => log.error({}, "an answer of a kernel that was asked nothing"),
      fail: options.fail,
    });
    this.#state = { mount, dispatch, coherence };
    this.#paths = new PathOperations({ mount, ask: (request) => requests.ask((whole) => dispatch.serve(whole), request) });
  }

  /** Throws what libfuse says, which is not much. */
  mount(binding: FuseNativeBinding): void {
    const { mountpoint, source, mountFlags } = this.#options;
    const thread = this.#kept(binding.sizeof_fuse_thread_t);
    const { handlers, implemented } = createHandlers(binding, this.#paths, this.#log);
    binding.fuse_native_mount(
      mountpoint,
      libfuseOptions(source, mountFlags),
      thread,
      this,
      (bytes) => this.#kept(bytes),
      handlers,
      implemented,
    );
  }

  #kept(bytes: number): Buffer {
    const memory = Buffer.alloc(bytes);
    this.#memory.push(memory);
    return memory;
  }

  watch(device: string): void {
    this.#stopWatch = this.#options.system.every(END_LOOK_MS, () => {
      if (!isFuseDevice(device)) void this.end().catch(this.#options.fail);
    });
  }

  session(connection: number): Session {
    const { mount, dispatch } = this.#state;
    return {
      handOff: null,
      get counters() {
        return dispatch.counters;
      },
      get inodeCount() {
        return mount.inodes.size;
      },
      get handleCount() {
        return mount.handles.size;
      },
      connection,
      underWay: dispatch.underWay,
      withIno: (ino) => mount.inodes.withIno(ino),
      ended: this.ended,
      abort: () => {
        abortConnection(this.#options.native, connection);
        void this.end().catch(this.#options.fail);
      },
    };
  }

  /** libfuse waits for the answer to each callback before it ends: so those that wait for something get an error first. */
  async end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#stopWatch?.();
    this.#log.info({}, "unmounted");
    await this.#options.disconnected?.();
    this.#interrupts.stop();
    this.#state.coherence.failWaiters();
    await endState(this.#state, this.#options.lower);
    this.#resolveEnded();
  }
}
