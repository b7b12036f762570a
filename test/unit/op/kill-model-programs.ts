/** The programs of the kill model: what its callers do, picked by the seed. Each asks as the kernel would, with the locks that it would have. */
import { E } from "../../../dlmd/base/errno.ts";
import { ACCESS_ACL } from "../../../overlay/lower/linux.ts";
import type { AttrChange } from "../../../overlay/lower/lower.ts";
import { type Answer, type Caller, type KillModelKernel, Killed } from "./kill-model-kernel.ts";
import { flagsOf, SETGID_GROUP } from "./kill-model-lower.ts";
import { modelInode, type Step } from "./kill-model-state.ts";
import type { KillModelSteps } from "./kill-model-steps.ts";

const O_APPEND = 0o2000;
const O_EXCL = 0o200;
const O_CREAT_RDWR = 0o102;
const PUNCH_HOLE_KEEP_SIZE = 3;
const RENAME_EXCHANGE = 2;
/** All that a file has. */
export const MODEL_PAGE_BYTES = 64;

/** A file that is open all the time, once with a page cache and once without. */
export interface ModelFile {
  readonly fuseNodeid: number;
  readonly cachedFh: number;
  readonly directFh: number;
}

export interface World {
  readonly kernel: KillModelKernel;
  readonly steps: KillModelSteps;
  readonly files: readonly ModelFile[];
  readonly directories: readonly number[];
  /** Bytes that nobody else writes. */
  readonly nextByte: () => string;
}

type Program = (world: World, caller: Caller) => Promise<unknown>;

/** With the file locked. */
function onFile(request: (world: World, caller: Caller, file: ModelFile) => Parameters<KillModelKernel["ask"]>[1]): Program {
  return (world, caller) => {
    const file = fileOf(world);
    return world.kernel.withLocks([file.fuseNodeid], () => world.kernel.ask(caller, request(world, caller, file)));
  };
}

/** Nothing locked. */
function looking(request: (world: World, file: ModelFile) => Parameters<KillModelKernel["ask"]>[1]): Program {
  return (world, caller) => world.kernel.ask(caller, request(world, fileOf(world)));
}

/** Mostly the same one. */
function fileOf({ steps, files }: World): ModelFile {
  return files[steps.chance(0.85) ? 0 : 1] as ModelFile;
}

function bytesOf({ steps, nextByte }: World): Buffer {
  return Buffer.from(nextByte().repeat(1 + steps.below(4)), "latin1");
}

/** A page that is not up to date stays locked until what it was written is made (fs/fuse/file.c, fuse_fill_write_pages). */
const write: Program = (world, caller) => {
  const { kernel, steps } = world;
  const { fuseNodeid, cachedFh, directFh } = fileOf(world);
  const append = steps.chance(0.35);
  const cached = !append && steps.chance(0.6);
  const rest = { offset: steps.below(7), data: bytesOf(world), fromCache: false, killSuidgid: caller.uid !== 0 };
  const flags = 2 | (append ? O_APPEND : 0);
  const ask = (): Promise<Answer> => kernel.ask(caller, { op: "write", fuseNodeid, fh: cached ? cachedFh : directFh, flags, ...rest });
  return kernel.withLocks([fuseNodeid], () => (cached && steps.chance(0.7) ? kernel.withPage(fuseNodeid, ask) : ask()));
};

/** FATTR_KILL_SUIDGID comes with a size from a caller without CAP_FSETID. */
const truncate: Program = (world, caller) => {
  const { kernel, steps } = world;
  const { fuseNodeid, cachedFh } = fileOf(world);
  const size = steps.below(6);
  const change: AttrChange = caller.uid === 0 ? { size } : { size, killSuidgid: true };
  const fh = steps.chance(0.5) ? cachedFh : null;
  return kernel.withLocks([fuseNodeid], () =>
    kernel.truncating(fuseNodeid, () => kernel.ask(caller, { op: "setattr", fuseNodeid, fh, change })),
  );
};

const fallocate = onFile(({ steps }, _caller, { fuseNodeid, cachedFh, directFh }) => ({
  op: "fallocate",
  fuseNodeid,
  fh: steps.pick([cachedFh, directFh]),
  offset: steps.below(6),
  length: 1 + steps.below(4),
  mode: steps.pick([0, PUNCH_HOLE_KEEP_SIZE]),
}));

const copy = onFile(({ steps, files }, _caller, target) => {
  const source = files.find((file) => file !== target) as ModelFile;
  const [offset, outOffset, length] = [steps.below(4), steps.below(5), 1 + steps.below(4)];
  const to = { outFuseNodeid: target.fuseNodeid, outFh: target.cachedFh, outOffset };
  return { op: "copyFileRange", fuseNodeid: source.fuseNodeid, fh: source.cachedFh, offset, ...to, length, flags: 0 };
});

const modeFor = (steps: KillModelSteps, uid: number): number =>
  steps.pick(uid === 0 ? [0o755, 0o4755, 0o6755, 0o2755] : [0o755, 0o700, 0o4755]);
