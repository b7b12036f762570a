/** A misconfigured agent is found by a look at the configuration, not at the first death. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { fencingMistakes, type FencingMistake } from "../../../dlmd/fence-agent/check.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { METADATA_TIMEOUT_MS } from "../../../dlmd/fence-agent/read-metadata.ts";
import { type AgentFolder, agentFolder, metadataOf } from "./agents.ts";

let made: AgentFolder;
beforeEach(() => {
  made = agentFolder();
});
afterEach(() => made.remove());

function mistakes(devices: readonly object[], fence: readonly object[], shelf = new MetadataShelf()): Promise<FencingMistake[]> {
  const text = JSON.stringify({
    cluster: "lab",
    version: 1,
    fenceDevices: devices,
    nodes: [
      { nodeid: 1, name: "node1", address: "10.0.0.1", fence: [fence] },
      { nodeid: 2, name: "node2", address: "10.0.0.2" },
    ],
  });
  return fencingMistakes(decodeClusterConfig(text, "x"), shelf);
}

const options = ["action", "ip", "password", "plug"];

test("an agent with its options, required ones among them, is no mistake", async () => {
  const agent = made.agent("fence_a", "exit 0", metadataOf(options, ["off", "status"], ["ip", "password", "plug", "action"]));
  const password = made.file("p", "x\n");
  const device = { name: "d", agent, options: { ip: "a" }, optionFiles: { password } };
  expect(await mistakes([device], [{ device: "d" }])).toEqual([]);
});

test("every mistake at once: unknown and missing options, actions, plugs, files, agents", async () => {
  const agent = made.agent("fence_a", "exit 0", metadataOf(["action", "ip", "password"], ["reboot", "status"], ["ip"]));
  const none = path.join(made.folder, "fence_none");
  const devices = [
    { name: "d", agent, kind: "storage", unfence: true, options: { passwort: "x" }, optionFiles: { password: "/none/x" } },
    { name: "e", agent: none },
  ];
  const found = await mistakes(devices, [{ device: "d", plug: "7" }, { device: "e" }]);
  expect(found).toEqual([
    {
      device: "d",
      node: "",
      expected: "a file for the option password",
      found: expect.stringContaining("/none/x cannot be read: ENOENT"),
    },
    { device: "d", node: "", expected: "an agent with the action off", found: "one with reboot, status" },
    { device: "d", node: "", expected: "an agent with the action on", found: "one with reboot, status" },
    { device: "d", node: "node1", expected: "a known option (did you mean password?)", found: "the unknown option passwort" },
    { device: "d", node: "node1", expected: "the option ip, which it requires", found: "none" },
    { device: "d", node: "node1", expected: "no plug: this agent knows none", found: "7" },
    { device: "e", node: "", expected: `the agent ${none}`, found: expect.stringContaining("is not there (ENOENT)") },
  ]);
});

test("an option of one node alone counts for that node, and an old name stands for the new one", async () => {
  const text =
    '<resource-agent name="a"><parameters><parameter name="ip" required="1" obsoletes="ipaddr"/><parameter name="ipaddr" required="1" deprecated="1"/></parameters><actions><action name="off"/></actions></resource-agent>';
  const agent = made.agent("fence_a", "exit 0", text);
  expect(await mistakes([{ name: "d", agent }], [{ device: "d", options: { ipaddr: "x" } }])).toEqual([]);
  expect(await mistakes([{ name: "d", agent }], [{ device: "d" }])).toMatchObject([{ found: "none" }]);
});

test("an agent that does not say its metadata in time is killed, and named", async () => {
  expect(METADATA_TIMEOUT_MS).toBe(20_000);
  const agent = made.file("fence_a", "#!/bin/sh\nexec sleep 1000\n", 0o755);
  const found = await mistakes([{ name: "d", agent }], [{ device: "d" }], new MetadataShelf(200));
  expect(found).toMatchObject([{ found: expect.stringContaining("it did not end within 200 ms") }]);
});

test.skipIf(!existsSync("/usr/sbin/fence_ipmilan"))(
  "the example of fence devices is right, but for files that are a site's own",
  async () => {
    const text = readFileSync(new URL("../../../examples/fencing.yaml", import.meta.url), "utf8");
    const found = await fencingMistakes(decodeClusterConfig(text, "x"), new MetadataShelf());
    expect(found.filter((one) => !one.expected.startsWith("a file for the option"))).toMatchObject([
      { device: "watchdog", node: "node3", found: "/dev/disk/by-id/scsi-sbd, which names no msgwait" },
    ]);
    expect(found).toHaveLength(5);
  },
);

test.skipIf(!existsSync("/usr/sbin/fence_ipmilan"))("agents of Debian's fence-agents, as the examples use them", async () => {
  const password = made.file("p", "x\n");
  const devices = [
    { name: "ipmi", agent: "fence_ipmilan", options: { ip: "10.9.0.1", username: "admin", lanplus: true }, optionFiles: { password } },
    { name: "scsi", agent: "fence_scsi", kind: "storage", unfence: true, options: { devices: "/dev/sdb", key_value: "hash" } },
    { name: "sbd", agent: "fence_sbd", options: { devices: path.join(made.folder, "none") } },
  ];
  // The disk of sbd is read: here is none. test/e2e/dlmd/sbd.long-alone.test.ts has one.
  expect(await mistakes(devices, [{ device: "ipmi" }, { device: "scsi" }, { device: "sbd" }])).toMatchObject([
    { device: "sbd", found: expect.stringContaining("which names no msgwait") },
  ]);
  expect(await mistakes([{ name: "sbd", agent: "fence_sbd" }], [{ device: "sbd" }])).toMatchObject([
    { expected: "the option devices, which names its disks" },
    { expected: "the option devices, which it requires" },
  ]);
});
