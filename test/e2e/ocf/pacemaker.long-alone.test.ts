/** ocf:coverlay:volume under a real Pacemaker: two nodes of a lab, each with a resource of its own. The lab is in Pacemaker's namespaces. */
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { NodeLine, NodeReport } from "../../../overlay/lab/observe.ts";
import { noOcf, OcfAgent } from "../../ocf-agent.ts";
import { noPacemaker, Pacemaker } from "../../pacemaker.ts";
import { coverlayProgram, keepersOf } from "../lab.ts";

const missing = noPacemaker() ?? noOcf();
let pacemaker: Pacemaker;
let lab: string;
let nodes: NodeLine[] = [];
let devices: string[] = [];

async function inside(...command: string[]): Promise<string> {
  const result = await pacemaker.run(command, { timeoutMs: 110_000 });
  if (result.status === 0) return result.stdout;
  const status = (await pacemaker.run(["crm_mon", "--one-shot"])).stdout;
  throw new Error(`${command.join(" ")}: status ${result.status}\n${result.stdout}${result.stderr}\n${status}`);
}
const coverlay = (...words: string[]): Promise<string> => inside(process.execPath, coverlayProgram, ...words);
/** Until the shell's condition holds. */
const untilThere = (condition: string): Promise<string> => inside("sh", "-c", `until ${condition}; do sleep 0.1; done`);

const isMounted = (at: number): string => `grep -q ' ${nodes[at]?.mount} .* fuse.clustered ' /proc/self/mountinfo`;
const file = (at: number): string => path.join(nodes[at]?.mount ?? "", "file");

/** A primitive: started at once, looked at every 2 s. */
async function configure(at: number): Promise<void> {
  const node = nodes[at] as NodeLine;
  const script = `exec nsenter --net=/run/netns/${node.netns} -- ${process.execPath} ${coverlayProgram} "$@"`;
  const program = new OcfAgent(script, pacemaker.folder).program;
  const options = `runDir=${node.runDir}`;
  const parameters = Object.entries({ device: devices[at] ?? "", directory: node.mount, options, coverlay: program });
  const pairs = parameters.map(([name, value]) => `<nvpair id="s${at}-${name}" name="${name}" value="${value}"/>`).join("");
  const operations = ["start", "stop", "monitor"]
    .map((name) => `<op id="s${at}-${name}-op" name="${name}" interval="${name === "monitor" ? "2s" : "0"}" timeout="60s"/>`)
    .join("");
  const xml = `<primitive id="shared${at}" class="ocf" provider="coverlay" type="volume"><instance_attributes id="s${at}-i">${pairs}</instance_attributes><operations>${operations}</operations></primitive>`;
  await inside("cibadmin", "--create", "--scope", "resources", "--xml-text", xml);
}

beforeAll(async () => {
  if (missing !== null) return;
  pacemaker = new Pacemaker();
  await pacemaker.ready();
  const agent = path.join(import.meta.dirname, "../../../overlay/ocf/volume");
  const place = "/usr/lib/ocf/resource.d";
  const over = `mount -t overlay overlay -o lowerdir=${place},upperdir=/run/ocf/upper,workdir=/run/ocf/work ${place}`;
  await inside("sh", "-c", `mkdir -p /run/ocf/upper/coverlay /run/ocf/work && cp ${agent} /run/ocf/upper/coverlay/ && ${over}`);
  lab = path.join(pacemaker.folder, "lab");
  const up = await coverlay("lab", "up", "--detach", "--json", "--dir", lab, "--nodes", "2", "--size", "256M");
  nodes = up
    .trim()
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as NodeLine);
  const status = JSON.parse(await coverlay("lab", "status", "--json", "--dir", lab)) as { nodes: NodeReport[] };
  devices = status.nodes.map(({ device }) => device ?? "");
}, 240_000);
afterAll(async () => {
  try {
    if (lab !== undefined) await coverlay("lab", "down", "--dir", lab);
  } finally {
    await pacemaker?.end();
  }
}, 120_000);

test("Pacemaker finds it running, starts it again when its overlay was killed, and a stop hands the volume to the other node", async ({
  skip,
}) => {
  skip(missing !== null, missing ?? "");
  await inside("crm_attribute", "--type", "crm_config", "--name", "stonith-enabled", "--update", "false");
  // With one node it is chosen after 20 s.
  await untilThere("crm_mon --one-shot --output-as=xml | grep -q 'current_dc present=\"true\"'");
  await inside("sh", "-c", `echo before > ${file(0)}`);
  await configure(0);
  await configure(1);
  await inside("crm_resource", "--wait", "--timeout", "90s");
  for (const at of [0, 1]) expect(await inside("crm_resource", "--resource", `shared${at}`, "--locate")).toContain("is running on: node1");

  // Killed: its monitor fails with the reason, and Pacemaker starts it again.
  const records = (): Promise<string> => inside("sh", "-c", `grep -l '"${nodes[0]?.mount}"' /run/coverlay-mounts/*.json | xargs cat`);
  const { pid } = JSON.parse(await records()) as { pid: number };
  // A crash of the process alone is a pause.
  for (const keeper of keepersOf(nodes[0]?.mount ?? "")) process.kill(keeper, "SIGKILL");
  await inside("kill", "-KILL", `${pid}`);
  await untilThere("crm_mon --one-shot | grep -q 'no overlay serves the mount'");
  await inside("crm_resource", "--wait", "--timeout", "90s");
  expect(await inside("crm_resource", "--resource", "shared0", "--locate")).toContain("is running on: node1");
  expect(await inside("cat", file(0))).toBe("before\n");

  // Stopped: the other node has the volume.
  await inside("crm_resource", "--resource", "shared0", "--meta", "--set-parameter", "target-role", "--parameter-value", "Stopped");
  await untilThere(`! ${isMounted(0)}`);
  await inside("crm_resource", "--wait", "--timeout", "90s");
  expect((await coverlay("lab", "owner", "--dir", lab)).trim()).toBe("node2");
  expect(await inside("cat", file(1))).toBe("before\n");

  // And back.
  await inside("crm_resource", "--resource", "shared0", "--meta", "--delete-parameter", "target-role");
  await untilThere(isMounted(0));
  await inside("crm_resource", "--wait", "--timeout", "90s");
  await inside("sh", "-c", `echo after > ${file(0)}`);
  expect(await inside("cat", file(1))).toBe("after\n");
});
