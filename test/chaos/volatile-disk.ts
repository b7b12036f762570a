/**
 * A disk with a volatile cache, as a process: a FUSE file system of one file, `disk`, on which the loop devices of a lab sit. What was written
 * through a loop device and not flushed is lost, in part, when that path loses its power; a path can also be made to hang.
 *
 *     node volatile-disk.js MOUNTPOINT BACKING_FILE BYTES
 *
 * It reads commands (DiskCommand) from its input, a line each, answers each with a line, and ends when its input does. A path is named by its loop
 * device, which the command line of losetup(8) tells while it opens the file.
 */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { E, errnoName } from "../../dlmd/base/errno.ts";
import { WireError } from "../../dlmd/base/error.ts";
import { type Device, MNT_DETACH, nativeAddon } from "../../native/index.ts";
import { FOPEN, requestBufferBytes } from "../../overlay/fuse/abi.ts";
import { damagedUnique, decodeRequest } from "../../overlay/fuse/decode-request.ts";
import { negotiateInit } from "../../overlay/fuse/init.ts";
import {
  encodeAttr,
  encodeDataHead,
  encodeEmpty,
  encodeEntry,
  encodeError,
  encodeOpen,
  encodeStatfs,
  encodeWrite,
  MAX_REPLY_BYTES,
} from "../../overlay/fuse/reply.ts";
import type { InitRequest, OpenRequest, ReadRequest, Request, WriteRequest } from "../../overlay/fuse/request.ts";
import { type Attr, NO_BIRTH_TIME } from "../../overlay/lower/lower.ts";
import { Random } from "../sim/random.ts";
import { UnstableWrites } from "./unstable-writes.ts";

export type DiskCommand =
  /** That path fails from now on, and what came by it and is not stable is lost in part. */
  | { readonly do: "power-off"; readonly device: string; readonly seed: number; readonly keepPercent: number }
  /** Requests by that path wait. */
  | { readonly do: "hang"; readonly device: string }
  /** They wait once so many more writes have come: in the midst of what belongs together. */
  | { readonly do: "hang-after"; readonly device: string; readonly writes: number }
  | { readonly do: "unhang"; readonly device: string }
  /** A copy of it as it is at one moment: what a loss of power everywhere leaves, where the cache loses nothing. `to`: a file that is not there yet. */
  | { readonly do: "snapshot"; readonly to: string }
  | { readonly do: "figures" };

/** What came by one device, of all writes of the disk in their order, from 1. */
export interface DeviceWrites {
  readonly writes: number;
  readonly first: number;
  readonly last: number;
}

export interface DiskAnswer {
  readonly error?: string;
  /** By all losses of power so far. */
  readonly keptWrites: number;
  readonly lostWrites: number;
  readonly unstableBytes: number;
  readonly writes: number;
  readonly flushes: number;
  readonly forcedFlushes: number;
  /** By device, also of those that are gone. */
  readonly writesBy: Readonly<Record<string, DeviceWrites>>;
  readonly devices: readonly string[];
  readonly hanging: readonly string[];
}

const MAX_WRITE_BYTES = 1024 * 1024;
const BATCH = 16;
const ROOT = 1;
/** Inode number of the file. */
const FILE = 2;
const GENERATION = 1;

interface Path {
  /** "/dev/loop3"; "": opened by another program. */
  readonly device: string;
  state: "works" | "hangs" | "failed";
  /** Writes until it hangs. */
  writesLeft: number;
  readonly waiting: (() => void)[];
}

class VolatileDisk {
  readonly #native = nativeAddon();
  readonly #bytes: number;
  readonly #backing: number;
  readonly #backingFile: string;
  readonly #mountpoint: string;
  readonly #writes: UnstableWrites;
  readonly #paths: Map<number, Path> = new Map();
  readonly #reply = Buffer.alloc(MAX_REPLY_BYTES);
  readonly #buffer = Buffer.allocUnsafeSlow(requestBufferBytes(MAX_WRITE_BYTES));
  readonly #fuse: number;
  readonly #device: Device;
  #nextHandle = 1;
  /**
   * Each lookup of the file gives it another node: the kernel has a lock for each inode, which a write that hangs on one path would keep from the
   * flushes of all others. So a path that was opened before shows as deleted, which the lab knows.
   */
  #nextFuseNodeid = FILE;
  #writeCount = 0;
  readonly #writesBy: Record<string, DeviceWrites> = {};
  #flushCount = 0;
  #keptCount = 0;
  #lostCount = 0;

