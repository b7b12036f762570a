/**
 * The life of a mount: open /dev/fuse, mount(2), INIT, requests, and the end, which comes from the kernel: ENODEV when the last user
 * of the mount is gone. Started by `mountSession`; ended by umount(2), by whoever does it, or by `abort`.
 */
import { E, errnoError, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { SessionCoherence } from "../coherence/api.ts";
import type { FileLocking } from "../file-lock/api.ts";
import { requestBufferBytes } from "../fuse/abi.ts";
import { type Negotiated, negotiateInit } from "../fuse/init.ts";
import { encodeError } from "../fuse/reply.ts";
import { decodeRequest } from "../fuse/decode-request.ts";
import type { InitRequest } from "../fuse/request.ts";
import type { Inode } from "../coherence/cover.ts";
import type { Mount } from "../op/mount.ts";
import type { DirectoryMoves } from "../lower/directory-moves.ts";
import type { Lower } from "../lower/lower.ts";
import { endlessLease, type LeaseGate } from "../lease/lease.ts";
import { type Device, type Native } from "../../native/index.ts";
import { REPLY_BUFFER_BYTES, type ReplyPort } from "../op/call.ts";
import { MAX_WRITE_BYTES, RequestBuffers } from "./buffers.ts";
import { abortConnection, connectionNumber, detachMount, setReadAhead } from "./connection.ts";
import { Dispatch, type DispatchCounters, type HoldRules, type RequestsBefore } from "./dispatch.ts";
import { Interrupts } from "./interrupt.ts";
import type { SessionJournal } from "./session-journal.ts";
import { createMount, endState, type SessionState } from "./session-state.ts";
import type { SessionSystem } from "./system.ts";
import type { RequestsUnderWay } from "./under-way.ts";

/** Requests read for one wake-up: promises are drained between them, timers only after them. */
const BATCH = 16;

export interface SessionOptions {
  readonly native: Native;
  readonly lower: Lower;
  readonly system: SessionSystem;
  readonly log: Log;
  /** Shown as the source of the mount: the device. */
  readonly source: string;
  /** Absolute, without symbolic links. */
  readonly mountpoint: string;
  /** MS_* of mount(2). */
  readonly mountFlags: number;
  /** Called once, within INIT: `fd` is /dev/fuse, for notifications. */
  readonly createCoherence: (fd: number, negotiated: Negotiated) => SessionCoherence;
  /** The kernel has ended the connection: what operations still wait for elsewhere (an owner) must end now. */
  readonly disconnected?: () => Promise<void>;
  /** File locks of the cluster; not given: each kernel keeps them to itself. */
  readonly fileLocks?: FileLocking;
  /** Not given: this node serves as long as it lives. */
  readonly lease?: LeaseGate;
  /** MountParts.moves, MountParts.walk */
  readonly moves?: DirectoryMoves;
  readonly walk?: (path: Buffer) => Promise<number>;
  /** A request of the kernel has come. */
  readonly requested?: () => void;
  /** A broken invariant; the composition root takes the node out. */
  readonly fail: (error: Error) => void;
  /** Goes on with the mount of another process (overlay/restart/): nothing is mounted, and nothing is read before `begin`. */
  readonly resume?: SessionResume;
  /** For a process that goes on after a crash of this one. */
  readonly journal?: SessionJournal;
  /** INIT flags not to take although offered: to test what older kernels do. */
  readonly without?: bigint;
}

/** What a session goes on with. */
export interface SessionResume {
  /** /dev/fuse, from the process before. */
  readonly fd: number;
  readonly connection: number;
  readonly negotiated: Negotiated;
  /** Fills the tables of the mount. Throws what is wrong with them. */
  readonly restore: (mount: Mount) => void;
  /** The process before has crashed: the kernel sends again what that has read and not answered. */
  readonly crashed?: RequestsBefore;
}

/** How a session is given to another process. */
export interface SessionHandOff {
  readonly fd: number;
  readonly negotiated: Negotiated;
  readonly mount: Mount;
  /** Operations that have not ended. */
  readonly running: number;
  readonly held: readonly Buffer[];
  readonly heldBytes: number;
  /** Dispatch.hold */
  hold(rules: HoldRules): void;
  passHeld(): void;
  /** Dispatch.leave, Dispatch.left */
  leave(rules: Pick<HoldRules, "isOwn">): void;
  readonly left: number | null;
  /** Nothing is read any more. */
  stop(): void;
  /** Undoes `hold` and `stop`, unless the kernel has ended the connection meanwhile. */
  goOn(): void;
  /** After `resume`: requests are read from now on, these before. */
  begin(held: readonly Buffer[]): void;
  /** Another process has it: the session ends here, and the mount does not. */
  given(): Promise<void>;
}

export interface Session {
  /** null: this transport can not be given to another process. */
  readonly handOff: SessionHandOff | null;
  readonly counters: DispatchCounters;
  /** Inodes and handles that the kernel has of us. */
  readonly inodeCount: number;
  readonly handleCount: number;
  /** N of /sys/fs/fuse/connections/N. */
  readonly connection: number;
  readonly underWay: RequestsUnderWay;
  /** The inodes of that number that this mount knows. */
  withIno(ino: number): readonly Inode[];
  /** Resolves when the kernel has ended the connection and every operation has ended; handles are closed by then. */
  readonly ended: Promise<void>;
  /** Ends the connection at once (/sys/fs/fuse): waiting callers get an error; `umount -l` is still to be done. */
  abort(): void;
}

/** Mounts and serves. OperatingError: the kernel is too old, the mount failed. Resolves when the mount answers. */
export async function mountSession(options: SessionOptions): Promise<Session> {
  const { native, log, resume } = options;
  if (resume !== undefined) {
    const serving = new Serving(options, resume.fd);
    serving.resume(resume);
    return serving.session(resume.connection);
  }
  const fd = native.fuseOpen();
  if (fd < 0) {
    throw new OperatingError(`/dev/fuse can not be opened: ${errnoName(-fd)}`, {
      code: "no-fuse",
      hint: "Run as root, on a kernel with FUSE (modprobe fuse).",
    });
  }
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other`;
  const mounted = native.mount(options.source, options.mountpoint, "fuse.clustered", options.mountFlags, data);
  if (mounted < 0) {
    native.sync.close(fd);
    throw new OperatingError(`mount(2) of fuse.clustered on ${options.mountpoint} failed: ${errnoName(-mounted)}`, {
      code: "mount-failed",
      hint: "The mount point must be an existing directory, and the caller root.",
    });
  }
  // Not before: the kernel answers for /dev/fuse only when there is a mount. It asks for INIT by itself and waits for nothing.
  const serving = new Serving(options, fd);
  const connection = connectionNumber(options.mountpoint);
  try {
    const { minor } = await serving.ready;
    if (connection === null) throw endedEarly(`${options.mountpoint} vanished from /proc/self/mountinfo`);
    const slower = setReadAhead(connection);
    if (slower !== null) log.info({ connection, error: slower.message }, "the read-ahead of the mount stays at the kernel's default");
    log.info({ mountpoint: options.mountpoint, connection, minor }, "mounted");
    return serving.session(connection);
  } catch (error) {
    if (connection !== null) detachMount(native, options.mountpoint, connection);
    throw error;
  }
}

function endedEarly(what: string): OperatingError {
  return new OperatingError(what, { code: "mount-failed", hint: "Somebody has unmounted it meanwhile: mount it again." });
}

class Serving {
  readonly ready: Promise<Negotiated>;
  readonly ended: Promise<void>;
  readonly #options: SessionOptions;
  readonly #fd: number;
  #device: Device | null = null;
  readonly #port: ReplyPort;
  readonly #interrupts: Interrupts;
  #state: SessionState | null = null;
  readonly #buffers: RequestBuffers;
  #negotiated: Negotiated | null = null;
  /** Inodes whose FLUSHes come here. */
  readonly #askedFlushes = new Set<number>();
  /** Of devices that were stopped. */
  #flushesBefore = 0;
  /** It has ended, or is ending. */
  #over = false;
  #resolveReady: (negotiated: Negotiated) => void = () => {};
  #rejectReady: (error: unknown) => void = () => {};
  #resolveEnded: () => void = () => {};

  constructor(options: SessionOptions, fd: number) {
    const { native, system, log } = options;
    this.#options = options;
    this.#fd = fd;
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    const buffer = Buffer.allocUnsafeSlow(REPLY_BUFFER_BYTES);
    this.#port = {
      buffer,
      write: (bytes) => native.deviceWrite(fd, buffer, bytes),
      writeWithBody: (headBytes, body, at, bytes) => native.deviceWrite2(fd, buffer, headBytes, body, at, bytes),
      log,
      lease: options.lease ?? endlessLease,
    };
    this.#interrupts = new Interrupts(system);
    this.#buffers = new RequestBuffers(requestBufferBytes(MAX_WRITE_BYTES), (next) => {
      if (this.#device !== null) native.deviceSetBuffer(this.#device, next);
    });
    if (options.resume === undefined) this.#read();
  }

  #read(): void {
    const { native } = this.#options;
    const device = native.deviceStart(
      this.#fd,
      this.#buffers.current,
      BATCH,
      (bytes) => this.#receive(bytes),
      (errno) => void this.#end(errno),
    );
    this.#device = device;
    native.deviceAnswerFlush(device);
    for (const fuseNodeid of this.#askedFlushes) native.deviceAskFlush(device, fuseNodeid, true);
  }

  #stopReading(): void {
    const { native } = this.#options;
    const device = this.#device;
    if (device === null) return;
    this.#device = null;
    this.#flushesBefore += native.deviceFlushes(device);
    native.deviceStop(device);
  }

  /** The process before has answered INIT. Throws what is wrong with what it has left. */
  resume({ negotiated, restore }: SessionResume): void {
    this.#enterServing(negotiated);
    if (this.#state !== null) restore(this.#state.mount);
    this.#resolveReady(negotiated);
  }

  #handOff({ mount, dispatch }: SessionState): SessionHandOff {
    const negotiated = this.#negotiated;
    if (negotiated === null) throw new Error("a session before INIT");
    return {
      fd: this.#fd,
      negotiated,
      mount,
      get running() {
        return dispatch.running;
      },
      get held() {
        return dispatch.heldRequests;
      },
      get heldBytes() {
        return dispatch.heldBytes;
      },
      hold: (rules) => dispatch.hold(rules),
      passHeld: () => dispatch.passHeld(),
      leave: (rules) => dispatch.leave(rules),
      get left() {
        return dispatch.left;
      },
      stop: () => this.#stopReading(),
      goOn: () => {
        if (this.#over) return dispatch.dropHeld();
        dispatch.letGo();
        if (this.#device === null) this.#read();
      },
      begin: (held) => {
        if (this.#over) return;
        for (const bytes of held) dispatch.begin(bytes);
        this.#read();
      },
      given: () => this.#end(null),
    };
  }

  session(connection: number): Session {
    const { native } = this.#options;
    const state = this.#state;
    if (state === null) throw new Error("a session before INIT");
    const { mount, dispatch } = state;
    const flushesOf = (): number => this.#flushesBefore + (this.#device === null ? 0 : native.deviceFlushes(this.#device));
    return {
      handOff: this.#handOff(state),
      get counters(): DispatchCounters {
        const { requests, atOnce, ...others } = dispatch.counters;
        const flushes = flushesOf();
        return { requests: requests + flushes, atOnce: atOnce + flushes, ...others };
      },
      get inodeCount(): number {
        return mount.inodes.size;
      },
      get handleCount(): number {
        return mount.handles.size;
      },
      connection,
      underWay: dispatch.underWay,
      withIno: (ino) => mount.inodes.withIno(ino),
      ended: this.ended,
      abort: () => {
        abortConnection(native, connection);
        // Else the device tells.
        if (this.#device === null) void this.#end(E.ENODEV);
      },
    };
  }

  #receive(bytes: number): void {
    try {
      this.#options.requested?.();
      if (this.#state !== null) this.#state.dispatch.receive(bytes);
      else this.#firstRequest(bytes);
    } catch (error) {
      this.#options.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** INIT is always the first one; whatever depends on its outcome is made when it is answered. */
  #firstRequest(bytes: number): void {
    const request = decodeRequest(this.#buffers.current, bytes);
    if (request.op === "init") {
      this.#init(request);
      return;
    }
    this.#options.log.error({ op: request.op }, "INIT expected as the first request: EIO");
    this.#port.write(encodeError(this.#port.buffer, request.unique, E.EIO));
  }

  #init(request: InitRequest): void {
    const { native, lower, without, log } = this.#options;
    let answer: ReturnType<typeof negotiateInit>;
    try {
      answer = negotiateInit(request, {
        hasAcls: lower.hasAcls,
        fileLocks: this.#options.fileLocks !== undefined,
        maxWriteBytes: MAX_WRITE_BYTES,
        ...(without === undefined ? {} : { without }),
      });
    } catch (error) {
      log.error({ error: String(error) }, "INIT refused");
      this.#port.write(encodeError(this.#port.buffer, request.unique, E.EPROTO));
      this.#rejectReady(error);
      return;
    }
    const { negotiated, reply } = answer;
    this.#enterServing(negotiated);
    const written = native.deviceWrite(this.#fd, reply, reply.length);
    if (written < 0) this.#rejectReady(errnoError(-written));
    else this.#resolveReady(negotiated);
  }

  /** What depends on the outcome of INIT. */
  #enterServing(negotiated: Negotiated): void {
    const { native, lower, log } = this.#options;
    this.#negotiated = negotiated;
    const coherence = this.#options.createCoherence(this.#fd, negotiated);
    const { system, fileLocks = null, journal = null, moves = null, walk = null, resume } = this.#options;
    const mount = createMount({
      lower,
      system,
      log,
      coherence,
      fileLocks,
      clusterLocks: negotiated.fileLocks,
      dontMask: negotiated.posixAcl,
      handleKillpriv: negotiated.handleKillpriv,
      fileAttributes: negotiated.fileAttributes,
      journal,
      moves,
      walk,
      askFlush: (fuseNodeid, asked) => {
        if (asked) this.#askedFlushes.add(fuseNodeid);
        else this.#askedFlushes.delete(fuseNodeid);
        if (this.#device !== null) native.deviceAskFlush(this.#device, fuseNodeid, asked);
      },
    });
    const dispatch = new Dispatch({
      mount,
      port: this.#port,
      buffers: this.#buffers,
      interrupts: this.#interrupts,
      log,
      init: () => log.error({}, "a second INIT"),
      retrieved: ({ unique, data }) => coherence.retrieved(unique, data),
      fail: this.#options.fail,
      journal,
      before: resume?.crashed ?? null,
    });
    this.#state = { mount, dispatch, coherence };
  }

  /** null: another process goes on with the mount. */
  async #end(errno: number | null): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    const { native, log, lower } = this.#options;
    if (errno === null) log.info({}, "given to another process");
    else if (errno === E.ENODEV) log.info({}, "unmounted");
    else log.error({ errno: errnoName(errno) }, "reading /dev/fuse failed: the mount is gone");
    this.#stopReading();
    // What is kept for the lease is given up first: nobody is to be hurried on its account any more.
    await this.#options.disconnected?.();
    this.#interrupts.stop();
    this.#state?.coherence.failWaiters();
    if (this.#state !== null) await endState(this.#state, lower, errno === null);
    // What was given to another process may be kept for it here.
    if (errno !== null) native.sync.close(this.#fd);
    this.#rejectReady(endedEarly("the mount ended before it answered"));
    this.#resolveEnded();
  }
}
