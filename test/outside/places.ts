/** Where outside programs run: ext4 by itself, and a lab of three nodes; each run has a directory of its own, and one elsewhere that goes with it. */
import { accessSync, chmodSync, constants, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "../../overlay/lab/command.ts";
import type { TestLab } from "../e2e/lab.ts";
import type { OutsideProgram } from "./programs.ts";

export interface Place {
  readonly name: "ext4" | "owner" | "other node" | "three nodes";
  /** The same directory, through so many mounts. */
  readonly mounts: readonly [string, string, string];
}

export interface Outcome {
  readonly program: string;
  readonly place: Place["name"];
  readonly result: "passed" | "failed" | "skipped";
  readonly ms: number;
  /** Why it was skipped; the end of what a failed one printed. */
  readonly said: string;
}

const SAID_CHARS = 2000;
const RUN_LIMIT_MS = 300_000;

/** A command of the programs above that is not installed; null: all are. */
export function missingCommand({ needs }: OutsideProgram): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  const isThere = (command: string): boolean => folders.some((folder) => existsSync(path.join(folder, command)));
  return needs.find((command) => !isThere(command)) ?? null;
}

export async function labPlaces(lab: TestLab): Promise<Place[]> {
  const owner = await lab.owner();
  const others = lab.nodes.map(({ nodeid }) => nodeid).filter((nodeid) => nodeid !== owner);
  const mountOf = (nodeid: number | undefined): string => lab.node(nodeid ?? owner).mount;
  const [first, second] = others;
  openToAll(mountOf(owner));
  openToAll(mountOf(first));
  openToAll(mountOf(second));
  return [
    { name: "owner", mounts: [mountOf(owner), mountOf(owner), mountOf(owner)] },
    { name: "other node", mounts: [mountOf(first), mountOf(first), mountOf(first)] },
    { name: "three nodes", mounts: [mountOf(first), mountOf(second), mountOf(owner)] },
  ];
}

/** Programs of another user go through it: PostgreSQL refuses root. */
function openToAll(mount: string): void {
  for (let folder = path.dirname(mount); folder.startsWith(tmpdir()) && folder !== tmpdir(); folder = path.dirname(folder)) {
    chmodSync(folder, 0o711);
  }
}

/** ext4 by itself, for the length of `use`. */
export async function withPlainExt4<T>(use: (place: Place) => Promise<T>): Promise<T> {
  const base = mkdtempSync(path.join(tmpdir(), "coverlay-outside-"));
  const [image, mount] = [path.join(base, "image"), path.join(base, "mount")];
  mkdirSync(mount);
  openToAll(mount);
  const command = async (...words: string[]): Promise<void> => {
    const { status, stderr } = await run(words[0] ?? "", words.slice(1));
    if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
  };
  try {
    await command("truncate", "-s", "2G", image);
    await command("mkfs.ext4", "-q", "-F", image);
    await command("mount", "-o", "loop", image, mount);
    try {
      return await use({ name: "ext4", mounts: [mount, mount, mount] });
    } finally {
      await command("umount", mount);
    }
  } finally {
    rmSync(base, { recursive: true });
  }
}

export async function runProgram(program: OutsideProgram, place: Place): Promise<Outcome> {
  const head = { program: program.name, place: place.name };
  const missing = missingCommand(program);
  if (missing !== null) return { ...head, result: "skipped", ms: 0, said: `${missing} is not installed` };
  const scratch = mkdtempSync(path.join(tmpdir(), "coverlay-scratch-"));
  chmodSync(scratch, 0o711);
  const folder = `${program.name}-${place.name.replaceAll(" ", "-")}`;
  mkdirSync(path.join(place.mounts[0], folder));
  const [D1, D2, D3] = place.mounts.map((mount) => path.join(mount, folder));
  for (const directory of [D1, D2, D3]) accessSync(directory ?? "", constants.R_OK);
  const PATH = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;
  const begun = performance.now();
  try {
    const { status, timedOut, stdout, stderr } = await run("bash", ["-c", `set -eu -o pipefail\n${program.script}`], {
      timeoutMs: RUN_LIMIT_MS,
      env: { ...process.env, PATH, D1, D2, D3, SCRATCH: scratch, LC_ALL: "C.UTF-8" },
    });
    const ms = Math.round(performance.now() - begun);
    if (status === 0) return { ...head, result: "passed", ms, said: "" };
    const end = `${stdout}${stderr}`.slice(-SAID_CHARS);
    return { ...head, result: "failed", ms, said: timedOut ? `took too long\n${end}` : `exit status ${status}\n${end}` };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Which places a program has. */
export function isFor({ over }: OutsideProgram, { name }: Pick<Place, "name">): boolean {
  return name === "ext4" || (over === "each" ? name !== "three nodes" : name === "three nodes");
}
