/**
 * The lab's network: a bridge in a namespace of its own (the hub) and one namespace per node, joined by veth pairs.
 * What a partition or a bad cable does is done by nftables in each node's namespace: those rules are computed here as
 * a whole from the state, and replaced in one transaction. A long cable is one more process (cable.ts).
 */
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { BRIDGE, setCableDelay } from "./cable.ts";
import { describeRun, must, run } from "./command.ts";
import { homeName, hubName, NETNS_DIR, netnsArguments } from "./layout.ts";
import { markedEnvironment } from "./processes.ts";
import { type LabNode, type LabState, labNodes, withLabLock } from "./state.ts";

/** Says that /run/netns became a mount for a lab (ip-netns(8) does that), so that the last lab undoes it. */
const NETNS_MARK = "/run/coverlay-lab.netns";

export async function makeHub(lab: LabState, signal: AbortSignal): Promise<void> {
  const hub = hubName(lab.id);
  const options = { env: markedEnvironment(lab.id, ""), signal };
  await withNetnsDir(async () => {
    if (!mountTable().some(({ mountPoint }) => mountPoint === NETNS_DIR)) writeFileSync(NETNS_MARK, "");
    await must("ip", ["netns", "add", hub], options);
    await must("ip", ["netns", "attach", homeName(lab.id), String(process.pid)], options);
  });
  // Without snooping multicast reaches every port; with it a querier would be needed.
  await must("ip", ["-n", hub, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"], options);
  await must("ip", ["-n", hub, "link", "set", BRIDGE, "up"], options);
}

export async function makeNodeNetwork(lab: LabState, node: LabNode, signal: AbortSignal): Promise<void> {
  const hub = hubName(lab.id);
  const { netns, port, address } = node;
  const options = { env: markedEnvironment(lab.id, ""), signal };
  const ip = (...args: string[]): Promise<string> => must("ip", args, options);
  await ip("netns", "add", netns);
  // IPv4 only: address detection of IPv6 would delay the first packets.
  const noIpv6 = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || :";
  await must("nsenter", netnsArguments(netns, ["sh", "-c", noIpv6]), options);
  await ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns);
  await ip("-n", hub, "link", "set", port, "master", BRIDGE, "up");
  await ip("-n", netns, "link", "set", "lo", "up");
  await ip("-n", netns, "address", "add", `${address}/24`, "dev", "eth0");
  await ip("-n", netns, "link", "set", "eth0", "up");
  await ip("-n", netns, "route", "add", "224.0.0.0/4", "dev", "eth0");
}

/** Pulls or plugs the node's cable at the hub. */
export async function setCable(lab: LabState, node: LabNode, plugged: boolean): Promise<void> {
  await must("ip", ["-n", hubName(lab.id), "link", "set", node.port, plugged ? "up" : "down"]);
}

/**
 * The rules of one node. Input alone is dropped from those of another group (they do the same), so each direction
 * is dropped once; loss falls on both directions.
 */
export function firewallRules(node: LabNode, all: readonly LabNode[]): string {
  const cutOff = all.filter(({ network }) => network.group !== node.network.group).map(({ address }) => address);
  const lossPerMillion = Math.ceil(node.network.lossPercent * 10_000);
  const loss = lossPerMillion === 0 ? [] : [`numgen random mod 1000000 < ${lossPerMillion} drop`];
  const drop = cutOff.length === 0 ? [] : [`ip saddr { ${cutOff.join(", ")} } drop`];
  const clear = ["table inet coverlay", "delete table inet coverlay"];
  if (loss.length + drop.length === 0) return `${clear.join("\n")}\n`;
  return [
    ...clear,
    "table inet coverlay {",
    "  chain input { type filter hook input priority 0; policy accept;",
    ...['iifname "lo" accept', ...drop, ...loss].map((rule) => `    ${rule}`),
    "  }",
    "  chain output { type filter hook output priority 0; policy accept;",
    ...['oifname "lo" accept', ...loss].map((rule) => `    ${rule}`),
    "  }",
    "}",
    "",
  ].join("\n");
}

/** Makes every node's network what lab.json says. */
export async function applyNetwork(lab: LabState): Promise<void> {
  const nodes = labNodes(lab);
  for (const node of nodes) {
    const args = netnsArguments(node.netns, ["nft", "-f", "-"]);
    const result = await run("nsenter", args, { input: firewallRules(node, nodes) });
    if (result.status !== 0) {
      throw new OperatingError(describeRun("nsenter", args, result), {
        code: "nft-failed",
        hint: "Partitions and loss need nftables (Debian: apt-get install nftables) and a kernel with nf_tables and numgen.",
      });
    }
    await setCableDelay(lab, node);
  }
}

/** Removes the lab's namespaces, and with them the bridge and the cables, and the name of its own. */
export async function removeNetworks(lab: LabState): Promise<void> {
  for (const name of [...labNodes(lab).map(({ netns }) => netns), hubName(lab.id), homeName(lab.id)]) {
    if (existsSync(`${NETNS_DIR}/${name}`)) await removeNetns(name);
  }
  await withNetnsDir(undoNetnsMount);
}

/** The last lab may take the mount away while another makes its first namespace there: one of them at a time. */
function withNetnsDir(use: () => Promise<void>): Promise<void> {
  return withLabLock(NETNS_DIR, use);
}

async function removeNetns(name: string): Promise<void> {
  const result = await run("ip", ["netns", "del", name]);
  if (result.status === 0) return;
  // `ip netns add` that was killed in the middle leaves a plain file.
  rmSync(`${NETNS_DIR}/${name}`, { force: true });
}

async function undoNetnsMount(): Promise<void> {
  if (!existsSync(NETNS_MARK) || readdirSync(NETNS_DIR).length > 0) return;
  // Busy: a program that is no lab is making a namespace now.
  const result = await run("umount", [NETNS_DIR]);
  if (result.status === 0) rmSync(NETNS_MARK, { force: true });
}
