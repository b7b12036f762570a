/**
 * The machines' system: a minimal Debian, 12 or 13, and its kernel. Two steps, each kept in a cache by what it is made of: the packages, which come from the
 * mirror of this machine by mmdebstrap, and the disk with what guest/ adds. coverlay itself is not in it.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { mmdebstrap, removeOwn } from "../mmdebstrap.ts";
import { progress } from "./progress.ts";

interface Debian {
  readonly suite: string;
  readonly version: number;
  /** How `uname -r` begins there. */
  readonly kernel: string;
}

const DEBIANS: readonly Debian[] = [
  { suite: "bookworm", version: 12, kernel: "6.1." },
  { suite: "trixie", version: 13, kernel: "6.12." },
];

/** Throws for a suite that is not known. */
export function debianOf(suite: string): Debian {
  const found = DEBIANS.find((debian) => debian.suite === suite);
  if (found !== undefined) return found;
  throw new Error(`COVERLAY_VM_SUITE=${suite}: one of ${DEBIANS.map((debian) => debian.suite).join(", ")} is expected`);
}

export const debian: Debian = debianOf(process.env["COVERLAY_VM_SUITE"] ?? "bookworm");
/** What a small server has, and what the package coverlay depends on: it is installed without a network. linux-image-cloud: fewer drivers, same sources. */
const PACKAGES =
  "systemd,systemd-sysv,udev,dbus,libpam-systemd,kmod,initramfs-tools,linux-image-cloud-amd64,iproute2,procps,util-linux,mount,fdisk,e2fsprogs,xfsprogs,libstdc++6";
/** Of the root's file system. It is sparse: some 450 MiB are used. */
const ROOT_BYTES = 2 * 2 ** 30;
const GUEST = path.join(import.meta.dirname, "guest");

/** nodeid -> address, hardware address and machine-id; the image knows all of them, and a machine finds itself by its hardware address. */
export const nodeids = [1, 2, 3] as const;
export const addressOf = (nodeid: number): string => `10.0.0.${nodeid}`;
export const hardwareAddressOf = (nodeid: number): string => `52:54:00:00:00:0${nodeid}`;
export const machineIdOf = (nodeid: number): string => `c0ff${String(nodeid).padStart(28, "0")}`;

interface GuestFile {
  readonly to: string;
  readonly text: string;
  readonly mode: number;
}

/** Cluster file systems want fixed addresses and names that need no server. */
function guestFiles(): GuestFile[] {
  const copied = (name: string, to: string, mode: number): GuestFile => ({ to, text: readFileSync(path.join(GUEST, name), "utf8"), mode });
  const hosts = nodeids.map((nodeid) => `${addressOf(nodeid)} node${nodeid}\n`).join("");
  const networks = nodeids.map((nodeid) => ({
    to: `etc/systemd/network/10-node${nodeid}.network`,
    text: `[Match]\nMACAddress=${hardwareAddressOf(nodeid)}\n\n[Network]\nAddress=${addressOf(nodeid)}/24\nLinkLocalAddressing=no\n`,
    mode: 0o644,
  }));
  return [
    copied("agent", "usr/local/sbin/vm-agent", 0o755),
    copied("agent.service", "etc/systemd/system/vm-agent.service", 0o644),
    copied("fence_vm", "usr/sbin/fence_vm", 0o755),
    ...networks,
    { to: "etc/hosts", text: `127.0.0.1 localhost\n${hosts}`, mode: 0o644 },
    { to: "etc/fstab", text: "/dev/vda / ext4 defaults 0 0\n", mode: 0o644 },
    // Empty, and not absent: no first boot. The kernel's command line has it, and the name.
    { to: "etc/machine-id", text: "", mode: 0o444 },
    // What a boot needs that is not in Debian's kernel itself: less to unpack for a slow processor.
    { to: "etc/initramfs-tools/conf.d/vm", text: "MODULES=list\nCOMPRESS=gzip\nFSTYPE=ext4\n", mode: 0o644 },
    { to: "etc/initramfs-tools/modules", text: "virtio_pci\nvirtio_blk\n", mode: 0o644 },
    // Of whatever has no time limit of its own: a processor that is emulated, and busy with others, is slow.
    { to: "etc/systemd/system.conf.d/slow.conf", text: SLOW, mode: 0o644 },
    // packaging/systemd/dlmd.service has 90 s, in which such a processor does not load it.
    { to: "etc/systemd/system/dlmd.service.d/slow.conf", text: "[Service]\nTimeoutStartSec=600\n", mode: 0o644 },
    // Kept: a journal of the boot before says how it ended.
    { to: "var/log/journal/.keep", text: "", mode: 0o644 },
  ];
}

