/**
 * Errors of system calls as values. Numbers are those of Linux on x86-64 and arm64
 * (include/uapi/asm-generic/errno-base.h, errno.h), written out so that pure rooms need no node:os.
 *
 * An Errno carries no stack: on a busy mount ENOENT is an answer, not a failure, and capturing a
 * stack for each would dominate the cost of a negative lookup.
 */
export const E = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  EBADE: 52,
  ENODATA: 61,
  ENOLINK: 67,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  ESTALE: 116,
  EUCLEAN: 117,
  EREMOTEIO: 121,
  EDQUOT: 122,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  ECANCELED: 125,
} as const;

export type ErrnoName = keyof typeof E;

const nameByNumber = new Map<number, ErrnoName>((Object.entries(E) as [ErrnoName, number][]).map(([name, number]) => [number, name]));

/** "ENOENT" for 2; "errno 999" for a number without a name here. */
export function errnoName(errno: number): string {
  return nameByNumber.get(errno) ?? `errno ${errno}`;
}

/** The error of a system call: positive errno, name in `code`. Shared instances, no stack. */
export class Errno extends Error {
  override readonly name = "Errno";
  readonly errno: number;
  readonly code: string;

  constructor(errno: number) {
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = 0;
    super(errnoName(errno));
    Error.stackTraceLimit = limit;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

const instances = new Map<number, Errno>();

/** The one shared Errno of that number, to be thrown or returned. `errno` is positive. */
export function errnoError(errno: number): Errno {
  let error = instances.get(errno);
  if (error === undefined) {
    error = new Errno(errno);
    instances.set(errno, error);
  }
  return error;
}

export function isErrno(error: unknown, errno: number): boolean {
  return error instanceof Errno && error.errno === errno;
}
