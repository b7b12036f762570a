/** What the tests of the owner's state machine set up and expect again and again, over the model of owner-cluster.ts. */
import { expect } from "vitest";
import type { OwnerEffect } from "../../../overlay/volume/owner-event.ts";
import { type Client, OwnerCluster, seeded } from "./owner-cluster.ts";

export function cluster(seed = 1, nodes = 4): OwnerCluster {
  return new OwnerCluster(nodes, seeded(seed));
}

/** What a mount was told, in order. */
export const kinds = (client: Client): string[] => client.told.map((effect: OwnerEffect) => effect.kind);

/** All that a mount's core asks for from now on, in order. */
export function effectsOf({ core }: Client): OwnerEffect[] {
  const effects: OwnerEffect[] = [];
  const step = core.step.bind(core);
  core.step = (event) => {
    const come = step(event);
    effects.push(...come);
    return come;
  };
  return effects;
}

/** Mounts there, and is the owner when all is quiet. */
export function own(lab: OwnerCluster, nodeid: number): Client {
  const client = lab.start(nodeid);
  lab.settle();
  expect(lab.owner()).toBe(client);
  return client;
}

/** Quiet, and no owner died: one owner, and everybody else goes through it. */
export function expectServed(lab: OwnerCluster): Client {
  const owner = lab.owner();
  if (owner === null) {
    const why = lab.liveClients().map((client) => `${client.nodeid}: ${client.core.why}`);
    throw new Error(`no owner: ${why.join("; ")}`);
  }
  for (const client of lab.liveClients()) {
    expect(client.core.role).toBe(client === owner ? "owner" : "remote");
    expect(client.core.owner).toEqual(owner.core.owner);
  }
  return owner;
}