const SLOW = `[Manager]
DefaultDeviceTimeoutSec=600
DefaultTimeoutStartSec=600
DefaultTimeoutStopSec=600
`;

const FINISH = `set -e
rm -f /etc/hostname
systemctl --quiet enable systemd-networkd.service systemd-networkd-wait-online.service vm-agent.service
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service serial-getty@ttyS0.service
update-initramfs -u`;

export interface VmImage {
  readonly root: string;
  readonly kernel: string;
  readonly initrd: string;
}

function cacheFolder(): string {
  const base =
    process.env["COVERLAY_VM_CACHE"] ?? path.join(process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache"), "coverlay-vm");
  mkdirSync(base, { recursive: true });
  return base;
}

/** What another run left half made: its process is no more. */
function removeHalfMade(cache: string): void {
  for (const name of readdirSync(cache)) {
    const [, pid] = /\.making-(\d+)$/.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeOwn(path.join(cache, name));
  }
}

/** Gives the folder with that content, made by `make` if it is not there yet: whole or not at all. */
function kept(kind: string, content: string, make: (folder: string) => void): string {
  const cache = cacheFolder();
  removeHalfMade(cache);
  const folder = path.join(cache, `${kind}-${createHash("sha256").update(content).digest("hex").slice(0, 16)}`);
  if (existsSync(folder)) return folder;
  const making = `${folder}.making-${process.pid}`;
  mkdirSync(making);
  try {
    make(making);
    renameSync(making, folder);
  } catch (error) {
    removeOwn(making);
    throw error;
  }
  return folder;
}

function run(command: string, args: readonly string[]): void {
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"] });
}

function debianTar(): string {
  const words = ["--variant=minbase", '--aptopt=Apt::Install-Recommends "false"', `--include=${PACKAGES}`, debian.suite];
  const folder = kept("debian", words.join(" "), (making) => {
    progress(`a Debian ${debian.version} is made: some minutes, once`);
    mmdebstrap([...words, path.join(making, "debian.tar")], making);
  });
  return path.join(folder, "debian.tar");
}

function makeDisk(making: string, tar: string, files: readonly GuestFile[]): void {
  progress("the disk of the machines is made");
  const tree = path.join(making, "tree");
  mkdirSync(tree);
  run("tar", ["-C", tree, "-xf", tar]);
  for (const { to, text, mode } of files) {
    const file = path.join(tree, to);
    mkdirSync(path.dirname(file), { recursive: true });
    rmSync(file, { force: true });
    writeFileSync(file, text);
    chmodSync(file, mode);
  }
  execFileSync("chroot", [tree, "sh", "-c", FINISH], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { PATH: "/usr/sbin:/usr/bin" },
  });
  for (const name of ["vmlinuz", "initrd.img"]) {
    const found = readdirSync(path.join(tree, "boot")).find((file) => file.startsWith(`${name}-`)) ?? "";
    copyFileSync(path.join(tree, "boot", found), path.join(making, name));
  }
  const root = path.join(making, "root.img");
  writeFileSync(root, "");
  truncateSync(root, ROOT_BYTES);
  run("mkfs.ext4", ["-q", "-F", "-d", tree, root]);
  removeOwn(tree);
}

/** Of the cache, or made now. */
export function vmImage(): VmImage {
  const tar = debianTar();
  const files = guestFiles();
  const folder = kept("disk", JSON.stringify([tar, files, FINISH, ROOT_BYTES]), (making) => makeDisk(making, tar, files));
  return { root: path.join(folder, "root.img"), kernel: path.join(folder, "vmlinuz"), initrd: path.join(folder, "initrd.img") };
}
