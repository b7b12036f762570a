import { describe, expect, it } from "vitest";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { MAX_LAB_NODES, clusterYaml, nodeLayout, parseSize } from "../../../overlay/lab/layout.ts";

const uuid = "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11";

describe("sizes", () => {
  it.each([
    ["2G", 2 * 2 ** 30],
    ["512M", 512 * 2 ** 20],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["64mb", 64 * 2 ** 20],
    ["4096", 4096],
  ])("%s", (text, bytes) => expect(parseSize(text)).toBe(bytes));

  it.each(["", "G", "-1G", "2X", "1e9", "2G 3G", "99999999999T"])("%j is none", (text) => expect(parseSize(text)).toBeNull());
});

describe("the configuration of a lab", () => {
  it.each(["ext4", "directory"] as const)("is one that dlmd accepts (%s)", (lower) => {
    const nodes = Array.from({ length: MAX_LAB_NODES }, (_, at) => nodeLayout("/tmp/lab", "0a1b2c", at + 1));
    const text = clusterYaml("0a1b2c", uuid, lower, nodes, '/tmp/a lab: "x"');
    const config = decodeClusterConfig(text, "cluster.yaml");
    expect(config.fenceDevices.map(({ agent, options }) => [agent, options])).toEqual(
      nodes.map(() => ['/tmp/a lab: "x"/fence_lab', { dir: '/tmp/a lab: "x"' }]),
    );
    expect(config.nodes.map(({ fence }) => fence?.[0]?.[0]?.device)).toEqual(nodes.map(({ node }) => `power-${node}`));
    expect(decodeClusterConfig(clusterYaml("0a1b2c", uuid, lower, nodes, null), "cluster.yaml").fenceDevices).toEqual([]);
    expect(config.cluster).toBe("lab-0a1b2c");
    expect(config.nodes.map(({ name }) => name)).toEqual(nodes.map(({ node }) => node));
    expect(new Set(config.nodes.map(({ address }) => address)).size).toBe(MAX_LAB_NODES);
    expect(config.volumes).toEqual([{ name: "lab", uuid, lower: lower === "directory" ? "directory" : "device" }]);
  });

  it("gives every lab namespaces of its own, and interface names that the kernel accepts", () => {
    const one = nodeLayout("/tmp/one", "000001", MAX_LAB_NODES);
    const other = nodeLayout("/tmp/other", "000002", MAX_LAB_NODES);
    expect(one.netns).not.toBe(other.netns);
    expect(one.port.length).toBeLessThan(16);
  });
});
