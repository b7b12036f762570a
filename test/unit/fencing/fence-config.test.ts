/** Fence devices in cluster.yaml: what may be said, what it means, and what is refused with which words. */
import { describe, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { changeObjection } from "../../../dlmd/config/allowed-change.ts";
import { canonicalConfig, decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import {
  fencePlansOf,
  MAX_FENCE_DELAY_MS,
  MAX_FENCE_DEVICES,
  MAX_FENCE_LEVELS,
  MAX_FENCE_OPTIONS,
  MAX_FENCE_RETRIES,
  MAX_FENCE_TIMEOUT_MS,
  MAX_LEVEL_DEVICES,
} from "../../../dlmd/config/fence-config.ts";

const head = "cluster: lab\nversion: 1\n";
const devices = `fenceDevices:
  - { name: ipmi1, agent: fence_ipmilan, options: { ip: 10.9.0.1, lanplus: true, power_wait: 4 }, optionFiles: { password: /etc/coverlay/ipmi1 } }
  - { name: ipmi2, agent: fence_ipmilan, options: { ip: 10.9.0.2 }, delayMs: 5000 }
  - { name: psu-a, agent: fence_apc, retries: 3, timeoutMs: 20000, settleMs: 100 }
  - { name: psu-b, agent: /opt/agents/fence_apc, action: off }
  - { name: array, agent: fence_scsi, kind: storage, unfence: true, options: { devices: /dev/sdb } }
`;
const nodes = `nodes:
  - { nodeid: 1, name: node1, address: 10.0.0.1, fence: [[ipmi1], [{ device: psu-a, plug: "7" }, { device: psu-b, plug: "8", options: { switch: 2 } }]] }
  - { nodeid: 2, name: node2, address: 10.0.0.2, fence: [[ipmi2], [array]] }
`;
const good = head + devices + nodes;

function refusal(yaml: string): string[] {
  try {
    decodeClusterConfig(yaml, "cluster.yaml");
  } catch (error) {
    if (error instanceof OperatingError && error.code === "bad-config") return error.message.split("\n  ").slice(1);
    throw error;
  }
  throw new Error("accepted");
}

test("devices and levels become plans; settle is 2 s for power and none for storage where it is not said", () => {
  const plans = fencePlansOf(decodeClusterConfig(good, "x"));
  const device = (name: string, agent: string, more: object) => ({ device: name, agent, delayMs: 0, retries: 1, settleMs: 2000, ...more });
  expect(plans.get(1)).toEqual({
    name: "node1",
    delayMs: 0,
    levels: [
      [device("ipmi1", "fence_ipmilan", {})],
      [device("psu-a", "fence_apc", { retries: 3, settleMs: 100 }), device("psu-b", "fence_apc", {})],
    ],
    unfence: [],
  });
  expect(plans.get(2)?.levels).toEqual([
    [device("ipmi2", "fence_ipmilan", { delayMs: 5000 })],
    [device("array", "fence_scsi", { settleMs: 0 })],
  ]);
});

test("a device that is to be unfenced means something else with any other option, plug or agent; not with another time", () => {
  const meansWith = (from: string, to: string): readonly string[] => {
    expect(good).toContain(from);
    const plan = fencePlansOf(decodeClusterConfig(good.replace(from, to), "x")).get(2);
    return (plan?.unfence ?? []).map(({ device, means }) => `${device} ${means}`);
  };
  const same = meansWith("unfence: true, ", "unfence: true, timeoutMs: 7000, retries: 3, ");
  expect(same).toEqual([expect.stringMatching(/^array /)]);
  expect(meansWith("unfence: true, ", "unfence: true, delayMs: 5, ")).toEqual(same);
  const others = [
    meansWith("/dev/sdb", "/dev/sdc"),
    meansWith("agent: fence_scsi", "agent: fence_mpath"),
    meansWith("unfence: true, ", "unfence: true, optionFiles: { key: /etc/key }, "),
    meansWith("[array]", "[{ device: array, plug: n2 }]"),
    meansWith("[array]", "[{ device: array, options: { key: 2 } }]"),
  ].flat();
  expect(new Set([...same, ...others]).size).toBe(6);
  expect(meansWith("unfence: true, ", "")).toEqual([]);
});

test.each(["0123", "007", "0x1F", "12e3", "1.10", "12345678901234567890", "+5", "True", "no"])(
  "an option %s is what was written",
  (written) => {
    const text = good.replace("/dev/sdb", written).replace("switch: 2", `switch: ${written}`);
    const { fenceDevices, nodes: all } = decodeClusterConfig(text, "x");
    expect(fenceDevices.at(-1)?.options).toEqual({ devices: written });
    expect(all[0]?.fence?.[1]?.[1]?.options).toEqual({ switch: written });
  },
);

test("an option that is the same as text is the number, true or false that it was, and nothing is no option", () => {
  const options = (written: string) => decodeClusterConfig(good.replace("/dev/sdb", written), "x").fenceDevices.at(-1)?.options;
  expect([options("12"), options("-1.5"), options("false"), options('"12"')]).toEqual([
    { devices: 12 },
    { devices: -1.5 },
    { devices: false },
    { devices: "12" },
  ]);
  expect(refusal(good.replace("/dev/sdb", "~")).join()).toContain("fenceDevices[4].options.devices: expected a string of one line");
  // Elsewhere a number is one, however it is written.
  expect(decodeClusterConfig(good.replace("timeoutMs: 20000", "timeoutMs: 2e4"), "x").fenceDevices[2]?.timeoutMs).toBe(20_000);
});

test("a node without `fence` has no plan, and a file that speaks of no fences means what it meant", () => {
  const plain = decodeClusterConfig(`${head}nodes:\n  - { nodeid: 1, name: node1, address: 10.0.0.1 }\n`, "x");
  expect(fencePlansOf(plain).size).toBe(0);
  expect((JSON.parse(canonicalConfig(plain)) as unknown[]).length).toBe(4);
});

test("two texts mean the same whatever the order of their options, and another option, plug or priority is another configuration", () => {
  const text = canonicalConfig(decodeClusterConfig(good, "x"));
  const turned = good.replace("ip: 10.9.0.1, lanplus: true", "lanplus: true, ip: 10.9.0.1");
  expect(canonicalConfig(decodeClusterConfig(turned, "x"))).toBe(text);
  for (const [from, to] of [
    ["lanplus: true", "lanplus: false"],
    ['plug: "7"', 'plug: "9"'],
    ["/etc/coverlay/ipmi1", "/etc/coverlay/ipmi2"],
    ["nodeid: 2,", "nodeid: 2, priority: 5,"],
    ["retries: 3", "retries: 4"],
  ] as const)
    expect([to, canonicalConfig(decodeClusterConfig(good.replace(from, to), "x"))]).not.toEqual([to, text]);
});

test("devices may be changed while the cluster runs", () => {
  const [from, to] = [good, good.replace("retries: 3", "retries: 4").replace('plug: "7"', 'plug: "9"')].map((text) =>
    decodeClusterConfig(text, "x"),
  );
  if (from === undefined || to === undefined) throw new Error("two expected");
  expect(changeObjection(from, to, [1, 2])).toBeNull();
  const both = decodeClusterConfig(good.replace("version: 1", "version: 2\nquorum: { two_node: true }"), "x");
  expect(changeObjection(decodeClusterConfig(head + devices + nodes.replaceAll(/, fence: .*\}/g, " }"), "x"), both, [1, 2])).toBeNull();
});

describe("two nodes", () => {
  const two = good.replace("version: 1", "version: 1\nquorum: { two_node: true }");
  const equal = two.replace("delayMs: 5000", "delayMs: 0");

  test("with a device each are allowed, if one shoots first by a delay of its device", () => {
    expect(decodeClusterConfig(two, "x").quorum).toMatchObject({ two_node: true, wait_for_all: true });
    expect(refusal(equal)).toEqual([
      "quorum.two_node: expected devices of node1 and node2 whose delayMs differ, or nodes of different priority: else both shoot at once, and both are off, found the same delay of 0 ms for both",
    ]);
  });

  test("or by its priority: the node of the higher one is fenced later", () => {
    const preferred = equal.replace("nodeid: 2,", "nodeid: 2, priority: 10,");
    expect([...fencePlansOf(decodeClusterConfig(preferred, "x")).values()].map(({ delayMs }) => delayMs)).toEqual([0, 15_000]);
    const other = preferred.replace("version: 1", "version: 1\nfencePriorityDelayMs: 700");
    expect(fencePlansOf(decodeClusterConfig(other, "x")).get(2)?.delayMs).toBe(700);
    // It takes back what the delay of the device gives.
    expect(
      refusal(two.replace("nodeid: 1,", "nodeid: 1, priority: 1,").replace("version: 1", "version: 1\nfencePriorityDelayMs: 5000"))[0],
    ).toContain("the same delay of 5000 ms for both");
  });

  test("without a device for one of them are refused", () => {
    expect(refusal(two.replace(", fence: [[ipmi2], [array]]", ""))[0]).toContain("no fence device is configured for node2");
  });

  test("a priority means nothing where a majority decides", () => {
    const three = good.replace("nodeid: 2,", "nodeid: 2, priority: 10,");
    expect(fencePlansOf(decodeClusterConfig(three, "x")).get(2)?.delayMs).toBe(0);
  });
});

test.each<[name: string, from: string | RegExp, to: string, expected: string]>([
  [
    "an agent that is no agent",
    "agent: fence_apc,",
    "agent: apc,",
    'fenceDevices[2].agent: expected an agent such as fence_ipmilan, or the absolute path of one, found "apc"',
  ],
  ["a relative path", "/opt/agents/fence_apc", "agents/fence_apc", "fenceDevices[3].agent: expected an agent such as fence_ipmilan"],
  ["a kind", "kind: storage", "kind: disk", 'fenceDevices[4].kind: expected power or storage, found "disk"'],
  ["an action", "action: off", "action: on", 'fenceDevices[3].action: expected off or reboot, found "on"'],
  [
    "reboot of storage",
    "kind: storage",
    "kind: storage, action: reboot",
    "fenceDevices[4].action: expected off with kind: storage, found reboot",
  ],
  ["unfence of power", "kind: storage, ", "", "fenceDevices[4].unfence: expected true for kind: storage alone, found it with kind: power"],
  [
    "a name twice",
    "name: psu-b",
    "name: psu-a",
    "fenceDevices[3].name: expected one that no other entry has, found psu-a, which fenceDevices[2] has",
  ],
  [
    "an option that is a list",
    "lanplus: true",
    "lanplus: [1]",
    "fenceDevices[0].options.lanplus: expected a string of one line and at most 1024 characters, a number, or true or false, found [1]",
  ],
  ["an option of two lines", "lanplus: true", 'lanplus: "a\\nb"', "fenceDevices[0].options.lanplus: expected a string of one line"],
  ["an option of a bad name", "lanplus: true", '"lan plus": 1', "fenceDevices[0].options: expected names of options of letters"],
  ["a relative file", "/etc/coverlay/ipmi1", "ipmi1", "fenceDevices[0].optionFiles.password: expected the absolute path of a file"],
  [
    "an option and its file",
    "lanplus: true",
    "password: x",
    "fenceDevices[0].optionFiles.password: expected each option once, found it in options as well",
  ],
  [
    "an action among the options",
    "lanplus: true",
    "action: off",
    "fenceDevices[0].options.action: expected the device's key action, found it among the options",
  ],
  [
    "a port among the options",
    "lanplus: true",
    "port: 1",
    "fenceDevices[0].options.port: expected plug, where a node's fence names the device",
  ],
  [
    "an action among a node's options",
    "switch: 2",
    "action: on",
    "nodes[0].fence[1][1].options.action: expected plug beside device, and no action, found action",
  ],
  [
    "a device that is not there",
    "[array]",
    "[arrays]",
    "nodes[1].fence[1][0].device: expected one of the fenceDevices ipmi1, ipmi2, psu-a, psu-b, array, found arrays",
  ],
  ["a device twice", "[array]", "[ipmi2]", "nodes[1].fence[1][0].device: expected each device once for a node, found ipmi2 again"],
  ["no level", "[[ipmi2], [array]]", "[]", "nodes[1].fence: expected a list of 1 to 9 levels, found []"],
  ["a level without a device", "[[ipmi2], [array]]", "[[]]", "nodes[1].fence[0]: expected a list of 1 to 8 devices of a level, found []"],
  [
    "a level that is no list",
    "[[ipmi2], [array]]",
    "[ipmi2]",
    'nodes[1].fence[0]: expected a list of 1 to 8 devices of a level, found "ipmi2"',
  ],
  ["an unknown key of a device", "retries: 3", "retrys: 3", "fenceDevices[2].retrys: expected a known key (did you mean retries?)"],
  ["an unknown key in a level", 'plug: "7"', 'plugg: "7"', "nodes[0].fence[1][0].plugg: expected a known key (did you mean plug?)"],
  [
    "too short a time",
    "timeoutMs: 20000",
    "timeoutMs: 20",
    "fenceDevices[2].timeoutMs: expected a whole number from 100 to 600000 milliseconds, found 20",
  ],
  [
    "reboot of one of two",
    "action: off",
    "action: reboot",
    "nodes[0].fence[1][1].device: expected action: off for each of several devices of a level",
  ],
])("%s is refused", (_name, from, to, expected) => {
  const text = good.replace(from, to);
  expect(text).not.toBe(good);
  expect(refusal(text).join("\n")).toContain(expected);
});

test("what is said has an end: devices, levels, devices of a level, options, times, tries", () => {
  const many = (count: number, row: (at: number) => string): string => Array.from({ length: count }, (_, at) => row(at)).join(", ");
  const withDevices = (count: number, node = ""): string =>
    `${head}fenceDevices: [${many(count, (at) => `{ name: d${at}, agent: fence_x }`)}]\nnodes: [{ nodeid: 1, name: node1, address: 10.0.0.1${node} }]\n`;
  decodeClusterConfig(withDevices(MAX_FENCE_DEVICES), "x");
  expect(refusal(withDevices(MAX_FENCE_DEVICES + 1))[0]).toContain("fenceDevices: expected a list of 0 to 128 fence devices");
  const levels = (count: number, each: number): string =>
    `, fence: [${many(count, (level) => `[${many(each, (at) => `d${level * each + at}`)}]`)}]`;
  decodeClusterConfig(withDevices(MAX_FENCE_DEVICES, levels(MAX_FENCE_LEVELS, MAX_LEVEL_DEVICES)), "x");
  expect(refusal(withDevices(MAX_FENCE_DEVICES, levels(MAX_FENCE_LEVELS + 1, 1)))[0]).toContain("1 to 9 levels");
  expect(refusal(withDevices(MAX_FENCE_DEVICES, levels(1, MAX_LEVEL_DEVICES + 1)))[0]).toContain("1 to 8 devices");
  const options = (count: number): string =>
    good.replace(
      "lanplus: true",
      many(count, (at) => `o${at}: 1`),
    );
  decodeClusterConfig(options(MAX_FENCE_OPTIONS - 2), "x");
  expect(refusal(options(MAX_FENCE_OPTIONS - 1))[0]).toContain(`at most ${MAX_FENCE_OPTIONS} options`);
  for (const [key, most] of [
    ["timeoutMs: 20000", MAX_FENCE_TIMEOUT_MS],
    ["settleMs: 100", MAX_FENCE_DELAY_MS],
    ["retries: 3", MAX_FENCE_RETRIES],
  ] as const) {
    const [name] = key.split(":");
    decodeClusterConfig(good.replace(key, `${name}: ${most}`), "x");
    expect(refusal(good.replace(key, `${name}: ${most + 1}`))[0]).toContain(`to ${most}`);
  }
});
