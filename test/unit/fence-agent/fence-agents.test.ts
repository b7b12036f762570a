/** The agents of a node as its core asks for them: results, stops, and unfencing. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import { type ClusterConfig, decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { createFenceAgents, type FenceAgents } from "../../../dlmd/fence-agent/fence-agents.ts";
import type { AgentResult } from "../../../dlmd/fencing/fence-run.ts";
import { type AgentFolder, agentFolder } from "./agents.ts";

let made: AgentFolder;
let logged: string[];
beforeEach(() => {
  made = agentFolder();
  logged = [];
});
afterEach(() => made.remove());

const say = (fields: unknown, message: string): void => void logged.push(`${message} ${JSON.stringify(fields)}`);
const log = { debug: say, info: say, warn: say, error: say } as unknown as Log;
const asked = (): string => (existsSync(path.join(made.folder, "asked")) ? readFileSync(path.join(made.folder, "asked"), "utf8") : "");

function configOf(agent: string, more = ""): ClusterConfig {
  const text = `cluster: lab
version: 1
fenceDevices: [{ name: a, agent: ${agent}, kind: storage, unfence: true, retries: 1${more} }, { name: b, agent: ${agent} }]
nodes: [{ nodeid: 1, name: node1, address: 10.0.0.1, fence: [[b], [a]] }, { nodeid: 2, name: node2, address: 10.0.0.2, fence: [[b]] }]
`;
  return decodeClusterConfig(text, "x");
}

const unfence = (agents: FenceAgents, isAllowed: boolean, nodeid = 1): Promise<AgentResult> =>
  new Promise((resolve) => agents.unfence(9, nodeid, "a", isAllowed, resolve));

test("a result comes once, in a later turn; of a device that is not configured any more this node is unable", async () => {
  const agent = made.agent("fence_a", "if [ $action = status ]; then exit 2; fi");
  const agents = createFenceAgents(() => configOf(agent), log);
  const results: AgentResult[] = [];
  await new Promise<void>((resolve) => {
    agents.run(7, 2, "b", (result) => {
      results.push(result);
      resolve();
    });
    expect(results).toEqual([]);
  });
  expect(results).toEqual([{ ok: true }]);
  const gone = await new Promise<AgentResult>((resolve) => agents.run(8, 2, "c", resolve));
  expect(gone).toEqual({ ok: false, unable: true, words: "no fence device c is configured for node 2 any more" });
});

test.each([false, true])("all are stopped and gone, and nothing comes of them; one was stopped before: %s", async (before) => {
  const agent = made.agent("fence_a", "echo $$ > self; while :; do sleep 1000; done");
  const agents = createFenceAgents(() => configOf(agent), log);
  const results: AgentResult[] = [];
  agents.run(7, 2, "b", (result) => results.push(result));
  const self = path.join(made.folder, "self");
  // The shell makes the file first, and writes then.
  while (!existsSync(self) || !readFileSync(self, "utf8").endsWith("\n")) await new Promise((resolve) => setTimeout(resolve, 5));
  if (before) agents.stop(7);
  await agents.stopAll();
  const pid = Number(readFileSync(self, "utf8"));
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  expect(results).toEqual([]);
});

test("unfencing runs `on` of the device, as often as it says; not after a fence in this boot", async () => {
  const agent = made.agent("fence_a", "if [ -e good ]; then exit 0; fi; touch good; exit 1");
  const agents = createFenceAgents(() => configOf(agent), log);
  await unfence(agents, false);
  expect([asked(), logged]).toEqual(["", [expect.stringContaining("this node was fenced in this boot")]]);
  expect(await unfence(agents, true, 2)).toMatchObject({ unable: true, words: "no fence device a is configured for node 2 any more" });
  expect(asked()).toBe("");
  await unfence(agents, true);
  expect(asked()).toBe("metadata\non\non\n");
  expect(logged.at(-1)).toContain("this node has its storage (unfenced)");
  made.agent("fence_a", "echo no key >&2; exit 1");
  await unfence(agents, true);
  expect(logged.at(-1)).toMatch(/this node could not be unfenced.*no key/);
});

test("an `on` that is under way is killed by stopAll: no further try, and nothing comes of it", async () => {
  const agent = made.agent("fence_a", "echo $$ > self; while :; do sleep 1000; done");
  const agents = createFenceAgents(() => configOf(agent), log);
  const results: AgentResult[] = [];
  agents.unfence(9, 1, "a", true, (result) => results.push(result));
  const self = path.join(made.folder, "self");
  while (!existsSync(self) || !readFileSync(self, "utf8").endsWith("\n")) await new Promise((resolve) => setTimeout(resolve, 5));
  const pid = Number(readFileSync(self, "utf8"));
  await agents.stopAll();
  expect(existsSync(`/proc/${pid}`)).toBe(false);
  expect([asked(), results, logged]).toEqual(["metadata\non\n", [], []]);
});

test("the look at the configuration puts its mistakes into the log", async () => {
  const agents = createFenceAgents(() => configOf(path.join(made.folder, "fence_none")), log);
  await agents.look();
  expect(logged).toHaveLength(2);
  expect(logged[0]).toMatch(/^a fence device cannot be used on this node .*is not there/);
});
