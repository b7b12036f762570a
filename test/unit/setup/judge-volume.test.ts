/** What a look at a device means. */
import { expect, it } from "vitest";
import {
  type DiskFacts,
  type FileSystemFact,
  type MmpFact,
  type OwnerFact,
  judgeBareDisk,
  judgeDisk,
  judgeVolumes,
} from "../../../overlay/setup/judge-volume.ts";

const uuid = "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11";
const fileSystem: FileSystemFact = {
  type: "ext4",
  uuid: "u",
  needsRecovery: false,
  hasErrors: false,
  hasJournal: true,
  hasFastCommit: false,
  hasMmp: true,
};
const owner: OwnerFact = { isOwned: true, sequence: 4, nodeid: 2, incarnation: "life-2", hostName: "h", device: "/dev/sdc" };
const mmp: MmpFact = { state: "in-use", hostName: "h", device: "sdc", isMoving: true };
const disk: DiskFacts = {
  device: "/dev/sdb",
  identity: { path: "/dev/sdb", bytes: 4096, isReadOnly: false, serial: "s", wwn: null, backingFile: null },
  tags: {},
  fileSystem,
  bit: { cluster: "lab", volume: "data", uuid },
  owner,
  mmp,
  isInUse: false,
  plainMounts: [],
};

/** "undefined": not reached, or not there. */
type Change = { readonly [K in keyof DiskFacts]?: DiskFacts[K] | undefined };

function wrong(change: Change, isBefore = false, path?: string): string[] {
  const context = {
    cluster: "lab",
    volumes: [
      { name: "data", uuid, lower: "device", path },
      { name: "more", uuid: "other", lower: "device" },
    ],
    incarnations: new Map([[2, "life-2"]]),
    selfNodeid: 1,
    nameOf: (nodeid: number) => `node${nodeid}`,
    isBefore,
  };
  const found = judgeDisk({ ...disk, ...change } as DiskFacts, context).filter(({ status }) => status !== "ok");
  expect(found.every(({ action }) => action !== "")).toBe(true);
  return found.map(({ check, status }) => `${check} ${status}`);
}

const bad = { message: "bad", hint: "mend it" };
const released = { ...owner, isOwned: false };
const clean = { ...mmp, state: "clean" } as const;
/** Nothing tells of it but the kernel: unmounted with -l while a file is open. */
const lazy: Change = { isInUse: true, mmp: clean };

it.each<[string, Change, string[]]>([
  ["a volume that another node has mounted", { fileSystem: { ...fileSystem, needsRecovery: true } }, []],
  ["a volume that nobody has mounted", { owner: released, mmp: clean }, ["same-disk unknown"]],
  ["a device that is not there", { identity: bad }, ["device fail"]],
  ["a read-only device", { identity: { ...(disk.identity as object), isReadOnly: true } as DiskFacts["identity"] }, ["device warn"]],
  ["no file system", { fileSystem: bad, bit: null }, ["file-system fail", "bit fail"]],
  ["fast_commit", { fileSystem: { ...fileSystem, hasFastCommit: true } }, ["file-system fail"]],
  ["no journal", { fileSystem: { ...fileSystem, hasJournal: false } }, ["file-system fail"]],
  ["errors", { fileSystem: { ...fileSystem, hasErrors: true } }, ["file-system fail"]],
  [
    "a journal to be replayed of nobody",
    { fileSystem: { ...fileSystem, needsRecovery: true }, owner: released, mmp: clean },
    ["file-system warn", "same-disk unknown"],
  ],
  [
    "XFS, whose state is not seen",
    { fileSystem: { ...fileSystem, type: "xfs", needsRecovery: null, hasErrors: null }, mmp: null },
    ["file-system unknown"],
  ],
  ["a bit that only a mount could read", { bit: { ...bad, isUnknown: true } }, ["bit unknown"]],
  ["MMP's block is damaged", { mmp: bad }, ["mmp fail", "same-disk unknown"]],
  ["no time for a look at MMP", { mmp: { ...mmp, isMoving: null } }, ["same-disk unknown"]],
  ["mounts that cannot be looked at", { plainMounts: bad }, ["mounts unknown"]],
  ["a device that cannot be opened", { isInUse: bad }, ["mounts unknown"]],
  ["MMP names another machine than the owner's block", { mmp: { ...mmp, hostName: "x" } }, ["mmp unknown", "same-disk unknown"]],
  ["MMP names another device than the owner's block", { mmp: { ...mmp, device: "sdd" } }, ["mmp unknown", "same-disk unknown"]],
  ["a device that is not there", { identity: bad, plainMounts: bad, isInUse: bad }, ["device fail"]],
  ["the owner's device is a node outside of /dev", { owner: { ...owner, device: "/run/disk" } }, []],
  [
    "MMP names a mount of this machine, and the block nobody",
    { owner: released, isInUse: true },
    ["mmp unknown", "same-disk unknown", "mounts warn"],
  ],
  [
    "a mount of this machine without a mount point, and the block nobody",
    { ...lazy, owner: released },
    ["same-disk unknown", "mounts warn"],
  ],
  ["the same, and no bit", { ...lazy, bit: null, owner: undefined }, ["bit fail", "mounts warn"]],
  ["the same, and the block names another node", { isInUse: true }, ["mounts warn"]],
  ["the same, and the block names this node, which mounts it so", { ...lazy, owner: { ...owner, nodeid: 1 } }, ["same-disk unknown"]],
  ["the same, and a damaged owner's block", { ...lazy, owner: bad }, ["owner fail", "same-disk unknown", "mounts unknown"]],
  [
    "the same, and a bit that only a mount could read",
    { ...lazy, bit: { ...bad, isUnknown: true }, owner: undefined },
    ["bit unknown", "mounts unknown"],
  ],
  ["another cluster's bit", { bit: { cluster: "other", volume: "data", uuid } }, ["bit fail"]],
  ["a volume that cluster.yaml does not have", { bit: { cluster: "lab", volume: "data", uuid: "x" } }, ["bit fail"]],
  ["a damaged bit", { bit: bad }, ["bit fail"]],
  ["MMP is off", { mmp: null }, ["mmp warn"]],
  ["MMP names a machine, and the block nobody", { owner: released }, ["mmp fail", "same-disk unknown"]],
  ["an e2fsck", { mmp: { ...mmp, state: "fsck" } }, ["mmp warn"]],
  ["a damaged owner's block, and a mount", { owner: bad }, ["mmp unknown", "owner fail", "same-disk unknown"]],
  ["a damaged owner's block", { owner: bad, mmp: clean }, ["owner fail", "same-disk unknown"]],
  ["an earlier life of the owner", { owner: { ...owner, incarnation: "before" } }, ["same-disk unknown"]],
  ["an owner that is not seen", { owner: { ...owner, nodeid: 3 } }, ["same-disk unknown"]],
  ["a copy: MMP's block stands still", { mmp: { ...mmp, isMoving: false } }, ["same-disk fail"]],
  ["a plain mount here", { plainMounts: ["/mnt"] }, ["mounts fail"]],
])("%s", (_, change, expected) => {
  expect(wrong(change)).toEqual(expected);
});

