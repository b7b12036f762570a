/** A simulated mount: the real core of a mounter, a socket with delays to the dlmd of its node, and stand-ins for its sessions and its disk. */
import { Mounter, type MounterEffect, type MounterEvent } from "../../../dlmd/mount-group/mounter.ts";
import type { EngineCommand } from "../../../dlmd/engine/engine.ts";
import { type DirtyJid, type MounterId, mountGroupName } from "../../../dlmd/wire/mount-group.ts";
import type { EngineSimNode } from "../engine/sim-node.ts";
import type { MountGroupSim } from "./mount-group-sim.ts";

export const group: string = mountGroupName("5d1ac35a-8a3c-4a3b-93d5-36d3c4ab3f2e");

export function nameOf({ nodeid, incarnation, clientId }: MounterId): string {
  return `${nodeid}.${incarnation}/${clientId}`;
}

type Queued = { readonly kind: "multicast"; readonly data: Uint8Array } | { readonly kind: "join" } | { readonly kind: "leave" };

export class SimMounter {
  readonly node: EngineSimNode;
  readonly id: MounterId;
  readonly core: Mounter;
  /** Its process runs. */
  alive = true;
  /** It said "bye", and its end is a clean one. */
  leaving = false;
  /** Its join, and the end of its membership, were delivered to it. */
  joined = false;
  left = false;
  usesJid: number | null = null;
  blocked = true;
  /** Of the owner that it goes through; 0: none was found. */
  ownerEpoch = 0;
  mounted = false;
  /** Of the owner at which all its files are open; 0: of none. */
  filesAt = 0;
  /** Its programs have files open. */
  hasFiles = false;
  /** As the owner, of that epoch: mounters whose files are open here. */
  ownEpoch = 0;
  readonly reopenedHere: Set<SimMounter> = new Set();
  /** What it has to put in order and to let go of, the newest only. */
  letGo: { readonly round: number; readonly dead: readonly DirtyJid[] } | null = null;
  recover: { readonly round: number; readonly jid: number | null } | null = null;
  /** Mounters whose unclean end it was told of. */
  readonly deadSeen: Set<string> = new Set();
  readonly #sim: MountGroupSim;
  readonly #queue: Queued[] = [];
  #inFlight = false;
  #lastArrivalMs = 0;
  /** Deliveries that are under way to it. */
  readonly #inbox: (() => void)[] = [];

  constructor(sim: MountGroupSim, node: EngineSimNode, clientId: number) {
    this.#sim = sim;
    this.node = node;
    this.id = { nodeid: node.nodeid, incarnation: node.incarnation, clientId };
    this.core = new Mounter(this.id);
  }

  join(): void {
    this.#enqueue({ kind: "join" });
  }

  get name(): string {
    return nameOf(this.id);
  }

  /** Its node runs still in the life in which it was started. */
  get hasNode(): boolean {
    return this.node.alive && this.node.incarnation === this.id.incarnation;
  }

  /** It runs, and acts. */
  get isLiving(): boolean {
    return this.alive && this.hasNode;
  }

  /** Ends it without a word; its dlmd notices a little later. */
  kill(noticedAfterMs: number): void {
    if (!this.isLiving) return;
    this.alive = false;
    this.#queue.length = 0;
    this.#sim.after(noticedAfterMs, () => {
      if (!this.hasNode) return;
      this.node.command(
        () => ({ kind: "leave", group, clientId: this.id.clientId, reason: "client-died" }),
        () => {},
      );
    });
  }

  /** Ends it cleanly. */
  leave(): void {
    if (!this.isLiving || this.leaving || !this.joined) return;
    this.leaving = true;
    this.step({ kind: "leave" });
    this.#enqueue({ kind: "leave" });
  }

  ownerFound(epoch: number): void {
    this.ownerEpoch = epoch;
    this.#sim.reopen(this, epoch);
    if (!this.blocked) this.#sim.checker.goesOn(this);
  }

  step(event: MounterEvent): void {
    if (!this.isLiving) return;
    for (const effect of this.core.step(event)) this.#perform(effect);
    this.#sim.checker.stepped(this);
    this.reportReopened();
  }

  /** As the owner: mounters that have opened their files here, and of which the group does not know it. */
  reportReopened(): void {
    const here = new Set([...this.reopenedHere].map(({ name }) => name));
    for (const one of this.core.toReopen) {
      if (!here.has(nameOf(one))) continue;
      for (const effect of this.core.step({ kind: "reopened", mounter: one })) this.#perform(effect);
    }
  }

  #perform(effect: MounterEffect): void {
    if (effect.kind !== "say") this.#sim.trace(`${this.name} ${JSON.stringify(effect)}`);
    switch (effect.kind) {
      case "say":
        return this.#enqueue({ kind: "multicast", data: effect.data });
      case "jid":
        this.usesJid = effect.jid;
        this.#sim.checker.jidGiven(this, effect.jid);
        return this.#sim.ready(this);
      case "block":
        this.blocked = effect.blocked;
        if (!effect.blocked) this.#sim.checker.goesOn(this);
        return;
      case "claim-known":
        return this.#sim.claimKnown(this);
      case "let-go":
        this.letGo = effect;
        return this.#sim.letGo(this, effect);
      case "settle":
        return this.#sim.checker.settled(this);
      case "recover":
        this.recover = effect;
        return this.#sim.recover(this, effect);
      case "refused":
      case "ignored":
        return this.#sim.fail(`${this.name}: ${effect.kind}: ${effect.reason}`);
    }
  }

  // ------------------------------------------------------------------------------------------------- its dlmd's socket

  #enqueue(command: Queued): void {
    this.#queue.push(command);
    this.pump();
  }

  /** The next command, if there is one: again after "room". */
  pump(): void {
    const next = this.#queue[0];
    if (next === undefined || this.#inFlight || !this.isLiving) return;
    this.#inFlight = true;
    const { clientId } = this.id;
    const command: EngineCommand =
      next.kind === "multicast"
        ? { kind: "multicast", group, clientId, data: next.data }
        : next.kind === "join"
          ? { kind: "join", group, clientId }
          : { kind: "leave", group, clientId, reason: "left" };
    this.node.command(
      () => command,
      (result) => {
        this.#inFlight = false;
        if (!this.alive) return;
        if (result === "full") return;
        if (result !== "accepted") this.#sim.fail(`${this.name}: ${next.kind} ended with ${result}`);
        this.#queue.shift();
        this.pump();
      },
    );
  }

  /** From its dlmd, in order, after some time. */
  deliver(run: () => void, delayMs: number): void {
    const { nowMs } = this.#sim.engines.agenda;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, nowMs + delayMs);
    this.#inbox.push(run);
    this.#sim.after(this.#lastArrivalMs - nowMs, () => {
      const next = this.#inbox.shift();
      if (this.isLiving && !this.left) next?.();
    });
  }
}
