/** Files that a person or another program has put there: none of them is read without end, or waited for. */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";

/** Of all that is read so: a record or a configuration has some KiB. */
export const SMALL_FILE_BYTES_MAX: number = 1024 * 1024;

/** As read(2) calls them. */
const KINDS = [
  ["isDirectory", "a directory"],
  ["isFIFO", "a pipe"],
  ["isSocket", "a socket"],
  ["isCharacterDevice", "a character device"],
  ["isBlockDevice", "a block device"],
] as const;

/** It is no regular file, or has more bytes than that. */
export class NoSmallFileError extends Error {
  readonly found: string;

  constructor(expected: string, found: string) {
    super(`${expected} expected, found ${found}`);
    this.found = found;
  }
}

/** Its text. Throws what open(2) and read(2) give, and NoSmallFileError where it is no regular file, or has more than SMALL_FILE_BYTES_MAX. */
export function readSmallFile(file: string): string {
  return readChecked(file, () => undefined);
}

/** The same; `check` throws where it is not to be read. */
export function readChecked(file: string, check: (stat: Stats) => void): string {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stat = fstatSync(fd);
    const kind = KINDS.find(([is]) => stat[is]())?.[1];
    if (kind !== undefined) throw new NoSmallFileError("a regular file", kind);
    check(stat);
    return readAtMost(fd);
  } finally {
    closeSync(fd);
  }
}

/** The same of what may be a pipe, as the shell's <(...): its writer is waited for. */
export function readSmallText(file: string): string {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NOCTTY);
  try {
    return readAtMost(fd);
  } finally {
    closeSync(fd);
  }
}

function readAtMost(fd: number): string {
  const pieces: Buffer[] = [];
  for (let length = 0; ; ) {
    const piece = Buffer.alloc(65_536);
    const bytes = readSync(fd, piece);
    if (bytes === 0) return Buffer.concat(pieces).toString("utf8");
    pieces.push(piece.subarray(0, bytes));
    length += bytes;
    if (length > SMALL_FILE_BYTES_MAX) throw new NoSmallFileError(`at most ${SMALL_FILE_BYTES_MAX} bytes`, "more");
  }
}
