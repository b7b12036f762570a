/** The README claims nothing that no test shows: each row and point of "What holds", each point of "What does not hold yet", with the tests (file and part of the title). */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const LINE_COLUMNS = 100;
const SENTENCE_WORDS = 25;

const races = "test/e2e/races/races-suite.ts";
const limits = "test/e2e/limits.test.ts";
const pages = "test/e2e/hazards/page-locks.long.test.ts";
const permissions = "test/e2e/hazards/permissions.long.test.ts";
const sizes = "test/e2e/hazards/sizes-suite.ts";
const locks = "test/e2e/file-locks/meaning.long.test.ts";

type Shown = readonly (readonly [file: string, title: string])[];

/** By the first cell of a row, the number of an exception, the bold words of a point. */
const claims: Readonly<Record<string, Shown>> = {
  "read, write, truncate, stat": [["test/e2e/coherence-suite.ts", "was looked at as often as that"]],
  "lookup, readdir": [
    ["test/e2e/coherence-suite.ts", "was looked at as often as that"],
    [races, "one directory filled by all: the same listing everywhere"],
  ],
  "open with O_EXCL, mkdir": [
    [races, "O_EXCL: each name is created once"],
    [races, "mkdir, mknod, symlink and link: each name is made once"],
  ],
  "write with O_APPEND": [[races, "O_APPEND: every record is there once, whole"]],
  "rename, link, unlink": [
    [races, "rename: each name is moved once"],
    [races, "unlink: each name is removed once"],
    [races, "mkdir, mknod, symlink and link: each name is made once"],
  ],
  "chmod, chown, setxattr, ACLs": [
    [permissions, "F17: the mask of an ACL is obeyed on every node"],
    ["test/e2e/coherence-suite.ts", "was looked at as often as that"],
  ],
  "fcntl, lockf, flock": [
    [locks, "exclude each other between nodes"],
    [locks, "go with close(2), with exit(2), and with SIGKILL"],
  ],
  "mmap, shared and writable": [[pages, "its dirty mapped page still comes out"]],
  Fencing: [
    ["test/e2e/dlmd/fence-device.long.test.ts", "after a death the device opens what waited for it, with nobody's word"],
    ["test/e2e/dlmd/fence-device.long.test.ts", "a person's order is refused where it would end the quorum"],
    ["test/unit/fencing/returning.test.ts", "is no member as long as an agent runs against it"],
    ["test/unit/fencing/fencing.test.ts", "runs at the lowest member, once"],
  ],
  "fsync, fdatasync": [[permissions, "F16: after fsync data is on the disk"]],
  "1": [[limits, "reads that the cache answers leave the access time as it is"]],
  "2": [["test/e2e/hazards/readers.long.test.ts", "a few of all these reads at most were shown a wrong end"]],
  "3": [["test/e2e/hazards/readers.long.test.ts", "a few of all these reads at most were shown a wrong end"]],
  "4": [["test/e2e/hazards/names.test.ts", "a directory that another node moved, with a program in it"]],
  "5": [[sizes, "cut elsewhere: an append goes to the new end"]],
  "6": [[limits, "no RWF_NOWAIT"]],
  "7": [
    [locks, "GETLK shows the lock in the way"],
    [locks, "leaves file locks to each kernel, and mount, status and remount say so"],
  ],
  "8": [[sizes, "is refused without a page cache"]],
  "9": [
    [permissions, "syncfs returns"],
    ["test/e2e/lab/machine.alone.test.ts", "F16: sync(2) returns"],
  ],
  "What is cached costs no message": [[permissions, "F19: a stat after a cached read costs no lock message"]],
  SQLite: [
    ["test/e2e/file-locks/counting-suite.ts", "every acknowledged transaction is there, and nothing is damaged"],
    [pages, "F9: SQLite in WAL mode on two nodes gets an error on the second"],
  ],
  Locks: [["test/sim/sim.test.ts", "nothing wrong in"]],
  Owner: [["test/e2e/owner-block.long.test.ts", "the only mounter is cut off and lives: another mount is refused, with words"]],
  "Plain mounts": [["test/e2e/owner-block.long.test.ts", "by a machine outside of the cluster is refused by the kernel"]],
  "Unlinked while open": [
    [
      "test/e2e/orphans-suite.ts",
      "goes on when the owner unmounts, on every node that has it open; its space comes back with the last close",
    ],
    ["test/e2e/orphans-suite.ts", "goes on when the owner's overlay is killed; what its own programs alone had open ends"],
    ["test/e2e/orphans-suite.ts", "its space comes back when the %s that has it open is killed"],
    ["test/e2e/orphans-suite.ts", "its space comes back at the next mount when all die"],
  ],
  Network: [
    ["test/unit/lower/remote-attacks.test.ts", "sees neither names nor data"],
    ["test/unit/dlmd-shell/seal.test.ts", "a datagram with any bit changed is not heard"],
    ["test/e2e/bad-input.long.test.ts", "strangers' bytes on every port and socket are dropped"],
    ["test/e2e/dlmd/rotation.test.ts", "the old key is worth nothing after it"],
  ],
  Configuration: [["test/e2e/dlmd/config-change.long.test.ts", "nodes are added and removed while it runs"]],
  "Planned moves": [
    [
      "test/e2e/handover-asked.long.test.ts",
      "from each node to each, asked for on the owner and elsewhere: no program gets an error, and nothing is lost",
    ],
    ["test/e2e/handover.long.test.ts", "the volume goes back to the node that prefers to be its owner"],
  ],
  Stopping: [["test/e2e/dlmd/leaving.long.test.ts", "the last one serves until then, and the others wait for it when they are back"]],
  "A damaged inode": [["test/e2e/damaged-inode.long-alone.test.ts", "all other names are listed"]],
};

