/** A mount of doubles, served by the real dispatch: requests go in as the kernel would send them decoded, replies are collected. */
import { UnderWay } from "../../../dlmd/base/under-way.ts";
import { ChangesAhead } from "../../../overlay/op/changes-ahead.ts";
import { WalkAhead } from "../../../overlay/op/walk-ahead.ts";
import { FilesAhead } from "../../../overlay/op/files-ahead.ts";
import { Prefetch } from "../../../overlay/op/prefetch.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { perform } from "../../../overlay/op/perform.ts";
import { HandleTable, type OpenFile } from "../../../overlay/inode/handles.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { type LowerHandle } from "../../../overlay/lower/lower.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { Call, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import type { Credentials } from "../../../overlay/caller/status.ts";
import { MovedDirectories } from "../../../overlay/op/moved-directories.ts";
import { PlaceholderInodes } from "../../../overlay/op/placeholder-inodes.ts";
import { EstaleRetry } from "../../../overlay/op/estale-retry.ts";
import { Errno } from "../../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { RecordingCoherence } from "./recording-coherence.ts";
import { FILE, ScriptedLower } from "./scripted-lower.ts";

export interface Reply {
  readonly unique: number;
  /** 0 or a positive errno. */
  readonly errno: number;
  readonly body: Buffer;
  /** Pins held when it left. */
  readonly held: number;
}

export class Workbench {
  readonly coherence: RecordingCoherence = new RecordingCoherence();
  readonly lower: ScriptedLower = new ScriptedLower();
  readonly replies: Reply[] = [];
  readonly inodes: InodeTable;
  readonly mount: Mount;
  readonly moved: MovedDirectories;
  /** A look at a place in the mount. */
  walk: (path: Buffer) => Promise<number> = () => Promise.resolve(0);
  readonly file: InodeRecord;
  /** What write(2) of a reply gives: the kernel may not want it any more. */
  writeResult = 0;
  who: Credentials | null = null;
  renaming: boolean | null = false;
  #nextUnique = 2;
  readonly #buffer = Buffer.alloc(REPLY_BUFFER_BYTES);

  constructor() {
    const { coherence } = this;
    this.inodes = new InodeTable({
      root: this.lower.root,
      createCover: (id, kind) => new Cover(id, kind),
      dropped: (inode, removed) => {
        if (removed) coherence.removed(inode);
        coherence.forgotten(inode);
      },
    });
    const log: Log = silentLog;
    const walk = (path: Buffer): Promise<number> => this.walk(path);
    this.moved = new MovedDirectories({ inodes: this.inodes, pathOf: () => this.lower.pathOf(), walk, log });
    this.mount = {
      lower: this.lower,
      coherence,
      inodes: this.inodes,
      handles: new HandleTable(),
      staleOnce: new EstaleRetry(),
      standIns: new PlaceholderInodes(),
      moved: this.moved,
      ahead: new Prefetch(this.lower, coherence),
      walkAhead: new WalkAhead({ lower: this.lower, coherence, inodes: this.inodes, listed: () => undefined, now: () => 0 }),
      changesAhead: new ChangesAhead({ lower: this.lower, coherence, inodes: this.inodes, now: () => 0 }),
      filesAhead: new FilesAhead({ lower: this.lower, now: () => 0 }),
      writesBehind: new UnderWay(),
      log,
      dontMask: true,
      handleKillpriv: true,
      fileAttributes: true,
      credentials: () => this.who,
      isRenaming: () => this.renaming,
      fileLocks: null,
      askFlush: () => undefined,
    };
    this.file = this.inodes.remember(FILE, 0o100644);
    this.file.nlookup = 1;
    this.inodes.leave(this.file);
  }

  openFile(cached = true): OpenFile {
    const access = cached ? "cached" : "direct";
    if (cached) this.coherence.tokens += 1;
    const file = this.mount.handles.add(this.file, 77 as LowerHandle, true, access === "cached", access === "cached", cached);
    this.inodes.opened(this.file, cached);
    return file;
  }

  openDirectory(): OpenFile {
    const file = this.mount.handles.add(this.inodes.root, 78 as LowerHandle, false, true, false, false);
    this.inodes.opened(this.inodes.root, false);
    return file;
  }

  call(op: Operation["op"], pid = 42): Call {
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    const write = (body: Uint8Array, headBytes: number): number => {
      const head = this.#buffer.subarray(0, headBytes);
      const errno = Math.abs(head.readInt32LE(4));
      this.replies.push({
        unique: Number(head.readBigUInt64LE(8)),
        errno,
        body: Buffer.concat([head.subarray(16), body]),
        held: this.coherence.held,
      });
      this.coherence.events.push(errno === 0 ? "reply" : `error ${errno}`);
      return this.writeResult;
    };
    const none = new Uint8Array(0);
    return new Call(
      { unique, op, fuseNodeid: 0, uid: 1000, gid: 1000, pid },
      {
        buffer: this.#buffer,
        write: (bytes) => write(none, bytes),
        writeWithBody: (headBytes, body, at, bytes) => write(body.subarray(at, at + bytes), headBytes),
        log: silentLog,
        lease: endlessLease,
      },
    );
  }

  /** As dispatch does it: an Errno is an answer, anything else fails the test. */
  async serve(
    request: Record<string, unknown> & { op: Operation["op"] },
    call: Call = this.call(request.op),
    by: (call: Call, request: Operation) => MaybePromise<void> = (given, decoded) => perform(this.mount, given, decoded),
  ): Promise<Reply | undefined> {
    try {
      await by(call, {
        unique: call.unique,
        uid: 1000,
        gid: 1000,
        pid: call.pid,
        fuseNodeid: 1,
        ...request,
      } as unknown as Operation);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      call.error(error.errno);
    }
    return this.replies.at(-1);
  }
}