it("without a configuration nobody knows which node this machine is: in use by its owner, or not", () => {
  const of = (change: Change): string[] =>
    judgeBareDisk({ ...disk, ...change } as DiskFacts)
      .filter(({ status }) => status !== "ok")
      .map(({ check, status, found }) => `${check} ${status}: ${found}`);
  expect(of({})).toEqual([]);
  expect(of({ isInUse: true })).toEqual([expect.stringMatching(/^mounts unknown: .* names node 2, and which node this machine is/)]);
  expect(of({ ...lazy, owner: released })).toEqual([expect.stringMatching(/^mounts warn: .* names nobody/)]);
});

it("before anything runs a bit may be missing", () => {
  const { owner: _, ...without } = disk;
  expect(wrong({ ...without, bit: null, mmp: null }, false)).toContain("bit fail");
  expect(wrong({ ...without, bit: null, mmp: null }, true)).not.toContain("bit fail");
  const { owner: __, ...bare } = { ...disk, bit: null };
  expect(wrong({ ...bare, owner: released, mmp: null }, true)).toEqual([]);
  expect(wrong({ ...bare, owner: released }, true)).toEqual(["mmp fail"]);
});

it("a path of cluster.yaml that leads to another volume of the cluster is a failure", () => {
  const other = { bit: { cluster: "lab", volume: "more", uuid: "other" } };
  expect(wrong({}, false, "/dev/sdb")).toEqual([]);
  expect(wrong(other, false, "/dev/sdb")).toEqual(["bit fail"]);
  expect(wrong(other, false, "/dev/sdc")).toEqual([]);
});

it("a volume of which no device was looked at is not known", () => {
  const volumes = [
    { name: "data", uuid, lower: "device" },
    { name: "more", uuid: "other", lower: "device", path: "/dev/sdc" },
    { name: "folder", uuid: "third", lower: "directory" },
  ];
  const of = (looks: Parameters<typeof judgeVolumes>[1]): string[] =>
    judgeVolumes(volumes, looks).map(({ about, status }) => `${status} ${about}`);
  expect(of([])).toEqual(["unknown volume data of cluster.yaml", "unknown volume more of cluster.yaml"]);
  expect(of([disk, { device: "/dev/sdc" }])).toEqual([]);
  expect(
    of([
      { device: "/dev/sdb", bit: bad },
      { device: "/dev/sdd", bit: null },
    ]),
  ).toHaveLength(2);
});
