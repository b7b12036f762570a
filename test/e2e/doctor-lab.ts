/** A lab on which `coverlay doctor` is run: one of three nodes without fence devices, rules of a firewall, changed files. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect } from "vitest";
import { loopsOver } from "../../overlay/lab/disk.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import type { NodeFinding } from "../../overlay/setup/finding.ts";
import { until } from "./actor.ts";
import { type TestLab, coverlayProgram, startLab } from "./lab.ts";
import { goOn } from "./stopped-dlmd.ts";
import { run } from "./volume/disk.ts";

export let lab: TestLab;
/** For files of the tests. */
export let dir: string;
const devices = new Map<number, string>();

export async function beginDoctorLab(): Promise<void> {
  // Over corosync dlmd sends no heartbeats of its own.
  lab = await startLab({ engine: "builtin", fencing: false, size: "128M" });
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-doctor-"));
  for (const { nodeid } of lab.nodes) devices.set(nodeid, lookUpDevice(nodeid));
}

/** After each test. */
export function mendDoctorLab(): void {
  goOn();
  for (const { netns } of lab.nodes) nft(netns, "table inet doctor\ndelete table inet doctor\n");
}

export async function endDoctorLab(): Promise<void> {
  rmSync(dir, { recursive: true, force: true });
  await lab.end();
}

const netnsOf = (nodeid: number): string => lab.node(nodeid).netns;
const inNetns = (netns: string, ...words: string[]): string => run("nsenter", `--net=/run/netns/${netns}`, ...words);

function nft(netns: string, rules: string): void {
  writeFileSync(path.join(os.tmpdir(), `${netns}.nft`), rules);
  inNetns(netns, "nft", "-f", path.join(os.tmpdir(), `${netns}.nft`));
  rmSync(path.join(os.tmpdir(), `${netns}.nft`));
}

/** What comes in at that node and fits is dropped, or what `verdict` says. */
export function atInput(nodeid: number, match: string, verdict = "drop"): void {
  nft(
    netnsOf(nodeid),
    `table inet doctor { chain input { type filter hook input priority 0; policy accept; ${match} counter ${verdict}; }; }\n`,
  );
}

/** Something was dropped there: the rule is the state that was wanted. */
export const dropped = (nodeid: number): boolean =>
  /counter packets [1-9]/.test(inNetns(netnsOf(nodeid), "nft", "list", "table", "inet", "doctor"));

export interface Report {
  readonly node: string | null;
  readonly status: number;
  readonly findings: readonly NodeFinding[];
}

/** Of that node alone. */
export function doctor(nodeid: number, words: readonly string[] = [], config?: string, env: readonly string[] = []): Promise<Report> {
  return doctorOfAll(nodeid, ["--here", ...words], config, env);
}

export async function doctorOfAll(
  nodeid: number,
  words: readonly string[] = [],
  config: string = labFiles(lab.dir).config,
  env: readonly string[] = [],
): Promise<Report> {
  const nothing = words.includes("--fstab") ? [] : ["--fstab", "/dev/null", "--root", "/none"];
  const command = ["env", ...env, process.execPath, coverlayProgram, "doctor", "--json", "--config", config, ...nothing];
  const { status, stdout, stderr } = await lab.exec(nodeid, [...command, ...words]);
  expect(stderr).toBe("");
  const report = JSON.parse(stdout) as Report;
  expect(status).toBe(report.status);
  return report;
}

export const wrong = ({ findings }: Report): string[] =>
  findings.flatMap(({ check, about, status }) => (status === "ok" ? [] : [`${status} ${check}: ${about}`]));

/** Of what another node was asked for. */
export const wrongElsewhere = ({ node: self, findings }: Report): string[] =>
  findings.flatMap(({ node, check, about, status }) => (status === "ok" || node === self ? [] : [`${node}: ${status} ${check}: ${about}`]));

/** Lists change while the state goes through all nodes: the wanted one comes. */
export async function untilWrong(nodeid: number, wanted: readonly string[], words: readonly string[] = []): Promise<Report> {
  let last = await doctor(nodeid, words);
  await until(
    `doctor on node ${nodeid} says ${wanted.join(", ")}`,
    async () => {
      last = await doctor(nodeid, words);
      return wrong(last).join("; ") === wanted.join("; ");
    },
    () => wrong(last).join("; "),
  );
  return last;
}

/** Its loop device, as its overlay says. */
function lookUpDevice(nodeid: number): string {
  const mounts = JSON.parse(run(process.execPath, coverlayProgram, "status", "--json", "--run-dir", lab.node(nodeid).runDir)) as {
    overlays: { device: string }[];
  };
  const device = mounts.overlays[0]?.device ?? "";
  expect(loopsOver(labFiles(lab.dir).image)).toContain(device);
  return device;
}
export const deviceOf = (nodeid: number): string => devices.get(nodeid) ?? "";

/** A folder with a configuration and a key that can be changed. */
export function ownFiles(name: string): { readonly config: string; readonly key: string } {
  const folder = path.join(dir, name);
  mkdirSync(folder);
  const files = labFiles(lab.dir);
  copyFileSync(files.config, path.join(folder, "cluster.yaml"));
  copyFileSync(files.key, path.join(folder, "cluster.key"));
  return { config: path.join(folder, "cluster.yaml"), key: path.join(folder, "cluster.key") };
}

/** How a TCP connection between two nodes ends, without doctor. */
export const connect = (from: number, to: number): Promise<{ readonly stdout: string }> => {
  const address = `10.209.77.${to}`;
  const script = `const s=require("net").connect({host:"${address}",port:7701});s.setTimeout(700,()=>{console.log("silent");process.exit()});s.on("error",e=>console.log(e.code));s.on("connect",()=>{console.log("open");process.exit()})`;
  return lab.exec(from, [process.execPath, "-e", script]);
};
