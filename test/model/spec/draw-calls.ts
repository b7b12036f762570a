/** What calls are drawn from: names, modes, positions, and how often each operation comes. fast-check draws them. */
import * as fc from "fast-check";
import type { Target } from "../attributes.ts";
import type { Call, OperationName } from "../file-system.ts";
import type { Rename } from "../names.ts";
import type { Open, OpenFlag } from "../open.ts";

/** Of a program; `mount:slot` of the model. */
export const SLOTS = 4;
const EMPTY_NAME_WEIGHT = 1;
const name = fc.constantFrom("a", "b", "c", "d");
const odd = fc.constantFrom(".", "..", "n".repeat(255), "n".repeat(256));
const part = fc.oneof({ weight: 40, arbitrary: name }, { weight: 1, arbitrary: odd });
const parts = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(part) },
  { weight: 5, arbitrary: fc.tuple(part, part) },
  { weight: 1, arbitrary: fc.tuple(part, part, part) },
);
const ordinary = fc
  .tuple(parts, fc.nat(29), fc.nat(29))
  .map(([words, slash, root]) => `${root === 0 ? "/" : ""}${words.join("/")}${slash === 0 ? "/" : ""}`);
/** Of a few names, mostly of one part or two. */
export const anyPath: fc.Arbitrary<string> = fc.oneof(
  { weight: 80, arbitrary: ordinary },
  { weight: EMPTY_NAME_WEIGHT, arbitrary: fc.constantFrom("", "/", "/..", `${"a/".repeat(2100)}a`) },
);
const mode = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0o755, 0o777, 0o644, 0o666, 0o600, 0o700) },
  { weight: 4, arbitrary: fc.constantFrom(0o1777, 0o2777, 0o2755, 0o4755, 0o6777, 0o2666, 0o6755, 0o4711, 0o1775) },
  { weight: 2, arbitrary: fc.nat(0o7777) },
);
const position = fc.constantFrom(0, 0, 1, 7, 4095, 4096, 4097, 8192, 10_000, 12_288);
const length = fc.constantFrom(0, 1, 5, 100, 4096, 5000, 9000);
/** Around the longest file of ext4 and of XFS, and beyond what a double tells apart; below 0. Some of a number's last digits are lost. */
const extreme = fc.constantFrom(2 ** 44 - 4096, 2 ** 44, 2 ** 53 - 1, 2 ** 53, 2 ** 62, 2 ** 63 - 1024, -1, -4096, -(2 ** 62));
const size = fc.oneof({ weight: 8, arbitrary: position }, { weight: 1, arbitrary: extreme });
const signed = fc.oneof({ weight: 16, arbitrary: position }, { weight: 1, arbitrary: extreme });
const offset = fc.oneof({ weight: 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: signed });
const access = fc.constantFrom<Open["access"]>("RDONLY", "WRONLY", "RDWR", "RDWR");
const flag = fc.constantFrom<OpenFlag>("CREAT", "CREAT", "CREAT", "EXCL", "TRUNC", "APPEND", "DIRECTORY", "NOFOLLOW", "NOATIME");
// O_EXCL without O_CREAT is not specified: open(2).
const flags = fc
  .uniqueArray(flag, { maxLength: 3 })
  .map((drawn) => (drawn.includes("EXCL") && !drawn.includes("CREAT") ? [...drawn, "CREAT" as const] : drawn));
const attribute = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom("user.a", "user.b") },
  { weight: 1, arbitrary: fc.constantFrom("trusted.t", "user.", "nothing.x", "", `user.${"n".repeat(251)}`) },
);
const id = fc.constantFrom(-1, 0, 1001, 1002);
const group = fc.constantFrom(-1, 0, 1001, 1002, 2000);
const ns = fc.constantFrom("1000000000123456789", "0", "1500000000000000000", "2000000000999999999");

type Draw<N extends OperationName> = fc.Arbitrary<Extract<Call, { op: N }>["args"]>;
type Table = { readonly [N in OperationName]: readonly [weight: number, draw: Draw<N>] };

/** Where calls are made. */
export interface Where {
  readonly path: fc.Arbitrary<string>;
  readonly slot: fc.Arbitrary<number>;
  readonly twoNames: fc.Arbitrary<{ readonly from: string; readonly to: string }>;
}