/** By the first four words of a point. */
const gaps: Readonly<Record<string, Shown>> = {
  "Failover loses what was": [
    ["test/e2e/failover.long.test.ts", "power-off of the owner under load: it is fenced, the others go on"],
    ["test/e2e/owner-returns.long.test.ts", "dies and comes back without what was not on its disk"],
    ["test/e2e/owner-killed.long.test.ts", "with known changes in its hands: what can be judged goes on, the rest ends with EIO, once"],
    ["test/e2e/owner-killed.long.test.ts", "both go on, and nothing is lost"],
    ["test/e2e/lease-owner.long.test.ts", "ENOTCONN"],
  ],
  "When the owner's node": [
    ["test/e2e/owner.long.test.ts", "dies: operations wait and can be killed, and go on when it is back; what was synced is there"],
    ["test/e2e/failover.long.test.ts", "power-off of the owner under load: it is fenced, the others go on"],
    ["test/e2e/failover.long.test.ts", "a partitioned owner lets go of its disk by itself"],
  ],
  "Nobody is fenced for": [
    ["test/e2e/owner-stalled.long.test.ts", "an owner whose disk hangs is fenced by a person"],
    ["test/e2e/owner-stalled.long.test.ts", "a disk that hangs ends no owner"],
  ],
  "An owner that unmounts": [
    ["test/e2e/owner.long.test.ts", "hands the volume over when it unmounts; open files go on"],
    ["test/unit/lower/orphans.test.ts", "what was opened after its last name had gone ends with its owner"],
    ["test/unit/lower/orphans.test.ts", "an open directory that a rename replaces ends with its owner"],
  ],
  "An owner whose disk": [
    [
      "test/e2e/withdraw.long.test.ts",
      "an owner whose path to the disk is lost for good withdraws by itself: calls wait, and go on with another node",
    ],
    ["test/e2e/withdraw.long.test.ts", "nobody is told EIO or EROFS"],
  ],
  "A volume whose lower": [
    ["test/e2e/lab/directory.long.test.ts", "is shared by three nodes, is one node's, and waits for it"],
    ["test/unit/lower/containment.test.ts", "refuses a file and a directory of the same file system that lie outside"],
    ["test/unit/volume/directory-place.test.ts", "refuses a copy with all its attributes"],
    ["test/e2e/local-changes.long.test.ts", "contents, size and attributes, also of what is open"],
  ],
  "A path that each": [["test/unit/dlmd-shell/config.test.ts", "lower shared"]],
  "Fence agents were tried": [
    ["test/unit/fence-agent/fence-device.test.ts", "is run: off, and its status says so"],
    ["test/e2e/dlmd/agents.long.test.ts", "every agent of fence-agents says metadata that can be read"],
    ["test/e2e/dlmd/sbd.long-alone.test.ts", "is a proof when its time is over: the node has read its slot, and ends itself"],
  ],
  "A kernel before 6.16": [
    ["test/unit/fuse/init.test.ts", "entry expiry comes with its flag, epochs with protocol 7.44"],
    ["test/unit/fuse/init.test.ts", "a kernel before Linux 5.4"],
  ],
  "Refused: ext4 with casefold": [["test/unit/volume/codec.test.ts", "casefold"]],
  "Refused: ext2, and ext4": [["test/e2e/volume/journal.long.test.ts", "ext2, and ext4 without a journal, are refused at enable"]],
  "A crash of dlmd": [
    ["test/e2e/crash-dlmd.long.test.ts", "programs keep their files, mappings, locks and listings, time after time under load"],
    ["test/e2e/crash-dlmd-owner.long.test.ts", "ends the mount where nobody keeps what it has; the others go on"],
    [
      "test/e2e/crash-dlmd-owner.long.test.ts",
      "programs on all nodes keep their files, mappings, locks and listings, time after time under load",
    ],
  ],
  "A crash of a": [
    ["test/e2e/crash.long.test.ts", "programs keep their files, mappings, directories and listings, time after time under load"],
    ["test/e2e/crash-owner.long.test.ts", "ends with the owner's process: nobody else can have it, and status says so before"],
    [
      "test/e2e/crash-owner.long.test.ts",
      "programs on all nodes keep their files, mappings, directories and listings, time after time under load",
    ],
    ["test/e2e/crash-owner.long.test.ts", "no file of another node is removed, or appended to, a second time"],
  ],
  "Refused: ext4 with fast_commit,": [["test/e2e/volume/journal.long.test.ts", "R8: ext4 with fast_commit is refused at enable"]],
  "Other mounts inside of": [[limits, "what is mounted inside stays while another node changes a small directory"]],
  "inotify sees the changes": [[limits, "inotify sees the changes of its own node only"]],
};

