/** All operations in one table, and one step: state and call in, state and outcome out. README.md is the way in. */
import * as attributes from "./attributes.ts";
import * as data from "./data.ts";
import * as names from "./names.ts";
import * as opens from "./open.ts";
import { pathRules } from "./path.ts";
import { type Errno, type Operation, Refusal, type Rule, Unspecified } from "./rule.ts";
import type { State } from "./state.ts";
import { type Caller, type Machine, World } from "./world.ts";
import * as xattr from "./xattr.ts";

/** Of each call: its operation. */
interface Operations {
  readonly open: typeof opens.open;
  readonly close: typeof opens.close;
  readonly read: typeof data.read;
  readonly write: typeof data.write;
  readonly lseek: typeof data.lseek;
  readonly seek_data: typeof data.seekData;
  readonly truncate: typeof data.truncate;
  readonly ftruncate: typeof data.ftruncate;
  readonly fallocate: typeof data.fallocate;
  readonly copy_file_range: typeof data.copyFileRange;
  readonly fsync: typeof data.fsync;
  readonly stat: typeof attributes.stat;
  readonly chmod: typeof attributes.chmod;
  readonly chown: typeof attributes.chown;
  readonly utimens: typeof attributes.utimens;
  readonly access: typeof attributes.access;
  readonly readlink: typeof attributes.readlink;
  readonly readdir: typeof attributes.readdir;
  readonly rewinddir: typeof attributes.rewinddir;
  readonly getdents: typeof attributes.getdents;
  readonly mkdir: typeof names.mkdir;
  readonly mknod: typeof names.mknod;
  readonly symlink: typeof names.symlink;
  readonly link: typeof names.link;
  readonly unlink: typeof names.unlink;
  readonly rmdir: typeof names.rmdir;
  readonly rename: typeof names.rename;
  readonly setxattr: typeof xattr.setxattr;
  readonly getxattr: typeof xattr.getxattr;
  readonly listxattr: typeof xattr.listxattr;
  readonly removexattr: typeof xattr.removexattr;
}

export const OPERATIONS: Operations = {
  open: opens.open,
  close: opens.close,
  read: data.read,
  write: data.write,
  lseek: data.lseek,
  seek_data: data.seekData,
  truncate: data.truncate,
  ftruncate: data.ftruncate,
  fallocate: data.fallocate,
  copy_file_range: data.copyFileRange,
  fsync: data.fsync,
  stat: attributes.stat,
  chmod: attributes.chmod,
  chown: attributes.chown,
  utimens: attributes.utimens,
  access: attributes.access,
  readlink: attributes.readlink,
  readdir: attributes.readdir,
  rewinddir: attributes.rewinddir,
  getdents: attributes.getdents,
  mkdir: names.mkdir,
  mknod: names.mknod,
  symlink: names.symlink,
  link: names.link,
  unlink: names.unlink,
  rmdir: names.rmdir,
  rename: names.rename,
  setxattr: xattr.setxattr,
  getxattr: xattr.getxattr,
  listxattr: xattr.listxattr,
  removexattr: xattr.removexattr,
};

export type OperationName = keyof Operations;
type ArgsOf<O> = O extends Operation<infer A> ? A : never;
/** A call as data: the name of its operation, and its arguments. */
export type Call = { readonly [N in OperationName]: { readonly op: N; readonly args: ArgsOf<Operations[N]> } }[OperationName];

export type Outcome = { readonly value: unknown } | { readonly errno: Errno };

export interface Step {
  readonly state: State;
  readonly outcome: Outcome;
  /** What decided it. */
  readonly reached: readonly Rule[];
}

/** Every rule that there is. */
export const allRules: readonly Rule[] = [
  ...pathRules,
  ...names.nameRules,
  ...data.writeRules,
  ...Object.values(OPERATIONS).flatMap(({ rules }) => [...rules]),
];

/** Null: the model says nothing of such a call in such a state. A call that is refused may have followed links, but changes nothing else. */
export function step(before: State, call: Call, caller: Caller, machine: Machine): Step | null {
  const world = new World(before, caller, machine);
  const { run } = OPERATIONS[call.op] as Operation<unknown>;
  try {
    const value = run(world, call.args);
    return { state: world.after(), outcome: { value }, reached: world.reached };
  } catch (error) {
    if (error instanceof Unspecified) return null;
    if (!(error instanceof Refusal)) throw error;
    return { state: world.after(), outcome: { errno: error.errno }, reached: [...world.reached, error.rule] };
  }
}
