/** The programs of other packages that tests run: one line says which are missing, before any test begins; none is skipped for that. */
import { thisMachine } from "../overlay/lab/prerequisites.ts";

interface Package {
  /** Its name in Debian. */
  readonly name: string;
  readonly programs: readonly string[];
}

export const packages: readonly Package[] = [
  { name: "g++", programs: ["g++", "cc"] },
  { name: "make", programs: ["make"] },
  { name: "python3", programs: ["python3"] },
  { name: "git", programs: ["git"] },
  { name: "e2fsprogs", programs: ["mkfs.ext4", "mkfs.ext2", "debugfs", "dumpe2fs", "tune2fs", "e2fsck", "chattr"] },
  { name: "xfsprogs", programs: ["mkfs.xfs", "xfs_db", "xfs_repair", "xfs_logprint"] },
  { name: "mount", programs: ["mount", "umount", "losetup"] },
  { name: "util-linux", programs: ["nsenter", "flock", "unshare", "fallocate", "blkid", "blockdev", "findmnt", "taskset", "fsfreeze"] },
  { name: "iproute2", programs: ["ip", "tc"] },
  { name: "nftables", programs: ["nft"] },
  { name: "acl", programs: ["setfacl"] },
  { name: "sqlite3", programs: ["sqlite3"] },
  { name: "bindfs", programs: ["bindfs"] },
  { name: "ctdb", programs: ["ping_pong"] },
  { name: "dpkg-dev", programs: ["dpkg-shlibdeps"] },
  { name: "lintian", programs: ["lintian"] },
  { name: "mmdebstrap", programs: ["mmdebstrap"] },
  { name: "systemd", programs: ["systemd-analyze"] },
];

/** Null: all are there. */
export function missingPackages(hasProgram: (name: string) => boolean): string | null {
  const missing = packages.filter(({ programs }) => !programs.every(hasProgram)).map(({ name }) => name);
  return missing.length === 0 ? null : `missing packages: ${missing.join(" ")} (apt-get install ${missing.join(" ")})`;
}

export default function setup(): void {
  const missing = missingPackages(thisMachine().hasTool);
  if (missing === null) return;
  process.stderr.write(`${missing}\n`);
  process.exit(1);
}
