/** What single faults are shown with: a cluster of simulated engines, and what is asked of it. */
import { expect } from "vitest";
import type { EngineEvent, EngineView } from "../../../dlmd/engine/engine.ts";
import { EngineSim, type EngineSimOptions } from "./engine-sim.ts";
import type { EngineSimNode } from "./sim-node.ts";

export function cluster(nodes: number, options: Partial<EngineSimOptions> = {}): EngineSim {
  const sim = new EngineSim({ seed: 7, nodes, ...options });
  for (const node of sim.nodes) node.start();
  return sim;
}

export function members(node: EngineSimNode): string {
  const { view } = node.engine.membership;
  return view === null || node.engine.membership.stopped ? "" : view.members.map((member) => member.nodeid).join(" ");
}

export function until(sim: EngineSim, what: string, condition: () => boolean): void {
  expect(sim.runUntil(condition, 40 * sim.timeoutMs), `${what}\n${sim.lastEvents()}`).toBe(true);
}

export function together(sim: EngineSim, ...nodeids: number[]): void {
  until(sim, `nodes ${nodeids.join(" ")} together`, () => nodeids.every((nodeid) => members(sim.node(nodeid)) === nodeids.join(" ")));
}

export function join(sim: EngineSim, ...nodeids: number[]): void {
  for (const nodeid of nodeids)
    sim.node(nodeid).command(
      () => ({ kind: "join", group: "g", clientId: 1 }),
      () => {},
    );
  until(sim, "joined", () => nodeids.every((nodeid) => groupOf(sim.node(nodeid)).length === nodeids.length));
}

export function groupOf(node: EngineSimNode): number[] {
  return (
    node.engine.groups
      .table()[0]
      ?.members.map((member) => member.nodeid)
      .toSorted((a, b) => a - b) ?? []
  );
}

export function say(node: EngineSimNode, n: number, bytes = 8): void {
  const data = new Uint8Array(bytes);
  new DataView(data.buffer).setUint32(0, n, true);
  for (let i = 4; i < bytes; i += 97) data[i] = n + i;
  node.command(
    () => ({ kind: "multicast", group: "g", clientId: 1, data }),
    () => {},
  );
}

export function heard(node: EngineSimNode): string[] {
  return node.events
    .filter((event): event is Extract<EngineEvent, { kind: "message" }> => event.kind === "message")
    .map((event) => `${event.from.nodeid}:${new DataView(event.data.buffer, event.data.byteOffset).getUint32(0, true)}`);
}

export function lastView(node: EngineSimNode): EngineView | undefined {
  return node.events.findLast((event) => event.kind === "view")?.view;
}
