/** Gives the nodes of a lab that runs the lab's own fence agent, by a new version of the configuration. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import * as yaml from "yaml";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { coverlayProgram, type TestLab } from "../e2e/lab.ts";

interface Config {
  readonly version: number;
  readonly nodes: readonly { readonly name: string }[];
}

/** `dir`: for the new configuration. */
export async function addFences(lab: TestLab, dir: string): Promise<void> {
  const files = labFiles(lab.dir);
  const config = yaml.parse(readFileSync(files.config, "utf8")) as Config;
  const changed = {
    ...config,
    version: config.version + 1,
    nodes: config.nodes.map((node) => ({ ...node, fence: [[{ device: "lab", plug: node.name }]] })),
    fenceDevices: [{ name: "lab", agent: files.fenceAgent, options: { dir: lab.dir }, settleMs: 0 }],
  };
  const file = path.join(dir, "fences.yaml");
  writeFileSync(file, yaml.stringify(changed), { mode: 0o600 });
  const [first] = lab.nodes;
  const words = [coverlayProgram, "config", "apply", file, "--run-dir", first?.runDir ?? ""];
  const result = await run(process.execPath, words);
  if (result.status !== 0) throw new Error(`config apply: ${result.stdout}${result.stderr}`);
}
