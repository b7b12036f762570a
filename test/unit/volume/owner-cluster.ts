/**
 * Several owner cores over a model of the lock manager: queues, conversions, value blocks and blocking ASTs as in the Linux DLM, with
 * every message on its own slow way (in order only for one client and one resource). A step delivers one message, chosen by the seed.
 */
import type { GoneClient } from "../../../dlmd/client/api.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/lock/mode.ts";
import { OwnerCore } from "../../../overlay/volume/owner-core.ts";
import type { OwnerEffect, OwnerEvent, OwnerLock } from "../../../overlay/volume/owner-event.ts";

type Grant = { held: Mode; wanted: Mode; readonly client: Client; readonly lock: OwnerLock };

class Resource {
  readonly granted: Grant[] = [];
  readonly converting: Grant[] = [];
  readonly waiting: Grant[] = [];
  lvb: Uint8Array | null = null;
  lvbValid = true;

  get free(): boolean {
    return this.granted.length + this.converting.length + this.waiting.length === 0;
  }
}

export class Client {
  readonly nodeid: number;
  readonly clientId: number;
  readonly reachesLower: boolean;
  readonly core: OwnerCore;
  dead = false;
  left: { error: Error | null } | null = null;
  mountFails = false;
  releaseFails = false;
  /** The lower is mounted, or being mounted. */
  touching = false;
  readonly told: OwnerEffect[] = [];

  constructor(nodeid: number, clientId: number, nodes: readonly { nodeid: number; name: string }[], reachesLower: boolean) {
    this.nodeid = nodeid;
    this.clientId = clientId;
    this.reachesLower = reachesLower;
    this.core = new OwnerCore({ nodeid, incarnation: `i${nodeid}`, clientId, nodes, reachesLower });
  }

  get live(): boolean {
    return !this.dead && this.left === null;
  }
}

interface Message {
  readonly way: string;
  readonly deliver: () => void;
}

const resourceOf = (client: Client, lock: OwnerLock): string =>
  lock === "mounter" ? `mounter.${client.nodeid}` : lock === "anchor" ? "owner" : lock;

export class OwnerCluster {
  readonly clients: Client[] = [];
  readonly nodes: readonly { nodeid: number; name: string }[];
  /** Nodes whose overlay died with the lower mounted: they may still write. */
  readonly zombies: Set<number> = new Set();
  steps = 0;
  readonly #resources = new Map<string, Resource>();
  #messages: Message[] = [];
  readonly #random: (below: number) => number;
  #epochOnDisk = 0;
  #clientIds = 0;

  constructor(nodes: number, random: (below: number) => number) {
    this.nodes = Array.from({ length: nodes }, (_, at) => ({ nodeid: at + 1, name: `node${at + 1}` }));
    this.#random = random;
  }

