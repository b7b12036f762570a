/** All fence agents that are installed here, asked for their metadata, as `coverlay config check` does. */
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { plugOption } from "../../../dlmd/fence-agent/metadata.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";

/** It is a program for a person, and says no metadata. */
const noAgents = new Set(["fence_ack_manual"]);
const installed = readdirSync("/usr/sbin").filter((name) => name.startsWith("fence_") && !noAgents.has(name));

test("every agent of fence-agents says metadata that can be read", async ({ skip }) => {
  if (installed.length === 0) return skip("no fence agent is installed (Debian: fence-agents)");
  const shelf = new MetadataShelf();
  const wrong: string[] = [];
  const plugs = new Map<string | null, number>();
  for (const agent of installed) {
    try {
      const { metadata } = await shelf.read(agent, new AbortController().signal);
      const plug = plugOption(metadata);
      plugs.set(plug, (plugs.get(plug) ?? 0) + 1);
      if (!metadata.parameters.has("action") || metadata.actions.size === 0) wrong.push(`${agent}: no action`);
    } catch (error) {
      wrong.push(`${agent}: ${(error as Error).message}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(plugs.get("plug")).toBeGreaterThan(installed.length / 2);
});
