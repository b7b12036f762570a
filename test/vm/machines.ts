/**
 * Three machines on one disk and one network, in a directory that goes with this process: a guard, a process of its own, sees the end of its input. It
 * ends what runs in that directory, and removes it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { nodeids, vmImage } from "./image.ts";
import { type Machine, plugIn } from "./machine.ts";
import { startNetwork } from "./network.ts";
import { progress } from "./progress.ts";

const SECTOR_BYTES = 512;

const GUARD = `cat >/dev/null
for file in "$1"/*/qemu.pid; do
  pid=$(cat "$file" 2>/dev/null) && tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1/" && kill -KILL "$pid"
done
rm -rf "$1"`;

export interface Machines {
  readonly all: readonly Machine[];
  machine(nodeid: number): Machine;
  /** Names of machines that fence agents have switched off, in order. */
  readonly fenced: readonly string[];
  end(): Promise<void>;
}

function startGuard(dir: string): ChildProcess {
  const guard = spawn("sh", ["-c", GUARD, "guard", dir], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  guard.unref();
  return guard;
}

/** With one partition from 1 MiB on: a master boot record of one entry (type 0x83, first sector, sectors). */
function makeSharedDisk(file: string, bytes: number): void {
  const record = Buffer.alloc(SECTOR_BYTES);
  const firstSector = 2048;
  record[446 + 4] = 0x83;
  record.writeUInt32LE(firstSector, 446 + 8);
  record.writeUInt32LE(bytes / SECTOR_BYTES - firstSector, 446 + 12);
  record.writeUInt16LE(0xaa55, 510);
  writeFileSync(file, record);
  truncateSync(file, bytes);
}

function makeStick(dir: string, packageFiles: readonly string[]): string {
  const tree = path.join(dir, "stick");
  const image = path.join(dir, "stick.img");
  mkdirSync(tree);
  for (const file of packageFiles) copyFileSync(file, path.join(tree, path.basename(file)));
  writeFileSync(image, "");
  truncateSync(image, packageFiles.length * 256 * 2 ** 20);
  execFileSync("mkfs.ext4", ["-q", "-F", "-d", tree, image], { stdio: ["ignore", "ignore", "inherit"] });
  rmSync(tree, { recursive: true });
  return image;
}

/** None is on yet. All have the files on a stick, and one disk of so many bytes. */
export async function startMachines(packageFiles: readonly string[], sharedBytes: number): Promise<Machines> {
  const image = vmImage();
  const dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-vm-")));
  const guard = startGuard(dir);
  // The process that runs the tests outlives the one that started it, if that is killed.
  const end = (): never => process.exit(1);
  process.once("disconnect", end);
  // While the disk was made, nothing was heard.
  if (process.send !== undefined && !process.connected) end();
  const network = startNetwork();
  const shared = path.join(dir, "shared.img");
  makeSharedDisk(shared, sharedBytes);
  const stick = makeStick(dir, packageFiles);
  const all: Machine[] = [];
  const fenced: string[] = [];
  const onPower = async (request: string): Promise<string> => {
    progress(`a fence agent asks: ${request}`);
    const [action, name] = request.split(" ");
    const target = all.find((each) => each.name === name);
    if (action === "monitor") return "ok";
    if (target === undefined) return `no machine ${name}`;
    if (action === "status") return target.isOn() ? "on" : "off";
    if (action !== "off") return `${action} is not done by this device`;
    await target.cutPower();
    fenced.push(target.name);
    return "ok";
  };
  for (const nodeid of nodeids) {
    const own = path.join(dir, `node${nodeid}`);
    const root = path.join(own, "root.img");
    mkdirSync(own);
    execFileSync("cp", ["--sparse=always", "--reflink=auto", image.root, root]);
    all.push(await plugIn({ nodeid, dir: own, image, root, shared, stick, network, onPower }));
  }
  return {
    all,
    fenced,
    machine(nodeid) {
      const found = all.find((each) => each.nodeid === nodeid);
      if (found === undefined) throw new Error(`there is no node ${nodeid}`);
      return found;
    },
    async end() {
      for (const machine of all) await machine.end();
      network.end();
      // The guard removes the directory.
      const ended = once(guard, "exit");
      guard.stdin?.end();
      await ended;
    },
  };
}
