/**
 * The lock manager as the owner's role sees it: queues, conversions, value blocks and blocking ASTs as in the Linux DLM. Each message has a way
 * ("FROM>TO"), and keeps its order only with others of the same way. When it is delivered is for the test.
 */
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import type { OwnerEffect, OwnerEvent, OwnerLock } from "../../../overlay/volume/owner-event.ts";

export interface LockHolder {
  readonly nodeid: number;
  readonly clientId: number;
}

export interface LockModelPort<Holder> {
  post(way: string, deliver: () => void): void;
  deliver(holder: Holder, event: OwnerEvent): void;
}

type Grant<Holder> = { held: Mode; wanted: Mode; readonly client: Holder; readonly lock: OwnerLock };

class Resource<Holder> {
  readonly granted: Grant<Holder>[] = [];
  readonly converting: Grant<Holder>[] = [];
  readonly waiting: Grant<Holder>[] = [];
  lvb: Uint8Array | null = null;
  lvbValid = true;
  write(lvb: Uint8Array): void {
    this.lvb = lvb;
    this.lvbValid = true;
  }

  get free(): boolean {
    return this.granted.length + this.converting.length + this.waiting.length === 0;
  }
}

const resourceOf = ({ nodeid }: LockHolder, lock: OwnerLock): string =>
  lock === "mounter" ? `mounter.${nodeid}` : lock === "anchor" ? "owner" : lock;

export type LockEffect = Extract<OwnerEffect, { kind: "request" | "unlock" | "probe-mounters" }>;

export class LockModel<Holder extends LockHolder> {
  readonly #resources = new Map<string, Resource<Holder>>();
  readonly #port: LockModelPort<Holder>;

  constructor(port: LockModelPort<Holder>) {
    this.#port = port;
  }

  perform(client: Holder, effect: LockEffect): void {
    switch (effect.kind) {
      case "request":
        return this.#port.post(`${client.clientId}>${resourceOf(client, effect.lock)}`, () =>
          this.#request(client, effect.lock, effect.mode, effect.lvb),
        );
      case "unlock":
        return this.#port.post(`${client.clientId}>${resourceOf(client, effect.lock)}`, () =>
          this.#unlock(client, effect.lock, effect.lvb, effect.invalidate === true),
        );
      case "probe-mounters":
        return this.#port.post(`${client.clientId}>probe`, () => {
          const held = effect.nodeids.filter((nodeid) => (this.#resources.get(`mounter.${nodeid}`)?.granted.length ?? 0) > 0);
          this.#port.post(`probe>${client.clientId}`, () => this.#port.deliver(client, { kind: "mounters", nodeids: held }));
        });
    }
  }

  /** Each resource is purged of its locks at a time of its own. */
  forget(client: Holder, prefix = ""): void {
    for (const name of ["owner", "next", `mounter.${client.nodeid}`])
      this.#port.post(`${prefix}${client.clientId}>${name}`, () => this.#purge(client, name));
  }

  #resource(name: string): Resource<Holder> {
    let resource = this.#resources.get(name);
    if (resource === undefined) this.#resources.set(name, (resource = new Resource()));
    return resource;
  }

  #request(client: Holder, lock: OwnerLock, mode: Mode, lvb?: Uint8Array): void {
    const name = resourceOf(client, lock);
    const resource = this.#resource(name);
    const held = resource.granted.find((grant) => grant.client === client && grant.lock === lock);
    if (held === undefined) {
      resource.waiting.push({ held: Mode.NL, wanted: mode, client, lock });
    } else if (modeCovers(held.held, mode)) {
      if (held.held >= Mode.PW && lvb !== undefined) resource.write(lvb);
      held.held = mode;
      this.#reply(held, name, { lvb: null, lvbValid: false });
    } else {
      resource.granted.splice(resource.granted.indexOf(held), 1);
      resource.converting.push({ ...held, wanted: mode });
    }
    this.#grant(name, resource);
    for (const queued of [...resource.converting, ...resource.waiting]) this.#blockingAsts(name, resource, queued);
  }

  #blockingAsts(name: string, resource: Resource<Holder>, queued: Grant<Holder>): void {
    for (const holder of resource.granted) {
      const { lock, client } = holder;
      if (!modesCompatible(holder.held, queued.wanted)) {
        this.#port.post(`${name}>${client.clientId}`, () => this.#port.deliver(client, { kind: "bast", lock }));
      }
    }
  }

  #grant(name: string, resource: Resource<Holder>): void {
    const fits = (grant: Grant<Holder>): boolean =>
      resource.granted.every((other) => modesCompatible(other.held, grant.wanted)) &&
      resource.converting.every((other) => other === grant || modesCompatible(other.held, grant.wanted));
    const take = (queue: Grant<Holder>[], grant: Grant<Holder>): void => {
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

  #reply({ client, lock }: Grant<Holder>, name: string, value: { lvb: Uint8Array | null; lvbValid: boolean }): void {
    this.#port.post(`${name}>${client.clientId}`, () => this.#port.deliver(client, { kind: "granted", lock, ...value }));
  }

  #unlock(client: Holder, lock: OwnerLock, lvb: Uint8Array | undefined, invalidate: boolean): void {
    const name = resourceOf(client, lock);
    const resource = this.#resource(name);
    const held = resource.granted.find((grant) => grant.client === client && grant.lock === lock);
    if (held === undefined) throw new Error(`client ${client.clientId} unlocks ${lock}, which it does not hold`);
    if (held.held >= Mode.PW && invalidate) resource.lvbValid = false;
    else if (held.held >= Mode.PW && lvb !== undefined) resource.write(lvb);
    resource.granted.splice(resource.granted.indexOf(held), 1);
    this.#port.post(`${name}>${client.clientId}`, () => this.#port.deliver(client, { kind: "unlocked", lock }));
    this.#settleResource(name, resource);
  }

  #purge(client: Holder, name: string): void {
    const resource = this.#resource(name);
    for (const queue of [resource.granted, resource.converting, resource.waiting]) {
      for (const grant of queue.filter((candidate) => candidate.client === client)) {
        if (grant.held >= Mode.PW) resource.lvbValid = false;
        queue.splice(queue.indexOf(grant), 1);
      }
    }
    this.#settleResource(name, resource);
  }

  #settleResource(name: string, resource: Resource<Holder>): void {
    this.#grant(name, resource);
    if (!resource.free) return;
    this.#resources.delete(name); // And the record with it: only the block still knows.
  }
}

/** Between that client and the lock manager, or other nodes: not its disk. */
export function isLockWay(way: string, client: LockHolder): boolean {
  const [from, to] = way.split(">");
  return (from === String(client.clientId) && to !== "disk") || (to === String(client.clientId) && from !== "disk");
}