  start(nodeid: number, reachesLower = true): Client {
    this.#clientIds += 1;
    const client = new Client(nodeid, this.#clientIds, this.nodes, reachesLower);
    this.clients.push(client);
    // What it had mounted before went with the process (open with O_EXCL proves it).
    this.zombies.delete(nodeid);
    this.#deliver(client, { kind: "start" });
    return client;
  }

  leave(client: Client): void {
    this.#deliver(client, { kind: "leave" });
  }

  kill(client: Client): void {
    client.dead = true;
    if (client.touching) this.zombies.add(client.nodeid);
    this.#forget(client);
  }

  /** Delivers messages until none is left. */
  settle(limit = 100_000): void {
    for (let count = 0; this.stepOnce(); count++) if (count > limit) throw new Error(`not quiet after ${limit} steps`);
  }

  stepOnce(): boolean {
    const ways = [...new Set(this.#messages.map((message) => message.way))];
    if (ways.length === 0) return false;
    const way = ways[this.#random(ways.length)];
    const at = this.#messages.findIndex((message) => message.way === way);
    const [message] = this.#messages.splice(at, 1);
    this.steps += 1;
    message?.deliver();
    return true;
  }

  owner(): Client | null {
    const owners = this.clients.filter((client) => client.live && client.core.role === "owner");
    if (owners.length > 1) throw new Error(`two owners: ${owners.map((owner) => owner.nodeid).join(", ")}`);
    return owners[0] ?? null;
  }

  liveClients(): Client[] {
    return this.clients.filter((client) => client.live);
  }

  #post(way: string, deliver: () => void): void {
    this.#messages.push({ way, deliver });
  }

  #deliver(client: Client, event: OwnerEvent): void {
    if (!client.live) return;
    for (const effect of client.core.step(event)) this.#perform(client, effect);
  }

  #perform(client: Client, effect: OwnerEffect): void {
    switch (effect.kind) {
      case "request": {
        const name = resourceOf(client, effect.lock);
        this.#post(`${client.clientId}>${name}`, () => this.#request(client, effect.lock, effect.mode, effect.lvb));
        return;
      }
      case "unlock": {
        const name = resourceOf(client, effect.lock);
        this.#post(`${client.clientId}>${name}`, () => this.#unlock(client, effect.lock, effect.lvb, effect.invalidate === true));
        return;
      }
      case "probe-mounters":
        this.#post(`${client.clientId}>probe`, () => {
          const held = effect.nodeids.filter((nodeid) => (this.#resources.get(`mounter.${nodeid}`)?.granted.length ?? 0) > 0);
          this.#post(`probe>${client.clientId}`, () => this.#deliver(client, { kind: "mounters", nodeids: held }));
        });
        return;
      case "mount-lower":
        return this.#mount(client, effect.epochAbove);
      case "release-lower":
        this.#post(`${client.clientId}>disk`, () => {
          if (client.dead) return;
          if (client.releaseFails) return this.#deliver(client, { kind: "release-failed", error: new Error("EIO") });
          client.touching = false;
          this.#deliver(client, { kind: "released" });
        });
        return;
      case "left":
        client.left = { error: effect.error };
        if (client.touching) this.zombies.add(client.nodeid);
        this.#forget(client);
        return;
      case "owner-found":
      case "owner-lost":
      case "become-owner":
        client.told.push(effect);
        return;
    }
  }

  #mount(client: Client, epochAbove: number): void {
    const others = this.clients.filter((other) => other !== client && other.live && other.touching).map((other) => other.nodeid);
    const suspects = [...others, ...this.zombies];
    if (suspects.length > 0) throw new Error(`node ${client.nodeid} mounts while node ${suspects.join(", ")} may write`);
    client.touching = true;
    this.#post(`${client.clientId}>disk`, () => {
      if (client.dead) return;
      if (client.mountFails) {
        client.touching = false;
        return this.#deliver(client, { kind: "mount-failed", error: new Error("no such device") });
      }
      this.#epochOnDisk = Math.max(this.#epochOnDisk, epochAbove) + 1;
      this.#deliver(client, { kind: "mounted", epoch: this.#epochOnDisk, address: `10.0.0.${client.nodeid}`, port: 7000 });
    });
  }

  /** Everybody hears of the end, and each resource is purged, at times of their own. */
  #forget(client: Client): void {
    const clients: GoneClient[] = [{ nodeid: client.nodeid, incarnation: `i${client.nodeid}`, clientId: client.clientId }];
    for (const other of this.clients) {
      if (other !== client && other.live) this.#post(`gone>${other.clientId}`, () => this.#deliver(other, { kind: "gone", clients }));
    }
    for (const name of ["owner", "next", `mounter.${client.nodeid}`])
      this.#post(`${client.clientId}>${name}`, () => this.#purge(client, name));
  }

  #resource(name: string): Resource {
    let resource = this.#resources.get(name);
    if (resource === undefined) this.#resources.set(name, (resource = new Resource()));
    return resource;
  }

  #request(client: Client, lock: OwnerLock, mode: Mode, lvb?: Uint8Array): void {
    const name = resourceOf(client, lock);
    const resource = this.#resource(name);
    const held = resource.granted.find((grant) => grant.client === client && grant.lock === lock);
    if (held === undefined) {
      resource.waiting.push({ held: Mode.NL, wanted: mode, client, lock });
    } else if (modeCovers(held.held, mode)) {
      if (held.held >= Mode.PW && lvb !== undefined) {
        resource.lvb = lvb;
        resource.lvbValid = true;
      }
      held.held = mode;
      this.#reply(held, name, { lvb: null, lvbValid: false });
    } else {
      resource.granted.splice(resource.granted.indexOf(held), 1);
      resource.converting.push({ ...held, wanted: mode });
    }
    this.#grant(name, resource);
    for (const queued of [...resource.converting, ...resource.waiting]) this.#blockingAsts(name, resource, queued);
  }

  #blockingAsts(name: string, resource: Resource, queued: Grant): void {
    for (const holder of resource.granted) {
      const { lock } = holder;
      if (!modesCompatible(holder.held, queued.wanted)) {
        this.#post(`${name}>${holder.client.clientId}`, () => this.#deliver(holder.client, { kind: "bast", lock }));
      }
    }
  }

  #grant(name: string, resource: Resource): void {
    const fits = (grant: Grant): boolean =>
      resource.granted.every((other) => modesCompatible(other.held, grant.wanted)) &&
      resource.converting.every((other) => other === grant || modesCompatible(other.held, grant.wanted));
    const take = (queue: Grant[], grant: Grant): void => {
      queue.splice(queue.indexOf(grant), 1);
      grant.held = grant.wanted;
      resource.granted.push(grant);
      this.#reply(grant, name, { lvb: resource.lvb, lvbValid: resource.lvbValid });
    };
    for (const grant of resource.converting.slice()) if (fits(grant)) take(resource.converting, grant);
    while (resource.converting.length === 0) {
      const first = resource.waiting[0];
      if (first === undefined || !fits(first)) return;
      take(resource.waiting, first);
    }
  }

  #reply({ client, lock }: Grant, name: string, value: { lvb: Uint8Array | null; lvbValid: boolean }): void {
    this.#post(`${name}>${client.clientId}`, () => this.#deliver(client, { kind: "granted", lock, ...value }));
  }

  #unlock(client: Client, lock: OwnerLock, lvb: Uint8Array | undefined, invalidate: boolean): void {
    const name = resourceOf(client, lock);
    const resource = this.#resource(name);
    const held = resource.granted.find((grant) => grant.client === client && grant.lock === lock);
    if (held === undefined) throw new Error(`client ${client.clientId} unlocks ${lock}, which it does not hold`);
    if (held.held >= Mode.PW && invalidate) resource.lvbValid = false;
    else if (held.held >= Mode.PW && lvb !== undefined) {
      resource.lvb = lvb;
      resource.lvbValid = true;
    }
    resource.granted.splice(resource.granted.indexOf(held), 1);
    this.#post(`${name}>${client.clientId}`, () => this.#deliver(client, { kind: "unlocked", lock }));
    this.#settleResource(name, resource);
  }

  #purge(client: Client, name: string): void {
    const resource = this.#resource(name);
    for (const queue of [resource.granted, resource.converting, resource.waiting]) {
      for (const grant of queue.filter((candidate) => candidate.client === client)) {
        if (grant.held >= Mode.PW) resource.lvbValid = false;
        queue.splice(queue.indexOf(grant), 1);
      }
    }
    this.#settleResource(name, resource);
  }

  #settleResource(name: string, resource: Resource): void {
    this.#grant(name, resource);
    if (!resource.free) return;
    this.#resources.delete(name);
    // Nobody is left who knows: the next first mounter may own it (this is what fencing will close).
    if (name === "owner") this.zombies.clear();
  }
}
