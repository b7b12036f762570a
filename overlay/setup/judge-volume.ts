/** What a look at a device means: its file system, the clustered bit, MMP, the owner's block, mounts of this machine. Pure. */
import { type Finding, type Judge, judge } from "./finding.ts";
import { shellWord } from "./shell-word.ts";

/** In words, and what to do about it. */
export interface Problem {
  readonly message: string;
  readonly hint: string;
  /** It says nothing of the device: it could not be looked at without a mount. */
  readonly isUnknown?: boolean;
}

export interface DiskIdentity {
  /** The kernel's name: /dev/sdb1. */
  readonly path: string;
  readonly bytes: number;
  readonly isReadOnly: boolean;
  /** Of the disk, as far as sysfs and udev know them. */
  readonly serial: string | null;
  readonly wwn: string | null;
  /** Of a loop device. */
  readonly backingFile: string | null;
}

export interface FileSystemFact {
  readonly type: "ext4" | "xfs";
  readonly uuid: string;
  /** null: that of XFS stands in its log, which is not read here. */
  readonly needsRecovery: boolean | null;
  readonly hasErrors: boolean | null;
  readonly hasJournal: boolean;
  readonly hasFastCommit: boolean;
  readonly hasMmp: boolean;
}

export interface BitFact {
  readonly cluster: string;
  readonly volume: string;
  readonly uuid: string;
}

export interface OwnerFact {
  readonly isOwned: boolean;
  readonly sequence: number;
  readonly nodeid: number;
  readonly incarnation: string;
  readonly hostName: string;
  readonly device: string;
}

export interface MmpFact {
  readonly state: "clean" | "in-use" | "fsck";
  readonly hostName: string;
  readonly device: string;
  /** Its holder wrote it while this look went on; false: not within two intervals; null: there was no time for two, or nobody asks. */
  readonly isMoving: boolean | null;
}

/** A look at one device; what could not be read is a problem in its place, and what was not looked for is absent. */
export interface DiskFacts {
  readonly device: string;
  readonly identity: DiskIdentity | Problem;
  /** UUID, LABEL, PARTUUID, PARTLABEL, as far as they are known; "": it has none. */
  readonly tags: Readonly<Record<string, string>>;
  /** Those paths of fstab and of mount units that lead to it. */
  readonly paths?: readonly string[] | Problem;
  readonly fileSystem?: FileSystemFact | Problem;
  /** null: there is no bit. */
  readonly bit?: BitFact | Problem | null;
  readonly owner?: OwnerFact | Problem;
  /** null: MMP is off. */
  readonly mmp?: MmpFact | Problem | null;
  /** Something on this machine has it in exclusive use. */
  readonly isInUse: boolean | Problem;
  /** Mount points of other types than clustered, in any mount namespace. */
  readonly plainMounts: readonly string[] | Problem;
}

export interface VolumeEntry {
  readonly name: string;
  readonly uuid: string;
  readonly lower: string;
  readonly path?: string | undefined;
}

/** What the configuration and the lock managers say, to compare with. */
export interface VolumeContext {
  readonly cluster: string;
  /** Of cluster.yaml. */
  readonly volumes: readonly VolumeEntry[];
  /** Of each node that could be looked at, by nodeid. */
  readonly incarnations: ReadonlyMap<number, string>;
  readonly selfNodeid: number | null;
  readonly nameOf: (nodeid: number) => string;
  readonly isBefore: boolean;
}

const isProblem = (fact: object): fact is Problem => "message" in fact;
const EVERYWHERE = "mounted nowhere";

export function judgeDisk(facts: DiskFacts, context: VolumeContext): Finding[] {
  const { device, fileSystem, bit, owner } = facts;
  const findings = [judgeDevice(facts)];
  if (isProblem(facts.identity)) return findings;
  if (fileSystem !== undefined) findings.push(judgeFileSystem(facts, fileSystem));
  if (bit !== undefined) findings.push(judgeBit(device, bit, context));
  if (bit !== undefined && fileSystem !== undefined && !isProblem(fileSystem)) findings.push(...judgeMmp(facts, fileSystem));
  if (owner !== undefined) findings.push(judgeOwner(device, owner, context), judgeSameDisk(facts, owner, context));
  findings.push(judgeMounts(facts, context));
  return findings;
}

