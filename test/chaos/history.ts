/** What the programs of a cycle did, as they recorded it. Times are nanoseconds of one monotonic clock. Pure. */

/** A whole record at a fixed place of a file. */
export type RegisterAction = { readonly kind: "write"; readonly value: number } | { readonly kind: "read" } | { readonly kind: "sync" };

/** A file that grows by whole records. */
export type AppendAction = { readonly kind: "append"; readonly record: string } | { readonly kind: "readAll" } | { readonly kind: "sync" };

/** Names in one directory. The permission bits of what is made are its tag: what a name stands for is seen by one stat(2). */
export type NameAction =
  | { readonly kind: "create" | "mkdir"; readonly name: string; readonly tag: number }
  | { readonly kind: "rename" | "link"; readonly name: string; readonly to: string }
  | { readonly kind: "unlink" | "rmdir" | "look"; readonly name: string }
  /** All names and what each stands for; only where nothing changes meanwhile. */
  | { readonly kind: "list" }
  | { readonly kind: "sync" };

/** fcntl(2) on one byte. */
export type LockAction = { readonly kind: "lock"; readonly shared: boolean } | { readonly kind: "unlock" };

export type ObjectKind = "register" | "append" | "names" | "lock";
export type Action = RegisterAction | AppendAction | NameAction | LockAction;

export interface Call {
  readonly client: string;
  readonly nodeid: number;
  /** Its place among the calls of the client. */
  readonly index: number;
  /** The file or directory: its first letter says of which kind it is (objectKind). */
  readonly object: string;
  readonly action: Action;
  readonly begin: number;
  /** Infinity: it was never answered. */
  readonly end: number;
  /** Name of an errno; null: it succeeded. */
  readonly error: string | null;
  /** Of a read, a look or a list. */
  readonly value: unknown;
}

export interface Interval {
  readonly begin: number;
  readonly end: number;
}

const kindsByLetter: Readonly<Record<string, ObjectKind>> = { r: "register", a: "append", n: "names", l: "lock" };

export function objectKind(object: string): ObjectKind {
  const kind = kindsByLetter[object.charAt(0)];
  if (kind === undefined) throw new Error(`an object of the history should begin with one of r, a, n, l: ${object}`);
  return kind;
}

/** Errors of the failure itself: such a call may have had its effect, or have it later, or never. */
export const FAILURE_ERRORS: ReadonlySet<string> = new Set([
  "EIO",
  "EINTR",
  "ENOTCONN",
  "ECONNABORTED",
  "ENODEV",
  "ESHUTDOWN",
  "ESTALE",
  "ETIMEDOUT",
]);

/** True: the caller does not know whether the call had an effect. */
export function isUnknown({ end, error }: Call): boolean {
  return end === Number.POSITIVE_INFINITY || (error !== null && FAILURE_ERRORS.has(error));
}

/** In the order of the first of each. */
export function groupBy<T>(list: readonly T[], keyOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of list) {
    const group = groups.get(keyOf(one));
    if (group === undefined) groups.set(keyOf(one), [one]);
    else group.push(one);
  }
  return groups;
}
