/**
 * The smallest FUSE server that a kernel mounts: a directory with a file "f" of 5 bytes, and as many more as are asked for, "f1", "f2". Requests and
 * replies are made by hand (include/uapi/linux/fuse.h), so that the device is tested without the codec.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Device } from "../../../native/index.ts";
import { errno, MNT_DETACH, native, type Scratch } from "./scratch.ts";

export const OPCODE = { LOOKUP: 1, FORGET: 2, GETATTR: 3, OPEN: 14, READ: 15, RELEASE: 18, FLUSH: 25, INIT: 26, BATCH_FORGET: 42 } as const;
export const ROOT_NODEID = 1;
export const FILE_NODEID = 2;
const IN_HEADER_BYTES = 40;
const OUT_HEADER_BYTES = 16;
const REQUEST_BUFFER_BYTES = 1 << 20;
const NOTIFY_INVAL_INODE = 2;
const DAY_SEC = 86400n;

export interface TinyFuse {
  readonly fd: number;
  readonly mountPoint: string;
  readonly device: Device;
  /** Opcodes in the order in which they came. */
  readonly seen: number[];
  /** The errno of the end of the device. */
  readonly ended: Promise<number>;
  /** Requests of this opcode are kept, not answered, until release(). */
  hold(opcode: number): void;
  /** Settles when a held request came. */
  readonly held: Promise<void>;
  /** The number of the first one. */
  heldUnique(): bigint;
  release(): void;
  /** Stops and closes, as a process that dies: what was held is not answered. Mounted as long as another descriptor is open. */
  leave(): void;
  /** Stops, aborts, unmounts, closes; whoever waits in the mount gets an error. */
  end(): void;
}

interface Request {
  readonly opcode: number;
  readonly unique: bigint;
  readonly nodeid: bigint;
  readonly body: Buffer;
}

function attr(nodeid: bigint): Buffer {
  const bytes = Buffer.alloc(88);
  const isRoot = nodeid === BigInt(ROOT_NODEID);
  bytes.writeBigUInt64LE(nodeid, 0);
  bytes.writeBigUInt64LE(isRoot ? 0n : 5n, 8);
  bytes.writeUInt32LE(isRoot ? 0o040755 : 0o100644, 60);
  bytes.writeUInt32LE(1, 64);
  return bytes;
}

function init(): Buffer {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(7, 0);
  body.writeUInt32LE(31, 4);
  body.writeUInt32LE(131072, 20);
  body.writeUInt32LE(1, 24);
  return body;
}

/** Of "f"; of "f1", the next one. */
function entry(nodeid: bigint): Buffer {
  const head = Buffer.alloc(40);
  head.writeBigUInt64LE(nodeid, 0);
  return Buffer.concat([head, attr(nodeid)]);
}

function lookup(name: string): Buffer | number {
  const number = /^f(\d*)$/.exec(name)?.[1];
  return number === undefined ? errno.ENOENT : entry(BigInt(FILE_NODEID + Number(number)));
}

function attrOut(nodeid: bigint): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64LE(DAY_SEC, 0);
  return Buffer.concat([head, attr(nodeid)]);
}

/** The body of a reply, an errno, or undefined where no reply is due. */
function answer(request: Request): Buffer | number | undefined {
  switch (request.opcode) {
    case OPCODE.INIT:
      return init();
    case OPCODE.LOOKUP:
      return lookup(request.body.subarray(0, -1).toString());
    case OPCODE.GETATTR:
      return attrOut(request.nodeid);
    case OPCODE.OPEN:
      return Buffer.alloc(16);
    case OPCODE.READ:
      return Buffer.from("hello");
    case OPCODE.RELEASE:
    case OPCODE.FLUSH:
      return Buffer.alloc(0);
    case OPCODE.FORGET:
    case OPCODE.BATCH_FORGET:
      return undefined;
    default:
      return errno.ENOSYS;
  }
}

function reply(fd: number, request: Request): void {
  const body = answer(request);
  if (body === undefined) return;
  const head = Buffer.alloc(OUT_HEADER_BYTES);
  head.writeBigUInt64LE(request.unique, 8);
  if (typeof body === "number") {
    head.writeUInt32LE(OUT_HEADER_BYTES, 0);
    head.writeInt32LE(-body, 4);
    native.deviceWrite(fd, head, OUT_HEADER_BYTES);
    return;
  }
  head.writeUInt32LE(OUT_HEADER_BYTES + body.length, 0);
  native.deviceWrite2(fd, head, OUT_HEADER_BYTES, body, 0, body.length);
}

export function invalInode(nodeid: number): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 24);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(NOTIFY_INVAL_INODE, 4);
  message.writeBigUInt64LE(BigInt(nodeid), OUT_HEADER_BYTES);
  return message;
}

/** Frees whoever waits in the mount, whatever became of the server. */
export function abort(mountPoint: string): void {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [, , device, , place] = line.split(" ");
    const file = `/sys/fs/fuse/connections/${device?.split(":")[1]}/abort`;
    if (place === mountPoint && existsSync(file)) writeFileSync(file, "1");
  }
}

/** Promise.withResolvers of Node 22. */
function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

export interface TinyFuseOptions {
  readonly batch?: number;
  /** Called for every request before it is answered. */
  readonly onRequest?: (opcode: number, setBuffer: (buffer: Buffer) => void) => void;
}

export function serveTinyFuse(scratch: Scratch, options: TinyFuseOptions = {}): TinyFuse {
  const mountPoint = path.join(scratch.dir, "mnt");
  mkdirSync(mountPoint);
  const fd = native.fuseOpen();
  if (fd < 0) throw new Error(`/dev/fuse: errno ${-fd}`);
  const failed = native.mount("tiny", mountPoint, "fuse", 0, `fd=${fd},rootmode=40000,user_id=0,group_id=0`);
  if (failed !== 0) throw new Error(`mount: errno ${-failed}`);

  let buffer: Buffer = Buffer.alloc(REQUEST_BUFFER_BYTES);
  const seen: number[] = [];
  const kept: Request[] = [];
  let holding = -1;
  const ended = withResolvers<number>();
  const held = withResolvers<void>();
  const setBuffer = (next: Buffer): void => {
    buffer = next;
    native.deviceSetBuffer(device, next);
  };
  const onRequest = (bytes: number): void => {
    const opcode = buffer.readUInt32LE(4);
    const body = Buffer.from(buffer.subarray(IN_HEADER_BYTES, bytes));
    const request = { opcode, unique: buffer.readBigUInt64LE(8), nodeid: buffer.readBigUInt64LE(16), body };
    seen.push(opcode);
    options.onRequest?.(opcode, setBuffer);
    if (opcode !== holding) return reply(fd, request);
    kept.push(request);
    held.resolve();
  };
  const device: Device = native.deviceStart(fd, buffer, options.batch ?? 16, onRequest, ended.resolve);
  let open = true;
  const leave = (): void => {
    if (!open) return;
    open = false;
    native.deviceStop(device);
    native.sync.close(fd);
  };
  let mounted = true;
  const end = (): void => {
    if (!mounted) return;
    mounted = false;
    if (open) native.deviceStop(device);
    abort(mountPoint);
    native.umount(mountPoint, MNT_DETACH);
    leave();
  };
  scratch.later(end);
  return {
    fd,
    mountPoint,
    device,
    seen,
    ended: ended.promise,
    held: held.promise,
    heldUnique: () => kept[0]?.unique ?? 0n,
    leave,
    end,
    hold: (opcode) => {
      holding = opcode;
    },
    release: () => {
      holding = -1;
      for (const request of kept.splice(0)) reply(fd, request);
    },
  };
}