/** Without a configuration to compare it with. */
export function judgeBareDisk(facts: DiskFacts): Finding[] {
  if (isProblem(facts.identity)) return [judgeDevice(facts)];
  const fileSystem = facts.fileSystem === undefined ? [] : [judgeFileSystem(facts, facts.fileSystem)];
  return [judgeDevice(facts), ...fileSystem, judgeMounts(facts, { selfNodeid: null, nameOf: (nodeid) => `node ${nodeid}` })];
}

/** Volumes of cluster.yaml of which no device was looked at: nothing is known of them. */
export function judgeVolumes(volumes: readonly VolumeEntry[], looks: readonly Pick<DiskFacts, "device" | "bit">[]): Finding[] {
  const uuids = new Set(looks.flatMap(({ bit }) => (bit == null || isProblem(bit) ? [] : [bit.uuid])));
  const devices = new Set(looks.map(({ device }) => device));
  return volumes.flatMap(({ name, uuid, lower, path }) => {
    if (lower !== "device" || uuids.has(uuid) || (path !== undefined && devices.has(path))) return [];
    return [
      judge("device", `volume ${name} of cluster.yaml`, "its device on this node is looked at").unknown(
        "cluster.yaml has no path of it, and it is not mounted here: no device was looked at",
        "Name it: coverlay doctor --device DEVICE. A node that needs no disk has none.",
      ),
    ];
  });
}

function judgeDevice({ device, identity }: DiskFacts): Finding {
  const check = judge("device", device, "a block device that can be read and written");
  if (isProblem(identity)) return check.fail(identity.message, identity.hint);
  const { path, bytes, serial, wwn, backingFile, isReadOnly } = identity;
  const words = [
    path === device ? "" : path,
    `${bytes} bytes`,
    serial === null ? "no serial number is known" : `serial ${serial}`,
    wwn === null ? "" : `WWN ${wwn}`,
    backingFile === null ? "" : `a loop device over ${backingFile}`,
  ]
    .filter((word) => word !== "")
    .join(", ");
  if (isReadOnly) return check.warn(`${words}; it is read-only`, "This node cannot be the owner. blockdev --setrw, if it is not meant so.");
  return check.ok(words);
}

function judgeFileSystem({ device, isInUse, owner }: DiskFacts, fact: FileSystemFact | Problem): Finding {
  const check = judge("file-system", device, "ext4 with a journal and without fast_commit, or XFS; without errors");
  if (isProblem(fact)) return check.fail(fact.message, fact.hint);
  const words = `${fact.type}, UUID ${fact.uuid}`;
  if (fact.needsRecovery === null || fact.hasErrors === null) {
    return check.unknown(
      `${words}; whether its log has to be replayed, and whether it is damaged, is not seen without a mount`,
      `While it is ${EVERYWHERE}, xfs_repair -n ${shellWord(device)} says it.`,
    );
  }
  if (fact.hasFastCommit) {
    return check.fail(
      `${words}, with fast_commit: a crash may leave it unmountable`,
      `While it is ${EVERYWHERE}: tune2fs -O ^fast_commit ${shellWord(device)}`,
    );
  }
  if (!fact.hasJournal) return check.fail(`${words}, without a journal`, `While it is ${EVERYWHERE}: tune2fs -j ${shellWord(device)}`);
  if (fact.hasErrors) {
    return check.fail(`${words}; the kernel has found errors in it`, `Unmount it on all nodes, then: e2fsck -f ${shellWord(device)}`);
  }
  const isOwned = owner !== undefined && !isProblem(owner) && owner.isOwned;
  if (fact.needsRecovery && isInUse === false && !isOwned) {
    return check.warn(
      `${words}; its journal has to be replayed (needs_recovery), and no owner is named`,
      "Another machine has it mounted plainly: unmount it there. Or it was not unmounted: e2fsck -f, or one plain mount and unmount, replays it.",
    );
  }
  return check.ok(words);
}

