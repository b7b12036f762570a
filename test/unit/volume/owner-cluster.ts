/**
 * Several owner cores over a model of the lock manager (test/sim/owner-disk/lock-model.ts), with every message on its own slow way (in order
 * only for one client and one resource). A step delivers one message, chosen by the seed.
 */
import type { GoneClient } from "../../../dlmd/client/api.ts";
import type { Life, Proof } from "../../../overlay/volume/life.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { OwnerCore } from "../../../overlay/volume/owner-core.ts";
import type { Claim, OwnerEffect, OwnerEvent, OwnerLock } from "../../../overlay/volume/owner-event.ts";
import type { ClaimingProcess } from "../../../overlay/volume/owner-record.ts";
import { isLockWay, LockModel } from "../../sim/owner-disk/lock-model.ts";

export class Client {
  readonly nodeid: number;
  readonly clientId: number;
  readonly reachesLower: boolean;
  readonly core: OwnerCore;
  dead = false;
  left: { error: Error | null } | null = null;
  mountFails = false;
  releaseFails = false;
  /** Neither the lock manager nor other nodes are heard; the disk is. */
  cut = false;
  /** The others went on without it. */
  excluded = false;
  /** Its writes do not reach the disk any more. */
  fenced = false;
  /** Its disk is free after a withdrawal, and not clean. */
  letsGo = false;
  /** The lower is mounted, or being mounted. */
  touching = false;
  readonly told: OwnerEffect[] = [];
  /** It waits for ask-again. */
  asksLater = false;
  /** It waits until it reaches the device again. */
  reachesLater = false;
  /** Locks of which a request or an unlock is not answered yet: another one gives EBUSY. */
  readonly busy: Set<OwnerLock> = new Set();
  /** What its proofs came to. */
  readonly proofs: string[] = [];

  constructor(nodeid: number, clientId: number, nodes: readonly { nodeid: number; name: string }[], reachesLower: boolean) {
    this.nodeid = nodeid;
    this.clientId = clientId;
    this.reachesLower = reachesLower;
    this.core = new OwnerCore({ nodeid, incarnation: `i${nodeid}`, clientId, nodes, process: claiming(clientId), reachesLower });
  }

  get live(): boolean {
    return !this.dead && this.left === null;
  }
}

interface Message {
  readonly way: string;
  readonly deliver: () => void;
}

