/** Which node this machine is, and that a service waits for its address at a boot. */
import { expect, test } from "vitest";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { ADDRESS_POLL_MS, ownNode } from "../../../dlmd/driver/own-node.ts";

const text = `cluster: lab
version: 1
nodes:
  - { nodeid: 1, name: node1, address: 10.0.0.1 }
  - { nodeid: 2, name: node2, address: 10.0.0.2 }
`;
const config = decodeClusterConfig(text, "cluster.yaml", 1000);

/** `there`: since when each address is. */
function look(
  name: string | undefined,
  limitMs: number,
  there: Readonly<Record<string, number>>,
): { node: Promise<string>; said: string[]; nowMs: () => number } {
  let nowMs = 0;
  const said: string[] = [];
  const node = ownNode(config, name, limitMs, {
    addresses: () => Object.keys(there).filter((address) => (there[address] ?? 0) <= nowMs),
    sleep: async (ms) => void (nowMs += ms),
    nowMs: () => nowMs,
    waits: (why) => void said.push(why),
  }).then((found) => found.name);
  return { node, said, nowMs: () => nowMs };
}

test("the one whose address is here, or the named one", async () => {
  expect(await look(undefined, 0, { "127.0.0.1": 0, "10.0.0.2": 0 }).node).toBe("node2");
  expect(await look("node1", 0, { "10.0.0.2": 0 }).node).toBe("node1");
  await expect(look("nod1", 60_000, {}).node).rejects.toMatchObject({ code: "unknown-node", hint: "Did you mean --node node1?" });
});

test("none or several are refused at once, where no service waits", async () => {
  const none = look(undefined, 0, { "127.0.0.1": 0 });
  await expect(none.node).rejects.toThrow("no node of the configuration has an address of this machine (127.0.0.1)");
  expect(none.said).toEqual([]);
  await expect(look(undefined, 60_000, { "10.0.0.1": 0, "10.0.0.2": 0 }).node).rejects.toThrow("several nodes (node1, node2)");
});

test("a service waits for the address, says so once, and is refused in the end", async () => {
  const late = look(undefined, 60_000, { "10.0.0.1": 7000 });
  expect(await late.node).toBe("node1");
  expect([late.said, late.nowMs()]).toEqual([["waiting for the address of this node: 10.0.0.1 or 10.0.0.2"], 7000]);
  const never = look(undefined, 60_000, {});
  await expect(never.node).rejects.toMatchObject({ code: "unknown-node" });
  expect(never.nowMs()).toBe(60_000);
  // Its sockets say what is wrong.
  const named = look("node2", 10 * ADDRESS_POLL_MS, { "10.0.0.1": 0 });
  expect([await named.node, named.nowMs()]).toEqual(["node2", 10 * ADDRESS_POLL_MS]);
});