const chmod = onFile(({ steps }, { uid }, { fuseNodeid }) => ({
  op: "setattr",
  fuseNodeid,
  fh: null,
  change: { mode: modeFor(steps, uid) },
}));
const chown = onFile(({ steps }, { uid }, { fuseNodeid }) => {
  if (uid !== 0) return { op: "getattr", fuseNodeid, fh: null };
  return { op: "setattr", fuseNodeid, fh: null, change: { uid: steps.pick([1000, 1001]), gid: steps.pick([1000, 1001]) } };
});
const user = Buffer.from("user.a");
const setxattr = onFile((world, _caller, { fuseNodeid }) => {
  const acl = world.steps.chance(0.4);
  const name = acl ? ACCESS_ACL : user;
  return { op: "setxattr", fuseNodeid, name, value: bytesOf(world), flags: 0, aclKillSgid: acl };
});
const removexattr = onFile((_world, _caller, { fuseNodeid }) => ({ op: "removexattr", fuseNodeid, name: user }));
const chattr = onFile(({ steps }, _caller, { fuseNodeid, directFh }) => {
  return { op: "ioctl", fuseNodeid, fh: directFh, kind: "flags", value: flagsOf(steps.below(4) << 6) };
});

const read: Program = (world, caller) => {
  const { kernel, steps } = world;
  const { fuseNodeid, cachedFh, directFh } = fileOf(world);
  const cached = steps.chance(0.5);
  const fh = cached ? cachedFh : directFh;
  const ask = (): Promise<Answer> =>
    kernel.ask(caller, { op: "read", fuseNodeid, fh, offset: 0, size: MODEL_PAGE_BYTES, flags: 2, lockOwner: 0n });
  return cached ? kernel.withPage(fuseNodeid, ask) : ask();
};
const getattr = looking((_world, { fuseNodeid }) => ({ op: "getattr", fuseNodeid, fh: null }));
const getxattr = looking((_world, { fuseNodeid }) => ({ op: "getxattr", fuseNodeid, name: user, size: 100 }));

const FILE_NAMES = ["a", "b"];
const DIRECTORY_NAME = "e";
/** By its working directory: of one that was removed, too. */
const placeOf = ({ steps, directories }: World): [dir: number, name: string] => [
  directories[steps.chance(0.8) ? 0 : 1] as number,
  steps.pick(FILE_NAMES),
];

/** The kernel walks again once. */
async function walked(kernel: KillModelKernel, places: readonly [number, string][], work: () => Promise<Answer | null>): Promise<void> {
  if ((await work())?.errno !== E.ESTALE) return;
  for (const [dir, name] of places) kernel.note(dir, name, undefined);
  const again = await work();
  if (again?.errno === E.ESTALE) kernel.bugs.push(`ESTALE twice for ${places.map(([dir, name]) => `${dir}/${name}`).join(" ")}`);
}

function making(op: "create" | "mkdir"): Program {
  return (world, caller) => {
    const { kernel, steps } = world;
    const [dir, name] = op === "create" ? placeOf(world) : [steps.pick(world.directories.slice(0, 1)), DIRECTORY_NAME];
    const mode = op === "create" && steps.chance(0.6) ? 0o2770 : 0o755;
    const flags = O_CREAT_RDWR | (steps.chance(0.5) ? O_EXCL : 0);
    return walked(kernel, [[dir, name]], () =>
      kernel.withLocks([dir], async () => {
        if ((await kernel.lookup(caller, dir, name)) !== null) return null;
        const made = { op, fuseNodeid: dir, name: Buffer.from(name), mode, umask: 0, flags, supplementaryGids: [SETGID_GROUP] };
        const { epoch } = kernel;
        const answer = await kernel.ask(caller, made);
        if (answer.errno === 0 && epoch === kernel.epoch) kernel.note(dir, name, Number(answer.body.readBigUInt64LE(0)));
        return answer;
      }),
    );
  };
}

function removing(op: "unlink" | "rmdir"): Program {
  return (world, caller) => {
    const { kernel, steps } = world;
    const [dir, name] = op === "unlink" ? placeOf(world) : [steps.pick(world.directories.slice(0, 1)), DIRECTORY_NAME];
    return walked(kernel, [[dir, name]], () =>
      kernel.withLocks([dir], async () => {
        const victim = await kernel.lookup(caller, dir, name);
        if (victim === null) return null;
        return kernel.withLocks([victim], async () => {
          const answer = await kernel.ask(caller, { op, fuseNodeid: dir, name: Buffer.from(name), victimNodeid: victim });
          if (answer.errno === 0) kernel.note(dir, name, undefined);
          return answer;
        });
      }),
    );
  };
}