function judgeBit(device: string, bit: BitFact | Problem | null, { cluster, volumes, isBefore }: VolumeContext): Finding {
  const check = judge("bit", device, `the clustered bit of cluster ${cluster}, of a volume of cluster.yaml`);
  if (bit === null) {
    return isBefore
      ? check.ok("not set yet: `coverlay volume enable` does it")
      : check.fail(
          "there is no clustered bit",
          `Set it once, while it is ${EVERYWHERE}: coverlay volume enable ${shellWord(device)} --cluster=${shellWord(cluster)}`,
        );
  }
  if (isProblem(bit)) return bit.isUnknown === true ? check.unknown(bit.message, bit.hint) : check.fail(bit.message, bit.hint);
  const words = `volume ${bit.volume} of cluster ${bit.cluster}, uuid ${bit.uuid}`;
  if (bit.cluster !== cluster) {
    return check.fail(words, `It is another cluster's. If that one does not use it any more: coverlay volume disable ${shellWord(device)}`);
  }
  const named = volumes.find(({ path }) => path === device);
  if (named !== undefined && named.uuid !== bit.uuid) {
    return check.fail(
      `${words}; cluster.yaml has volume ${named.name}, uuid ${named.uuid}, at this path`,
      "Correct the path in cluster.yaml, or see which disk this path leads to on this node (lsblk -f): a mount would be refused.",
    );
  }
  if (volumes.some(({ uuid }) => uuid === bit.uuid)) return check.ok(words);
  return check.fail(
    `${words}, which cluster.yaml does not have`,
    `Put { name: ${bit.volume}, uuid: ${bit.uuid}, lower: device } under volumes; in a running cluster with coverlay config apply.`,
  );
}

function judgeMmp({ device, mmp, isInUse, owner, bit }: DiskFacts, { type }: FileSystemFact): Finding[] {
  if (type !== "ext4") return [];
  const check = judge("mmp", device, "multiple-mount protection is on, and names no machine that the owner's block does not name");
  // Not looked at: the look was given up before.
  if (mmp === undefined) return [];
  if (mmp !== null && isProblem(mmp)) return [check.fail(mmp.message, mmp.hint)];
  if (mmp === null) {
    // `coverlay volume enable` sets it, with the bit.
    if (bit === null) return [];
    return [
      check.warn(
        "it is off: a plain mount elsewhere is not refused",
        `While it is ${EVERYWHERE}, run coverlay volume enable again with the same names and uuid.`,
      ),
    ];
  }
  if (mmp.state === "clean") return [check.ok("on; not mounted")];
  const holder = `${mmp.device} on ${mmp.hostName}`;
  if (mmp.state === "fsck") return [check.warn(`e2fsck runs, or was interrupted: ${holder}`, "Wait for it, or run it to its end.")];
  if (owner !== undefined && isProblem(owner))
    return [check.unknown(`mounted as ${holder}, and the owner's block cannot be read`, owner.hint)];
  if (owner?.isOwned === true) {
    if (isOfOwner(mmp, owner)) return [check.ok(`on; mounted as ${holder}`)];
    return [
      check.unknown(
        `mounted as ${holder}, and the owner's block names ${owner.device} on ${owner.hostName}`,
        "If the owner has that name, all is well. If another machine has it: unmount it there, it destroys the file system.",
      ),
    ];
  }
  if (isInUse === true) {
    return [
      check.unknown(
        `mounted as ${holder}, and something on this machine has it in use`,
        "See what is said of its mounts; fuser -vm, dmsetup ls.",
      ),
    ];
  }
  return [
    check.fail(
      `mounted as ${holder}, and the owner's block names nobody: a plain mount, or a machine that went down with one`,
      `Unmount it there. If that machine is off: e2fsck -f ${shellWord(device)}`,
    ),
  ];
}

/** As isHeldBy (volume/mmp.ts) has it. MMP has the kernel's name of the device, and a node that was made outside of /dev has one of its own. */
function isOfOwner({ hostName, device }: MmpFact, owner: OwnerFact): boolean {
  if (hostName !== owner.hostName) return false;
  return !owner.device.startsWith("/dev/") || device === owner.device.slice(owner.device.lastIndexOf("/") + 1);
}

function judgeOwner(device: string, owner: OwnerFact | Problem, { nameOf }: VolumeContext): Finding {
  const check = judge("owner", device, "an owner's block that is whole");
  if (isProblem(owner)) return check.fail(owner.message, owner.hint);
  if (!owner.isOwned) return check.ok(`it names nobody: released, or never mounted; write ${owner.sequence}`);
  return check.ok(`${nameOf(owner.nodeid)}, as ${owner.device} on ${owner.hostName}; write ${owner.sequence}`);
}

/**
 * A block that names the present life of a node was written by that node since its dlmd was started. So this node reads what that one wrote. It
 * is the proof that needs no write. overlay/setup/README.md, "The same disk".
 */
