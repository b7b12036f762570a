/** What this machine must have: files of the cluster, addresses, /dev/fuse, kernel, memory, Node.js. Pure: facts in, findings out. */
import { type Finding, judge } from "./finding.ts";
import { shellWord } from "./shell-word.ts";

/** Of package.json, "engines". */
const LEAST_NODE: readonly number[] = [20, 19, 0];
const LEAST_KERNEL: readonly number[] = [5, 4];
/** From here on names are cached. */
const NAMES_KERNEL: readonly number[] = [6, 16];
/** One dlmd and one mount with its caches. */
const LEAST_MEMORY_BYTES: number = 512 * 2 ** 20;
/** dlmd opens a connection for each node and program, a mount a descriptor for each open file. */
const LEAST_DESCRIPTORS = 4096;

export interface MachineFacts {
  readonly kernelRelease: string;
  readonly nodeVersion: string;
  /** "character device 10:229", or what else is there. */
  readonly fuse: string;
  readonly memoryBytes: number;
  /** The least memory.max of the control groups of this process; null: none. */
  readonly memoryLimitBytes: number | null;
  /** RLIMIT_NOFILE, the hard one: Node.js raises the soft one to it. null: no limit. */
  readonly descriptors: number | null;
}

export function numbersOf(version: string): number[] {
  const [, major, minor, patch] = /^v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(version) ?? [];
  return [major, minor, patch].flatMap((part) => (part === undefined ? [] : [Number(part)]));
}

function isAtLeast(found: readonly number[], least: readonly number[]): boolean {
  for (const [at, part] of least.entries()) {
    const other = found[at] ?? 0;
    if (other !== part) return other > part;
  }
  return true;
}

const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

export function judgeMachine(facts: MachineFacts): Finding[] {
  return [judgeFuse(facts), judgeKernel(facts), ...judgeMemory(facts), judgeNode(facts)];
}

function judgeFuse({ fuse }: MachineFacts): Finding {
  const check = judge("fuse", "/dev/fuse", "character device 10:229");
  return fuse === "character device 10:229" ? check.ok(fuse) : check.fail(fuse, "modprobe fuse; a container must be given /dev/fuse.");
}

function judgeKernel({ kernelRelease }: MachineFacts): Finding {
  const check = judge("kernel", "this machine", `Linux ${LEAST_KERNEL.join(".")} or later`);
  const numbers = numbersOf(kernelRelease);
  if (!isAtLeast(numbers, LEAST_KERNEL)) return check.fail(kernelRelease, "Mounts are refused with it: install a later kernel.");
  return check.ok(
    isAtLeast(numbers, NAMES_KERNEL) ? kernelRelease : `${kernelRelease}; names are cached from ${NAMES_KERNEL.join(".")} on`,
  );
}

function judgeMemory({ memoryBytes, memoryLimitBytes, descriptors }: MachineFacts): Finding[] {
  const memory = judge("memory", "this machine", `${mib(LEAST_MEMORY_BYTES)} or more, for a dlmd and a mount`);
  const files = judge("memory", "open files (RLIMIT_NOFILE)", `${LEAST_DESCRIPTORS} or more`);
  const has = Math.min(memoryBytes, memoryLimitBytes ?? memoryBytes);
  const words = `${mib(memoryBytes)}${memoryLimitBytes === null ? "" : `, limited to ${mib(memoryLimitBytes)} by a control group`}`;
  return [
    has >= LEAST_MEMORY_BYTES
      ? memory.ok(words)
      : memory.warn(words, "Give it more: dlmd that is killed for want of memory ends the mounts."),
    descriptors === null || descriptors >= LEAST_DESCRIPTORS
      ? files.ok(descriptors === null ? "no limit" : String(descriptors))
      : files.warn(String(descriptors), "Raise it: LimitNOFILE= of the unit, or ulimit -Hn."),
  ];
}

function judgeNode({ nodeVersion }: MachineFacts): Finding {
  const check = judge("node-version", "Node.js", `${LEAST_NODE.join(".")} or later`);
  return isAtLeast(numbersOf(nodeVersion), LEAST_NODE) ? check.ok(nodeVersion) : check.fail(nodeVersion, "Install a later Node.js.");
}

/** A file as it is; null: it is not there. */
export interface FileFact {
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly isFile: boolean;
}