const tableOf = ({ path, slot, twoNames }: Where, target: fc.Arbitrary<Target>, followed: fc.Arbitrary<Target>): Table => ({
  open: [12, fc.record({ path, access, flags, mode, slot })],
  close: [2, fc.record({ slot })],
  read: [4, fc.record({ slot, offset, length })],
  write: [7, fc.record({ slot, offset, letter: fc.constantFrom("x", "y", "z"), length })],
  lseek: [2, fc.record({ slot, offset: fc.constantFrom(0, 5, 4096, -3), whence: fc.constantFrom("SET", "CUR", "END") })],
  seek_data: [1, fc.record({ slot, offset: signed, what: fc.constantFrom("DATA", "HOLE") })],
  truncate: [3, fc.record({ path, length: size })],
  ftruncate: [2, fc.record({ slot, length: size })],
  fallocate: [
    3,
    fc.record({
      slot,
      mode: fc.constantFrom([], ["KEEP_SIZE"], ["KEEP_SIZE", "PUNCH_HOLE"], ["ZERO_RANGE"], ["KEEP_SIZE", "ZERO_RANGE"], ["PUNCH_HOLE"]),
      offset: signed,
      length,
    }),
  ],
  copy_file_range: [3, fc.record({ from: slot, fromOffset: position, to: slot, toOffset: position, length })],
  fsync: [1, fc.record({ slot, dataOnly: fc.boolean() })],
  stat: [8, fc.record({ target })],
  chmod: [6, fc.record({ target: followed, mode })],
  chown: [5, fc.record({ target, uid: id, gid: group })],
  utimens: [3, fc.record({ target, times: fc.option(fc.record({ atimeNs: ns, mtimeNs: ns })) })],
  access: [2, fc.record({ path, mask: fc.nat(7) })],
  readlink: [2, fc.record({ path })],
  readdir: [3, fc.record({ path })],
  rewinddir: [2, fc.record({ path, how: fc.constantFrom("rewind", "seek") })],
  getdents: [2, fc.record({ slot })],
  mkdir: [8, fc.record({ path, mode })],
  mknod: [2, fc.record({ path, type: fc.constantFrom("file", "fifo", "socket", "char"), mode })],
  symlink: [4, fc.record({ target: path, path })],
  link: [6, twoNames],
  unlink: [4, fc.record({ path })],
  rmdir: [3, fc.record({ path })],
  rename: [
    8,
    fc
      .tuple(twoNames, fc.constantFrom<Rename["flags"]>([], [], [], ["NOREPLACE"], ["EXCHANGE"], ["EXCHANGE"], ["NOREPLACE", "EXCHANGE"]))
      .map(([two, flags]) => ({ ...two, flags })),
  ],
  setxattr: [
    4,
    fc.record({
      target,
      name: attribute,
      value: fc.constantFrom("", "v", "value".repeat(20)),
      flag: fc.constantFrom(null, null, "CREATE", "REPLACE"),
    }),
  ],
  getxattr: [2, fc.record({ target, name: attribute })],
  listxattr: [1, fc.record({ target })],
  removexattr: [2, fc.record({ target, name: attribute })],
});

/** Calls there; `weights`: of those operations alone, and how often each. */
export function callsIn(where: Where, weights?: Partial<Readonly<Record<OperationName, number>>>): fc.Arbitrary<Call> {
  const { path, slot } = where;
  const byPath = fc.record({ path, follow: fc.constant(true) });
  const itself = fc.record({ path, follow: fc.constant(false) });
  const bySlot = fc.record({ slot });
  const target = fc.oneof({ weight: 3, arbitrary: byPath }, { weight: 2, arbitrary: itself }, { weight: 1, arbitrary: bySlot });
  // chmod(2) follows.
  const followed = fc.oneof({ weight: 3, arbitrary: byPath }, { weight: 1, arbitrary: bySlot });
  const table = Object.entries(tableOf(where, target, followed));
  return fc.oneof(
    ...table.flatMap(([op, [usual, args]]) => {
      const weight = weights === undefined ? usual : (weights[op as OperationName] ?? 0);
      return weight === 0 ? [] : [{ weight, arbitrary: (args as fc.Arbitrary<unknown>).map((drawn) => ({ op, args: drawn }) as Call) }];
    }),
  );
}