const readme = readFileSync(path.join(root, "README.md"), "utf8");

function section(title: string): string {
  const from = readme.indexOf(`## ${title}\n`);
  const to = readme.indexOf("\n## ", from + 1);
  if (from < 0) throw new Error(`README.md has no section "${title}"`);
  return readme.slice(from, to < 0 ? undefined : to);
}

describe("the README", () => {
  it("has a test for each claim of What holds, and no test for a claim that it does not make", () => {
    const holds = section("What holds");
    const rows = [...holds.matchAll(/^\| (?!call |---)([^|]+?) \|/gm)].map(([, cell]) => cell ?? "");
    const exceptions = [...holds.matchAll(/^(\d+)\. /gm)].map(([, number]) => number ?? "");
    const points = [...holds.matchAll(/^\* (?:\*\*([^*]+)\*\*)?/gm)].map(([, words]) => (words ?? "").replace(/\.$/, ""));
    expect([...rows, ...exceptions, ...points].toSorted((a, b) => a.localeCompare(b))).toEqual(
      Object.keys(claims).toSorted((a, b) => a.localeCompare(b)),
    );
    const numbers = new Set([...holds.matchAll(/\| ([\d ]+) \|$/gm)].flatMap(([, cell]) => (cell ?? "").trim().split(" ")));
    expect([...numbers].toSorted((a, b) => Number(a) - Number(b))).toEqual(exceptions);
  });

  it("has a test for each point of What does not hold yet", () => {
    const points = [...section("What does not hold yet").matchAll(/^\* (.*)$/gm)].map(([, line]) =>
      (line ?? "").replaceAll("*", "").split(" ").slice(0, 4).join(" "),
    );
    expect(points.toSorted((a, b) => a.localeCompare(b))).toEqual(Object.keys(gaps).toSorted((a, b) => a.localeCompare(b)));
  });

  it.each([...Object.entries(claims), ...Object.entries(gaps)])("%s: its tests are there", (_, shown) => {
    for (const [file, title] of shown) {
      expect(existsSync(path.join(root, file)) ? file : `${file} is missing`).toBe(file);
      expect(readFileSync(path.join(root, file), "utf8")).toContain(title);
    }
  });

  it("has short lines, and short sentences where it promises something", () => {
    expect(readme.split("\n").filter((line) => line.length > LINE_COLUMNS)).toEqual([]);
    const prose = ["What holds", "What does not hold yet"]
      .map((title) => section(title))
      .join("\n")
      .replace(/^(#|\|).*$/gm, "")
      .replace(/^(\* |\d+\. )/gm, "\n");
    const sentences = prose.split(/\n\s*\n|(?<=[.:])\s+(?=[A-Z`*])/).map((sentence) => sentence.replaceAll(/\s+/g, " ").trim());
    expect(sentences.filter((sentence) => sentence.split(" ").length > SENTENCE_WORDS)).toEqual([]);
  });
});