/** `problem`: why its contents are no keys; null: they are. `ids`: of the keys. */
export function judgeKeyFile(
  path: string,
  file: FileFact | null,
  keys: { readonly ids: readonly string[]; readonly problem: { readonly message: string; readonly hint: string } | null },
  folders: readonly FileFact[],
): Finding {
  const check = judge("key", path, "a key file of root, with mode 0600");
  if (file === null) return check.fail("no such file", "Copy it from a node that has it (scp -p), or make the first one: coverlay keygen.");
  const mode = `mode 0${file.mode.toString(8)}, user id ${file.uid}`;
  if ((file.mode & 0o077) !== 0)
    return check.fail(mode, `Others on this machine may have read it: chmod 600 ${shellWord(path)}, or make a new key.`);
  if (file.uid !== 0) return check.fail(mode, `That user can read and change it: chown root ${shellWord(path)}`);
  const open = openFolder(folders);
  if (open !== null) return check.fail(open.found, open.action);
  if (keys.problem !== null) return check.fail(keys.problem.message, keys.problem.hint);
  return check.ok(`${mode}; ${keys.ids.length === 1 ? "key" : "keys"} ${keys.ids.join(", ")}`);
}

/** A folder in which another user than root can put another file in the place of this one. In one with the sticky bit it cannot. */
function openFolder(folders: readonly FileFact[]): { readonly found: string; readonly action: string } | null {
  const open = folders.find(({ mode, uid }) => uid !== 0 || ((mode & 0o022) !== 0 && (mode & 0o1000) === 0));
  if (open === undefined) return null;
  const { path, mode, uid } = open;
  return {
    found: `its folder ${path} has mode 0${mode.toString(8)}, user id ${uid}: others can put another file there`,
    action: uid === 0 ? `chmod go-w ${shellWord(path)}` : `chown root ${shellWord(path)}`,
  };
}

/** `problem`: what is wrong in the file. */
export function judgeConfigFile(
  path: string,
  problem: { readonly message: string; readonly hint: string } | null,
  file: FileFact | null,
  summary: string,
  folders: readonly FileFact[] = [],
): Finding {
  const check = judge("config", path, "a cluster.yaml without a mistake, which only root can change");
  if (problem !== null) return check.fail(problem.message, problem.hint);
  if (file !== null && (file.mode & 0o022) !== 0) {
    return check.fail(
      `mode 0${file.mode.toString(8)}: others can change it, and it names programs that root runs`,
      `chmod 644 ${shellWord(path)}`,
    );
  }
  if (file !== null && file.uid !== 0) {
    return check.fail(`user id ${file.uid} can change it, and it names programs that root runs`, `chown root ${shellWord(path)}`);
  }
  const open = openFolder(folders);
  if (open !== null) return check.fail(open.found, open.action);
  return check.ok(summary);
}

/** Which node this machine is: `found` have an address of it. */
export function judgeSelf(named: string | null, found: readonly string[], addresses: readonly string[]): Finding {
  const check = judge("address", "this machine", "it has the address of exactly one node of cluster.yaml");
  if (found.length === 1) return check.ok(`it is ${found[0]}`);
  if (named !== null && found.includes(named)) return check.ok(`it is ${named}, as --node says`);
  const has = `it has ${addresses.join(", ") || "no address"}`;
  if (found.length === 0) return check.fail(`${has}: none of a node`, "Correct the addresses in cluster.yaml, or those of this machine.");
  return check.fail(`${has}: those of ${found.join(", ")}`, "Say which one it is, with --node NAME, here and for dlmd.");
}

/** `resolved` null: the name means nothing here. Debian's /etc/hosts gives a machine's own name 127.0.1.1. */
export function judgeName(name: string, address: string, resolved: readonly string[] | null): Finding {
  const check = judge("name", name, `${address}, or nothing: coverlay goes by addresses alone`);
  if (resolved === null || resolved.length === 0) return check.ok("the name means nothing on this machine");
  const loopback = resolved.find((each) => each.startsWith("127.") && each !== address);
  if (loopback !== undefined) {
    return check.warn(
      `${resolved.join(", ")}: ${loopback} is each machine's own`,
      `Give the name ${address} in /etc/hosts, and no other line: programs that go by names, as corosync may, would use ${loopback}.`,
    );
  }
  if (resolved.includes(address)) return check.ok(address);
  return check.warn(
    `${resolved.join(", ")}, and cluster.yaml has ${address}`,
    `One of the two is wrong: correct /etc/hosts or DNS, or cluster.yaml. scp and ssh to ${name} go elsewhere now.`,
  );
}
