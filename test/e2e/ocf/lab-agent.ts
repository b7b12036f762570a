/** The resource agent on a node of a lab, with the mount that the lab made there. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { readLab } from "../../../overlay/lab/state.ts";
import { OcfAgent, type Parameters } from "../../ocf-agent.ts";
import { coverlay, coverlayProgram, type TestLab } from "../lab.ts";

export interface LabAgent {
  readonly agent: OcfAgent;
  readonly parameters: Parameters;
}

/** `parent`: of the folder of the agent. */
export async function labAgent(lab: TestLab, nodeid: number, parent?: string): Promise<LabAgent> {
  const { netns, runDir, mount } = lab.node(nodeid);
  const device = (await lab.status()).find((node) => node.nodeid === nodeid)?.device ?? "";
  const mark = `COVERLAY_LAB=${readLab(lab.dir)?.id}:${nodeid}`;
  const agent = new OcfAgent(`exec env ${mark} nsenter --net=/run/netns/${netns} -- ${process.execPath} ${coverlayProgram} "$@"`, parent);
  return { agent, parameters: { device, directory: mount, options: `runDir=${runDir}` } };
}

/** N of /sys/fs/fuse/connections/N, of the mount there now. */
export function connectionOf(lab: TestLab, nodeid: number): number {
  const { mount } = lab.node(nodeid);
  const line = readFileSync("/proc/self/mountinfo", "utf8")
    .trim()
    .split("\n")
    .findLast((entry) => entry.split(" ")[4] === mount);
  return Number(line?.split(" ")[2]?.split(":")[1]);
}

/** The overlay that serves the mount there now. */
export function overlayPid(lab: TestLab, nodeid: number): number {
  const { mount } = lab.node(nodeid);
  const line = readFileSync("/proc/self/mountinfo", "utf8")
    .trim()
    .split("\n")
    .findLast((entry) => entry.split(" ")[4] === mount);
  const record = path.join("/run/coverlay-mounts", `${line?.split(" ")[2]}.json`);
  return (JSON.parse(readFileSync(record, "utf8")) as { pid: number }).pid;
}

/** That node, if it is not. */
export async function becomeOwner(lab: TestLab, nodeid: number): Promise<void> {
  if ((await lab.owner()) === nodeid) return;
  const { status, stderr } = await coverlay(["handover", "lab", `node${nodeid}`, "--run-dir", lab.node(nodeid).runDir]);
  if (status !== 0) throw new Error(`handover: ${stderr}`);
}