function judgeSameDisk({ device, mmp }: DiskFacts, owner: OwnerFact | Problem, context: VolumeContext): Finding {
  const check = judge("same-disk", device, "this node reads on the device what the volume's owner has written");
  const howTo = `Mount the volume on one node, and run coverlay doctor --device ${shellWord(device)} on the others before they mount it.`;
  if (isProblem(owner)) return check.unknown("the owner's block cannot be read", "See what is said of it.");
  if (!owner.isOwned) {
    const words = "nobody has it mounted: it has the volume's uuid, and so has a copy that was made since";
    return context.isBefore ? check.ok(words) : check.unknown(words, howTo);
  }
  const present = context.incarnations.get(owner.nodeid);
  const name = context.nameOf(owner.nodeid);
  if (present === undefined) return check.unknown(`the block names ${name}, whose dlmd cannot be looked at`, howTo);
  if (present !== owner.incarnation) {
    return check.unknown(
      `the block names an earlier life of ${name}: it is a copy of the disk, or that life did not release it`,
      "coverlay status on a node with the volume mounted names the owner. If that is another one, this device is not the same disk.",
    );
  }
  if (owner.nodeid === context.selfNodeid) return check.ok("this node is the owner");
  const words = `the block names the present life of ${name}`;
  if (mmp === undefined || (mmp !== null && isProblem(mmp))) return check.unknown(`${words}; MMP's block could not be looked at`, howTo);
  if (mmp?.state !== "in-use") return check.ok(`${words}; a copy that was made since then would say the same`);
  if (!isOfOwner(mmp, owner)) return check.unknown(`${words}, and MMP's block another mount: ${mmp.device} on ${mmp.hostName}`, howTo);
  if (mmp.isMoving === null) {
    return check.unknown(
      `${words}; there was no time to see whether MMP's block is written`,
      "Give the look the time of two and a half of MMP's intervals (dumpe2fs -h): coverlay doctor --limit SECONDS.",
    );
  }
  if (mmp.isMoving) return check.ok(`${words}, and MMP's block is written while it is looked at`);
  return check.fail(
    `${words}, and MMP's block is not written: this device is a copy of the volume's disk, or the owner's disk hangs`,
    `Compare serial number, WWN and size with those on ${name}: coverlay doctor --device DEVICE there. coverlay status tells of a disk that hangs.`,
  );
}

type Selves = Pick<VolumeContext, "selfNodeid" | "nameOf">;

function judgeMounts(facts: DiskFacts, selves: Selves): Finding {
  const { device, plainMounts, isInUse } = facts;
  const check = judge("mounts", device, "no plain mount of it on this machine");
  if (isProblem(plainMounts)) return check.unknown(plainMounts.message, plainMounts.hint);
  if (plainMounts.length === 0 && typeof isInUse === "object") return check.unknown(isInUse.message, isInUse.hint);
  if (plainMounts.length === 0) return isInUse === true ? judgeUse(facts, selves, check) : check.ok("none");
  return check.fail(
    `mounted plainly at ${plainMounts.join(", ")}`,
    "Unmount it there at once: beside a clustered mount it destroys the file system. Then run fsck.",
  );
}

/** Without a mount point: a file of a mount that was unmounted with -l is open, or swap, md, device mapper. The owner has it so, too. */
function judgeUse({ device, bit, owner }: DiskFacts, { selfNodeid, nameOf }: Selves, check: Judge): Finding {
  const held = "no mount point; but something on this machine has it in exclusive use";
  const hint = `See whether it is still mounted after umount -l (fuser -vm ${shellWord(device)}), or part of another device (lsblk ${shellWord(device)}).`;
  if (bit === null) return check.warn(`${held}, and it is no clustered volume`, hint);
  if (owner === undefined || isProblem(owner)) return check.unknown(`${held}, and the owner's block cannot be read`, hint);
  if (!owner.isOwned) return check.warn(`${held}, and the owner's block names nobody`, hint);
  const words = `the owner's block names ${nameOf(owner.nodeid)}`;
  if (selfNodeid === null) return check.unknown(`${held}; ${words}, and which node this machine is, is not known`, hint);
  return owner.nodeid === selfNodeid ? check.ok("none") : check.warn(`${held}, and ${words}`, hint);
}
