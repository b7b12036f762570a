/**
 * Which node of the configuration this machine is. A service of systemd may be started at a boot before the machine has its address: it waits for that,
 * since mounts that require the service fail with its first start (systemd.unit(5), Requires=).
 */
import { OperatingError } from "../base/error.ts";
import { nearestWord } from "../base/nearest.ts";
import type { ClusterConfig } from "../config/cluster-config.ts";
import type { NodeConfig } from "../config/votes.ts";

/** Shorter than the unit's TimeoutStartSec. */
export const ADDRESS_LIMIT_MS = 60_000;
/** Node.js tells nothing of a new address. */
export const ADDRESS_POLL_MS = 500;

export interface OwnNodePort {
  /** Of all interfaces of this machine. */
  readonly addresses: () => readonly string[];
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
  /** Once, when it begins to wait. */
  readonly waits: (why: string) => void;
}

function namedNode(config: ClusterConfig, name: string): NodeConfig {
  const node = config.nodes.find((each) => each.name === name);
  if (node !== undefined) return node;
  const names = config.nodes.map((each) => each.name);
  const nearest = nearestWord(name, names);
  throw new OperatingError(`node ${name} is not in the configuration, which has ${names.join(", ")}`, {
    code: "unknown-node",
    hint: nearest === null ? "Name one of those with --node." : `Did you mean --node ${nearest}?`,
  });
}

/**
 * The named one, else the one whose address an interface of this machine has. `limitMs`: that address is waited for so long; a named node is given without
 * it then. Rejects with OperatingError "unknown-node".
 */
export async function ownNode(
  config: ClusterConfig,
  name: string | undefined,
  limitMs: number,
  { addresses, sleep, nowMs, waits }: OwnNodePort,
): Promise<NodeConfig> {
  const named = name === undefined ? null : namedNode(config, name);
  const candidates = named === null ? config.nodes : [named];
  const endMs = nowMs() + limitMs;
  for (let waiting = false; ; ) {
    const here = addresses();
    const found = candidates.filter((each) => here.includes(each.address));
    const [node] = found;
    if (node !== undefined && found.length === 1) return node;
    if (nowMs() >= endMs || found.length > 1) return named ?? refuse(found, here);
    if (!waiting) waits(`waiting for the address of this node: ${candidates.map((each) => each.address).join(" or ")}`);
    waiting = true;
    await sleep(ADDRESS_POLL_MS);
  }
}

function refuse(found: readonly NodeConfig[], here: readonly string[]): never {
  const what = found.length === 0 ? "no node" : `several nodes (${found.map((each) => each.name).join(", ")})`;
  throw new OperatingError(`${what} of the configuration has an address of this machine (${[...new Set(here)].join(", ")})`, {
    code: "unknown-node",
    hint: "Say which node this is with --node, or correct the addresses.",
  });
}