const rename: Program = (world, caller) => {
  const { kernel, steps } = world;
  const [oldDir, oldName] = placeOf(world);
  const [newDir, newName] = placeOf(world);
  if (oldDir === newDir && oldName === newName) return Promise.resolve();
  const wanted = steps.chance(0.3) ? RENAME_EXCHANGE : 0;
  const places: [number, string][] = [
    [oldDir, oldName],
    [newDir, newName],
  ];
  return walked(kernel, places, () =>
    kernel.withLocks([oldDir, newDir], async () => {
      const moved = await kernel.lookup(caller, oldDir, oldName);
      const replaced = await kernel.lookup(caller, newDir, newName);
      if (moved === null || moved === replaced || (wanted !== 0 && replaced === null)) return null;
      return kernel.withLocks([moved, ...(replaced === null ? [] : [replaced])], async () => {
        const to = { newFuseNodeid: newDir, newName: Buffer.from(newName), flags: wanted };
        const touched = { victimNodeid: moved, replacedNodeid: replaced ?? 0 };
        const { epoch } = kernel;
        const answer = await kernel.ask(caller, { op: "rename", fuseNodeid: oldDir, name: Buffer.from(oldName), ...to, ...touched });
        if (answer.errno === 0 && epoch === kernel.epoch) {
          kernel.note(oldDir, oldName, wanted === 0 ? undefined : (replaced ?? undefined));
          kernel.note(newDir, newName, moved);
        }
        return answer;
      });
    }),
  );
};

const link: Program = (world, caller) => {
  const { kernel } = world;
  const [dir, name] = placeOf(world);
  const { fuseNodeid: targetFuseNodeid } = fileOf(world);
  // fs.protected_hardlinks is a matter of the machine.
  if (caller.uid !== 0) return Promise.resolve();
  return kernel.withLocks([dir], async () => {
    if ((await kernel.lookup(caller, dir, name)) !== null) return;
    await kernel.withLocks([targetFuseNodeid], async () => {
      const { epoch } = kernel;
      const answer = await kernel.ask(caller, { op: "link", fuseNodeid: dir, name: Buffer.from(name), targetFuseNodeid });
      if (answer.errno === 0 && epoch === kernel.epoch) kernel.note(dir, name, targetFuseNodeid);
    });
  });
};

const lookup: Program = (world, caller) => {
  const [dir, name] = placeOf(world);
  world.kernel.note(dir, name, undefined);
  return world.kernel.withLocks([dir], () => world.kernel.lookup(caller, dir, name));
};

const chmodByName: Program = async (world, caller) => {
  const { kernel, steps } = world;
  const [dir, name] = placeOf(world);
  const fuseNodeid = await kernel.withLocks([dir], () => kernel.lookup(caller, dir, name));
  if (fuseNodeid === null) return;
  const change = { mode: modeFor(steps, caller.uid) };
  await kernel.withLocks([fuseNodeid], () => kernel.ask(caller, { op: "setattr", fuseNodeid, fh: null, change }));
};

const OF_FILES: readonly Program[] = [
  write,
  write,
  write,
  truncate,
  truncate,
  fallocate,
  copy,
  chmod,
  chmod,
  chown,
  setxattr,
  removexattr,
  chattr,
  read,
  read,
  getattr,
  getxattr,
];
const OF_NAMES: readonly Program[] = [
  making("create"),
  making("create"),
  making("mkdir"),
  removing("unlink"),
  removing("unlink"),
  removing("rmdir"),
  rename,
  rename,
  link,
  lookup,
  chmodByName,
  chmodByName,
];

export const KINDS: readonly (readonly Program[])[] = [OF_FILES, OF_NAMES, [...OF_FILES, ...OF_NAMES]];

export async function runPrograms(world: World, caller: Caller, kind: readonly Program[], programs: number): Promise<void> {
  try {
    for (let run = 0; run < programs && !caller.killed; run += 1) await world.steps.pick(kind)(world, caller);
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
  }
}

/** What a program of another node changes. `ino`: of a file that it makes. */
export function changeElsewhere(world: World, ino: number): Step {
  const { kernel, steps } = world;
  const [dir, name] = placeOf(world);
  const at = { dir: kernel.inoOf(dir), name };
  const file = kernel.inoOf(fileOf(world).fuseNodeid);
  const size = steps.below(6);
  return steps.pick<Step>([
    { do: "make", at, ino, inode: modelInode(false, 0o755, 1001, SETGID_GROUP) },
    { do: "make", at, ino, inode: modelInode(false, 0o755, 1001, SETGID_GROUP) },
    { do: "remove", at, directory: false },
    { do: "truncate", ino: file, size },
    { do: "chmod", ino: file, mode: 0o4755 },
    { do: "chown", ino: file, uid: 1000, gid: 1000 },
  ]);
}

/** Of a page that somebody has stored to. */
export async function writeBack(world: World, flusher: Caller): Promise<void> {
  const { kernel, steps, nextByte } = world;
  const { fuseNodeid, cachedFh } = fileOf(world);
  const data = Buffer.from(nextByte().repeat(4), "latin1");
  const page = {
    op: "write",
    fuseNodeid,
    fh: cachedFh,
    offset: steps.below(4),
    data,
    flags: 2,
    fromCache: true,
    killSuidgid: false,
  } as const;
  await kernel.writeBack(flusher, fuseNodeid, page);
}