  constructor(mountpoint: string, backing: string, bytes: number, ready: () => void) {
    this.#bytes = bytes;
    this.#mountpoint = mountpoint;
    this.#backingFile = backing;
    this.#backing = openSync(backing, "r+");
    this.#writes = new UnstableWrites({
      read: (offset, length) => this.#read(offset, length),
      write: (offset, data) => void writeSync(this.#backing, data, 0, data.length, offset),
    });
    this.#fuse = this.#must(this.#native.fuseOpen(), "/dev/fuse");
    const data = `fd=${this.#fuse},rootmode=40000,user_id=0,group_id=0`;
    this.#must(this.#native.mount("volatile-disk", mountpoint, "fuse.volatile-disk", 0, data), `mount(2) on ${mountpoint}`);
    this.#device = this.#native.deviceStart(
      this.#fuse,
      this.#buffer,
      BATCH,
      (length) => this.#receive(length, ready),
      () => process.exit(0),
    );
  }

  #must(result: number, what: string): number {
    if (result >= 0) return result;
    process.stderr.write(`${what}: ${errnoName(-result)}\n`);
    process.exit(1);
  }

  #read(offset: number, length: number): Buffer {
    const data = Buffer.alloc(Math.max(0, Math.min(length, this.#bytes - offset)));
    readSync(this.#backing, data, 0, data.length, offset);
    return data;
  }

  #receive(length: number, ready: () => void): void {
    let request: Request;
    try {
      request = decodeRequest(this.#buffer, length);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      const unique = damagedUnique(this.#buffer, length);
      if (unique !== null) this.#send(encodeError(this.#reply, unique, E.EIO));
      return;
    }
    if (request.op === "init") this.#init(request, ready);
    else this.#serve(request);
  }

  #send(bytes: number): void {
    this.#native.deviceWrite(this.#fuse, this.#reply, bytes);
  }

  #init(request: InitRequest, ready: () => void): void {
    const { reply } = negotiateInit(request, { hasAcls: false, fileLocks: false, maxWriteBytes: MAX_WRITE_BYTES });
    this.#native.deviceWrite(this.#fuse, reply, reply.length);
    ready();
  }

  #attr(fuseNodeid: number): Attr {
    const isFile = fuseNodeid === FILE;
    const size = isFile ? this.#bytes : 0;
    return {
      ino: fuseNodeid,
      mode: isFile ? 0o100600 : 0o40700,
      nlink: 1,
      uid: 0,
      gid: 0,
      size,
      blocks: size / 512,
      blksize: 4096,
      rdevMajor: 0,
      rdevMinor: 0,
      atimeSec: 0,
      atimeNsec: 0,
      mtimeSec: 0,
      mtimeNsec: 0,
      ctimeSec: 0,
      ctimeNsec: 0,
      btimeSec: 0,
      btimeNsec: NO_BIRTH_TIME,
    };
  }

  #serve(request: Request): void {
    const { unique } = request;
    const reply = this.#reply;
    switch (request.op) {
      case "lookup":
        if (request.name.toString("latin1") !== "disk") return this.#send(encodeError(reply, unique, E.ENOENT));
        return this.#send(encodeEntry(reply, unique, this.#nextFuseNodeid++, GENERATION, this.#attr(FILE), false, true));
      case "getattr":
      case "setattr": // Times only: the size never changes.
        return this.#send(encodeAttr(reply, unique, this.#attr(request.fuseNodeid === ROOT ? ROOT : FILE), true));
      case "open":
        return this.#open(request);
      case "read":
      case "write":
      case "fsync":
        return this.#io(request);
      case "release":
        this.#paths.delete(request.fh);
        return this.#send(encodeEmpty(reply, unique));
      case "opendir":
        return this.#send(encodeOpen(reply, unique, 0, 0));
      case "statfs": {
        const blocks = this.#bytes / 4096;
        const statFs = { blocks, bfree: blocks, bavail: blocks, files: 1, ffree: 0, bsize: 4096, frsize: 4096, namelen: 255 };
        return this.#send(encodeStatfs(reply, unique, statFs));
      }
      case "flush":
      case "releasedir":
      case "destroy":
        return this.#send(encodeEmpty(reply, unique));
      case "forget":
      case "interrupt":
      case "notifyReply":
        return;
      default:
        return this.#send(encodeError(reply, unique, E.ENOSYS));
    }
  }

  #open({ unique, pid }: OpenRequest): void {
    const handle = this.#nextHandle++;
    this.#paths.set(handle, { device: loopOf(pid), state: "works", writesLeft: Number.POSITIVE_INFINITY, waiting: [] });
    // No page cache lies between the loop devices: each is a path of its own to one disk.
    this.#send(encodeOpen(this.#reply, unique, handle, FOPEN.FOPEN_DIRECT_IO));
  }

  #io(request: ReadRequest | WriteRequest | (Request & { op: "fsync" })): void {
    const path = this.#paths.get(request.fh);
    if (path === undefined || path.state === "failed") return this.#send(encodeError(this.#reply, request.unique, E.EIO));
    if (path.state === "hangs") {
      const kept = request.op === "write" ? { ...request, data: Buffer.from(request.data) } : request;
      path.waiting.push(() => this.#io(kept));
      return;
    }
    if (request.op === "read") {
      const data = this.#read(request.offset, request.size);
      this.#native.deviceWrite2(this.#fuse, this.#reply, encodeDataHead(this.#reply, request.unique, data.length), data, 0, data.length);
    } else if (request.op === "write") {
      // A write that a cut of its loop device sends far beyond the end (overlay/lab/disk.ts). A disk is not full: ENOSPC would reach the programs.
      if (request.offset + request.data.length > this.#bytes) return this.#send(encodeError(this.#reply, request.unique, E.EIO));
      this.#writes.write(request.fh, request.offset, request.data);
      this.#countWrite(path.device);
      path.writesLeft -= 1;
      if (path.writesLeft === 0) path.state = "hangs";
      this.#send(encodeWrite(this.#reply, request.unique, request.data.length));
    } else {
      this.#writes.flush();
      this.#flushCount += 1;
      this.#send(encodeEmpty(this.#reply, request.unique));
    }
  }

  #countWrite(device: string): void {
    this.#writeCount += 1;
    const { writes, first } = this.#writesBy[device] ?? { writes: 0, first: this.#writeCount };
    this.#writesBy[device] = { writes: writes + 1, first, last: this.#writeCount };
  }

  obey(command: DiskCommand): DiskAnswer {
    if (command.do === "snapshot") {
      // No request is served meanwhile.
      execFileSync("cp", ["--sparse=always", this.#backingFile, command.to], { stdio: ["ignore", "ignore", "inherit"] });
    } else if (command.do !== "figures") {
      const paths = [...this.#paths].filter(([, { device }]) => device === command.device);
      if (paths.length === 0) return { ...this.#answer(), error: `no path of ${command.device}` };
      for (const [handle, path] of paths) {
        if (command.do === "hang-after") {
          path.writesLeft = command.writes;
          continue;
        }
        path.writesLeft = Number.POSITIVE_INFINITY;
        path.state = command.do === "hang" ? "hangs" : command.do === "unhang" ? "works" : "failed";
        if (command.do === "power-off") {
          const { keptWrites, lostWrites } = this.#writes.losePower(handle, new Random(command.seed), command.keepPercent);
          this.#keptCount += keptWrites;
          this.#lostCount += lostWrites;
        }
        if (path.state !== "hangs") for (const again of path.waiting.splice(0)) again();
      }
    }
    return this.#answer();
  }

  #answer(): DiskAnswer {
    return {
      keptWrites: this.#keptCount,
      lostWrites: this.#lostCount,
      unstableBytes: this.#writes.unstableBytes,
      writes: this.#writeCount,
      writesBy: this.#writesBy,
      flushes: this.#flushCount,
      forcedFlushes: this.#writes.forcedFlushes,
      devices: [...this.#paths.values()].map(({ device }) => device),
      hanging: [...this.#paths.values()].filter(({ state }) => state === "hangs").map(({ device }) => device),
    };
  }

  end(): void {
    this.#native.deviceStop(this.#device);
    this.#native.umount(this.#mountpoint, MNT_DETACH);
    closeSync(this.#backing);
    process.exit(0);
  }
}

/** The loop device that losetup(8), which opens the file just now, is to attach. */
function loopOf(pid: number): string {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
    return words.find((word) => /^\/dev\/loop\d+$/.test(word)) ?? "";
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return "";
  }
}

const [mountpoint = "", backing = "", bytes = ""] = process.argv.slice(2);
// It does not end by itself with its user: Ctrl-C reaches the whole group, and the lab goes first.
process.on("SIGINT", () => undefined);
const disk = new VolatileDisk(mountpoint, backing, Number(bytes), () => process.stdout.write("ready\n"));
const input = createInterface({ input: process.stdin });
input.on("line", (line) => process.stdout.write(`${JSON.stringify(disk.obey(JSON.parse(line) as DiskCommand))}\n`));
input.on("close", () => disk.end());