export class OwnerCluster {
  readonly clients: Client[] = [];
  readonly nodes: readonly { nodeid: number; name: string }[];
  /** Nodes whose overlay died with the lower mounted: they may still write, for all that the others know. */
  readonly zombies: Set<number> = new Set();
  /** Those of them that can be proved over. */
  readonly proved: Set<number> = new Set();
  /** The owner's block on the disk. */
  block: OwnerBlock = { volumeUuid: "u", sequence: 0, epoch: 0, atMs: 0, state: "released", life: null };
  blockFails = false;
  /** Nodes whose fence says that it is done, and has done nothing. */
  readonly liars: Set<number> = new Set();
  /** An owner that lets go may write the block after another node has read it: a mount fails then, as takeDevice does. */
  changesMeanwhile = false;
  /** In words: a fence is under way. */
  fencing: string | null = null;
  noBlock = false;
  steps = 0;
  /** What its mounts rested on. */
  readonly claims: Claim[] = [];
  readonly #locks = new LockModel<Client>({
    post: (way, deliver) => this.#post(way, deliver),
    deliver: (client, event) => this.#deliver(client, event),
  });
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

  handOver(client: Client, heir: number): void {
    this.#deliver(client, { kind: "hand-over", heir });
  }

  /** Its disk fails. */
  withdraw(client: Client): void {
    this.#deliver(client, { kind: "withdraw", why: "EIO of a change" });
  }

  /** It hears nobody any more, and nobody hears it. */
  cut(client: Client): void {
    client.cut = true;
  }

  /** The others install a view without it: its locks are theirs. */
  exclude(client: Client): void {
    if (!client.live || !client.cut || client.excluded) return;
    client.excluded = true;
    this.#messages = this.#messages.filter(({ way }) => !isLockWay(way, client));
    this.#forget(client, "purge of ");
  }

  /** It hears the others again: its lock manager has what it had, or the cluster went on without it. */
  heal(client: Client): void {
    if (client.excluded) return this.#deliver(client, { kind: "broken", error: new Error("the cluster went on without this node") });
    client.cut = false;
  }

  /** Its lease ended long ago. */
  selfFence(client: Client): void {
    this.#deliver(client, { kind: "self-fence", why: "without a quorum for more than 3 s" });
  }

  kill(client: Client): void {
    client.dead = true;
    if (client.touching && !client.fenced) this.zombies.add(client.nodeid);
    this.#forget(client);
  }

  /** From now on a proof can be had that the node does not write any more. */
  fence(nodeid: number): void {
    if (!this.liars.has(nodeid)) {
      this.zombies.delete(nodeid);
      for (const client of this.clients) if (client.nodeid === nodeid) client.fenced = true;
    }
    this.proved.add(nodeid);
  }

  askAgain(): void {
    for (const client of this.liveClients().filter((one) => one.asksLater)) {
      client.asksLater = false;
      this.#deliver(client, { kind: "ask-again" });
    }
  }

  /** The time of reach-later is over. */
  reachAgain(): void {
    for (const client of this.liveClients().filter((one) => one.reachesLater)) {
      client.reachesLater = false;
      this.#deliver(client, { kind: "reached", error: this.blockFails ? new Error("damaged") : null });
    }
  }

  /** Delivers messages until none is left. */
  settle(limit = 100_000): void {
    for (let count = 0; this.stepOnce(); count++) if (count > limit) throw new Error(`not quiet after ${limit} steps`);
  }

  stepOnce(): boolean {
    const cut = this.clients.filter((client) => client.cut);
    const open = this.#messages.filter(({ way }) => !cut.some((client) => isLockWay(way, client)));
    const ways = [...new Set(open.map((message) => message.way))];
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
    if (event.kind === "granted" || event.kind === "unlocked") client.busy.delete(event.lock);
    for (const effect of client.core.step(event)) this.#perform(client, effect);
  }

  #perform(client: Client, effect: OwnerEffect): void {
    if (effect.kind === "request" || effect.kind === "unlock") {
      if (client.busy.has(effect.lock)) throw new Error(`EBUSY: client ${client.clientId}, ${effect.kind} of ${effect.lock}`);
      client.busy.add(effect.lock);
    }
    switch (effect.kind) {
      case "request":
      case "unlock":
      case "probe-mounters":
        return this.#locks.perform(client, effect);
      case "read-owner-block":
        this.#post(`${client.clientId}>disk`, () => {
          if (this.blockFails) this.#deliver(client, { kind: "owner-block-failed", error: new Error("damaged") });
          else this.#deliver(client, { kind: "owner-block", block: this.noBlock ? null : this.block });
        });
        return;
      case "prove-gone":
        this.#post(`${client.clientId}>proof`, () => {
          const proof = this.#prove(client, effect.life);
          client.proofs.push(proof.kind);
          this.#deliver(client, { kind: "proved", proof });
        });
        return;
      case "ask-later":
        client.asksLater = true;
        return;
      case "reach-later":
        client.reachesLater = true;
        return;
      case "mount-lower":
        return this.#mount(client, effect.epochAbove, effect.claim);
      case "release-lower":
        this.#post(`${client.clientId}>disk`, () => {
          if (client.dead) return;
          if (client.fenced)
            return this.#deliver(client, { kind: "release-failed", error: new Error("EIO after the fence"), letGo: false });
          if (client.releaseFails) return this.#deliver(client, { kind: "release-failed", error: new Error("EIO"), letGo: false });
          client.touching = false;
          // The block names it still.
          if (client.letsGo) return this.#deliver(client, { kind: "release-failed", error: new Error("not clean"), letGo: true });
          if (this.block.life?.clientId !== client.clientId) throw new Error(`node ${client.nodeid} writes to a disk that is another's`);
          this.#write({ state: "released" });
          this.#deliver(client, { kind: "released" });
        });
        return;
      case "left":
        client.left = { error: effect.error };
        if (client.touching && !client.fenced) this.zombies.add(client.nodeid);
        this.#forget(client);
        return;
      case "withdrawal-seen":
      case "owner-found":
      case "owner-lost":
      case "become-owner":
        client.told.push(effect);
        return;
    }
  }

  #prove(client: Client, life: Life): Proof {
    // Its own node's: start() has seen that process go.
    if (life.nodeid === client.nodeid) return { kind: "ended" };
    const writes =
      this.zombies.has(life.nodeid) || this.clients.some((one) => one.clientId === life.clientId && one.touching && !one.fenced);
    // What the disk shows after the fence (quiet-disk.ts).
    if (this.proved.has(life.nodeid) && writes) return { kind: "none", why: `the fence of node${life.nodeid} lied` };
    if (this.proved.has(life.nodeid)) return { kind: "fenced" };
    if (this.fencing !== null) return { kind: "none", why: this.fencing, underWay: true };
    return { kind: "none", why: `node ${life.nodeid} does not answer` };
  }

  #write(change: { readonly state: "released" } | { readonly state: "owned"; readonly epoch: number; readonly life: Life }): void {
    const { volumeUuid, sequence, atMs } = this.block;
    this.block = { ...this.block, ...change, volumeUuid, sequence: sequence + 1, atMs };
  }

  #mount(client: Client, epochAbove: number, claim: Claim): void {
    const others = this.clients
      .filter((other) => other !== client && other.live && other.touching && !other.fenced)
      .map((other) => other.nodeid);
    const suspects = [...others, ...this.zombies];
    if (suspects.length > 0) throw new Error(`node ${client.nodeid} mounts while node ${suspects.join(", ")} may write`);
    if (!this.noBlock && claim.block?.sequence !== this.block.sequence) {
      if (!this.changesMeanwhile) throw new Error("the block was changed since it was read");
      return this.#post(`${client.clientId}>disk`, () =>
        this.#deliver(client, { kind: "mount-failed", error: new Error("owner-changed") }),
      );
    }
    if (!this.noBlock && this.block.state === "owned" && claim.proof === null) throw new Error("the life in the block was not proved over");
    const epoch = epochAbove + 1;
    if (epoch <= this.block.epoch) throw new Error(`epoch ${epoch} after ${this.block.epoch}`);
    this.claims.push(claim);
    this.proved.delete(client.nodeid);
    this.#write({ state: "owned", epoch, life: lifeOf(client, epoch) });
    client.touching = true;
    this.#post(`${client.clientId}>disk`, () => {
      if (client.dead) return;
      if (client.mountFails) {
        client.touching = false;
        this.#write({ state: "released" });
        return this.#deliver(client, { kind: "mount-failed", error: new Error("no such device") });
      }
      this.#epochOnDisk = Math.max(this.#epochOnDisk, epochAbove) + 1;
      this.#deliver(client, { kind: "mounted", epoch: this.#epochOnDisk, address: `10.0.0.${client.nodeid}`, port: 7000 });
    });
  }

  /** Everybody hears of the end, and each resource is purged, at times of their own. */
  #forget(client: Client, prefix = ""): void {
    const clients: GoneClient[] = [{ nodeid: client.nodeid, incarnation: `i${client.nodeid}`, clientId: client.clientId }];
    for (const other of this.clients) {
      if (other !== client && other.live) this.#post(`gone>${other.clientId}`, () => this.#deliver(other, { kind: "gone", clients }));
    }
    this.#locks.forget(client, prefix);
  }
}

function lifeOf(client: Client, epoch: number): Life {
  const { nodeid, clientId } = client;
  return {
    nodeid,
    incarnation: `i${nodeid}`,
    clientId,
    epoch,
    hostName: "h",
    ...claiming(clientId),
    startTime: 1n,
  };
}

function claiming(clientId: number): ClaimingProcess {
  return { bootId: "b", machineId: "m", pid: clientId, startTime: 1, device: "/dev/d" };
}

/** Random numbers of one seed for a cluster: whole ones, from 0 to below - 1 (mulberry32). */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}
