/**
 * How a cluster changes its configuration without ever having two quorums (hazard C8). Pure: events in, effects out.
 *
 * In each view the lowest member, the coordinator, hears from every member what it keeps (REPORT): the configuration in force, and one that
 * was proposed and not yet decided. The latest in force is given to who is behind; one that was proposed is taken up again, because
 * it may have been decided by somebody who is gone: the one of the latest view wins, as in Viewstamped Replication. Then
 *
 *     PROPOSE     every member puts it on disk beside the one in force, counts by both from then on, and answers STORED
 *     COMMIT      when all members of the view have it, and they are a majority of the old and of the new votes
 *
 * A proposal is never withdrawn. A change moves one node by one vote, so any majority of before meets any majority of after, and two
 * proposals that were made apart cannot both win. Majorities of two versions that do not follow each other need not meet, and a lease
 * outlives the view that gave it: so a new change waits until no lease runs by a version before the one in force ("settled"). Needed of the channel: in order to each member while a connection lasts. After another one
 * was made both ends say again what may have been lost. All messages name their view, and those of another one are not heard.
 *
 * The order is that of the versions: each is decided on the ground of the one before, so all nodes see the same ones in one order, and the
 * ordered channel of the engine (whose delivery would not mean that anything is kept) is not needed. Without quorum it orders nothing, but who
 * is behind is to be given what is in force.
 */
import type { ConfigEffect, ConfigEvent, ConfigMessage, ConfigView, Trail } from "./change-event.ts";
import type { Counting } from "../wire/view-id.ts";
import { type ConfigRecord, type KeptConfig, laterOf, laterPending, offerObjection, type OfferedConfig, votesObjection } from "./record.ts";
import { type AgreedVersion, hasAll, mergeTrails } from "./trail.ts";
import { isMajority } from "./votes.ts";

/** Why that change is not allowed, besides votes; null: it is. */
export type ConfigObjection = (from: ConfigRecord, to: ConfigRecord, members: readonly number[]) => string | null;

/** Requests of one node that wait for their answer, at that node and at the coordinator; more are refused. */
export const MAX_REQUESTS = 8;
const tooMany = `${MAX_REQUESTS} requests wait for an answer already`;
/** Messages of a newer view that wait for it to come here; the oldest goes first, and its view will be followed by another. */
export const MAX_EARLY = 256;

function stepOf({ committed: { version, nodes }, agreedBy }: KeptConfig): AgreedVersion {
  return { version, nodes, agreedBy };
}

interface Proposal {
  readonly record: ConfigRecord;
  readonly stored: Set<number>;
}

export class ConfigChange {
  readonly #self: number;
  readonly #objection: ConfigObjection;
  #kept: KeptConfig;
  #view: ConfigView | null = null;
  #effects: ConfigEffect[] = [];
  #serial = 0;
  readonly #onPersisted = new Map<number, () => void>();
  /** Coordinator: what the members of this view keep; null once all have said it. */
  #reports: Map<number, Pick<KeptConfig, "committed" | "trail" | "pending" | "counting">> | null = null;
  #proposal: Proposal | null = null;
  #early: { from: number; message: ConfigMessage }[] = [];
  /** What the last "settled" said. */
  #settled: { readonly view: string; readonly version: number } | null = null;
  /** Requests that came before all reports, or before the version in force has settled. */
  #waiting: { from: number; requestId: number; record: ConfigRecord }[] = [];
  /** Our own, until answered. */
  readonly #requests = new Map<number, ConfigRecord>();

  constructor(self: number, kept: KeptConfig, objection: ConfigObjection) {
    this.#self = self;
    this.#kept = kept;
    this.#objection = objection;
  }

  get kept(): KeptConfig {
    return this.#kept;
  }

  step(event: ConfigEvent): ConfigEffect[] {
    switch (event.kind) {
      case "view":
        this.#enterView(event.view);
        break;
      case "no-view":
        this.#leaveView();
        break;
      case "message":
        this.#receive(event.from, event.message);
        break;
      case "settled":
        this.#settled = event;
        if (this.#reports === null && this.#view !== null) this.#takeWaiting(this.#view);
        break;
      case "persisted": {
        const then = this.#onPersisted.get(event.serial);
        this.#onPersisted.delete(event.serial);
        then?.();
        break;
      }
      case "apply":
        this.#apply(event.requestId, event.record);
        break;
      case "connected":
        this.#sayAgain(event.nodeid);
        break;
      case "offered":
        this.#receiveOffer(event);
        break;
      case "count-all":
        this.#persist({ ...this.#kept, counting: null }, () => {});
    }
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  // ---------------------------------------------------------------------------------------------------------- views

  #coordinator(view: ConfigView): number {
    return Math.min(...view.members);
  }

  #enterView(view: ConfigView): void {
    // The same view is told again when its service starts or ends. The views of a node ascend by epoch.
    if (this.#view !== null && (view.id === this.#view.id || view.epoch < this.#view.epoch)) return;
    this.#view = view;
    this.#proposal = null;
    this.#waiting = [];
    this.#reports = this.#coordinator(view) === this.#self ? new Map() : null;
    if (view.quorate) this.#agree(view.members);
    this.#report(view);
    const early = this.#early;
    this.#early = [];
    for (const { from, message } of early) this.#receive(from, message);
  }

  #leaveView(): void {
    this.#view = null;
    this.#proposal = null;
    this.#reports = null;
    this.#settled = null;
    this.#waiting = [];
  }

  /** All members of a view have the same in force, or are about to: nobody is let in otherwise. */
  #agree(members: readonly number[]): void {
    const agreedBy = [...new Set([...this.#kept.agreedBy, ...members])].sort((a, b) => a - b);
    if (agreedBy.length > this.#kept.agreedBy.length) this.#persist({ ...this.#kept, agreedBy }, () => {});
  }

  #receiveOffer({ record, agreedBy, trail, counting }: OfferedConfig): void {
    if (record.version <= this.#kept.committed.version) return;
    const reason = offerObjection(this.#kept, { record, agreedBy, trail }, this.#view?.quorate === true);
    if (reason === null) this.#adopt({ record, agreedBy, trail, counting }, null);
    else this.#effects.push({ kind: "declined", reason });
  }

  /** To the coordinator: what is kept here, and what is wanted. */
  #report(view: ConfigView): void {
    const coordinator = this.#coordinator(view);
    const { committed, trail, pending, counting } = this.#kept;
    this.#send(view, coordinator, { kind: "report", committed, trail, pending, counting });
    for (const [requestId, record] of this.#requests) this.#send(view, coordinator, { kind: "request", requestId, record });
  }

  /** All of it may be said twice. */
  #sayAgain(nodeid: number): void {
    const view = this.#view;
    if (view === null || nodeid === this.#self || !view.members.includes(nodeid)) return;
    if (nodeid === this.#coordinator(view)) this.#report(view);
    if (this.#coordinator(view) !== this.#self || this.#reports !== null) return;
    this.#sendCommit(view, nodeid);
    if (this.#proposal !== null) this.#send(view, nodeid, { kind: "propose", record: this.#proposal.record });
  }

  /** To itself at once: a member is treated like any other. */
  #send(
    view: ConfigView,
    to: number,
    message: ConfigMessage extends infer M ? (M extends unknown ? Omit<M, "epoch" | "view"> : never) : never,
  ): void {
    const whole = { epoch: view.epoch, view: view.id, ...message } as ConfigMessage;
    if (to === this.#self) this.#receive(to, whole);
    else this.#effects.push({ kind: "send", to, message: whole });
  }

  #receive(from: number, message: ConfigMessage): void {
    const view = this.#view;
    if (view === null || message.epoch > view.epoch) {
      if (this.#early.length >= MAX_EARLY) this.#early.shift();
      this.#early.push({ from, message });
      return;
    }
    if (message.view !== view.id || !view.members.includes(from)) return;
    const fromCoordinator = from === this.#coordinator(view);
    switch (message.kind) {
      case "report":
        // All were in, or this one is said again.
        if (this.#reports === null || this.#reports.size >= view.members.length) return;
        this.#reports.set(from, message);
        return this.#checkReports(view);
      case "propose":
        return fromCoordinator ? this.#receivePropose(view, message.record) : undefined;
      case "stored":
        if (this.#proposal?.record.fingerprint !== message.fingerprint) return;
        this.#proposal.stored.add(from);
        return this.#checkProposal(view);
      case "commit":
        return fromCoordinator ? this.#adopt({ ...message, agreedBy: view.members }, null) : undefined;
      case "request":
        return this.#receiveRequest(view, from, message.requestId, message.record);
      case "refuse":
        return this.#answer(message.requestId, message.reason);
    }
  }

  // ------------------------------------------------------------------------------------------------------- keeping

  #persist(kept: KeptConfig, then: () => void): void {
    this.#kept = kept;
    const serial = ++this.#serial;
    this.#onPersisted.set(serial, then);
    this.#effects.push({ kind: "persist", serial, kept });
  }

  /** What is in force here, and how it came to that. */
  #sendCommit(view: ConfigView, nodeid: number): void {
    const { committed: record, trail, counting } = this.#kept;
    this.#send(view, nodeid, { kind: "commit", record, trail, counting });
  }

  /** Votes and who counts are known together: who has the votes of a view counts by no electorate of before it (hazard C8). */
  #countingWith(told: Counting | null): Counting | null {
    return laterOf(laterOf(this.#kept.counting, this.#view?.counting ?? null), told);
  }

  /** A configuration that is decided. */
  #adopt({ record, agreedBy, trail, counting }: OfferedConfig, then: (() => void) | null): void {
    const { committed, pending } = this.#kept;
    if (record.version <= committed.version) {
      this.#learn(trail);
      return then?.();
    }
    const open = pending !== null && pending.record.version > record.version ? pending : null;
    const led = mergeTrails(record.version, this.#kept.trail, [stepOf(this.#kept)], trail);
    const kept = { committed: record, agreedBy: agreedBy.toSorted((a, b) => a - b), trail: led, pending: open };
    this.#persist({ ...kept, counting: this.#countingWith(counting) }, () => {
      this.#count();
      this.#effects.push({ kind: "inForce", record });
      for (const [requestId, wanted] of this.#requests) {
        if (wanted.fingerprint === record.fingerprint) this.#answer(requestId, null);
        else if (wanted.version <= record.version)
          this.#answer(requestId, `another configuration became version ${record.version} meanwhile`);
      }
      then?.();
    });
  }

  /** Of how the cluster came to what is in force. A node whose state was lost has forgotten it. */
  #learn(trail: Trail): void {
    const merged = mergeTrails(this.#kept.committed.version, this.#kept.trail, trail);
    if (!hasAll(this.#kept.trail, merged)) this.#persist({ ...this.#kept, trail: merged }, () => {});
  }

  /** As what is kept says: by the one in force, or by that and the proposed one. */
  #count(): void {
    const { committed, pending, counting } = this.#kept;
    this.#effects.push({ kind: "count", record: pending?.record ?? committed, former: pending === null ? null : committed, counting });
  }

  // -------------------------------------------------------------------------------------------------- a member's part

  #receivePropose(view: ConfigView, record: ConfigRecord): void {
    // Whoever proposes has given us the one in force before.
    if (record.version !== this.#kept.committed.version + 1) return;
    const pending = { record, epoch: view.epoch, view: view.id };
    this.#persist({ ...this.#kept, pending, counting: this.#countingWith(null) }, () => {
      this.#count();
      if (this.#view !== view) return;
      this.#send(view, this.#coordinator(view), { kind: "stored", version: record.version, fingerprint: record.fingerprint });
    });
  }

  #apply(requestId: number, record: ConfigRecord): void {
    if (this.#requests.size >= MAX_REQUESTS) {
      this.#effects.push({ kind: "refused", requestId, reason: tooMany });
      return;
    }
    this.#requests.set(requestId, record);
    const { committed } = this.#kept;
    if (record.fingerprint === committed.fingerprint) return this.#answer(requestId, null);
    if (record.version !== committed.version + 1) {
      return this.#answer(
        requestId,
        `version ${committed.version + 1} expected, because ${committed.version} is in force; found ${record.version}`,
      );
    }
    const view = this.#view;
    if (view !== null) this.#send(view, this.#coordinator(view), { kind: "request", requestId, record });
  }

  #answer(requestId: number, reason: string | null): void {
    const record = this.#requests.get(requestId);
    if (record === undefined) return;
    this.#requests.delete(requestId);
    this.#effects.push(reason === null ? { kind: "applied", requestId, record } : { kind: "refused", requestId, reason });
  }

  // --------------------------------------------------------------------------------------------- the coordinator's part

  #checkReports(view: ConfigView): void {
    const reports = this.#reports;
    if (reports === null || reports.size < view.members.length) return;
    const all = [...reports];
    const latest = all.reduce((a, [, { committed }]) => (committed.version > a.version ? committed : a), this.#kept.committed);
    const known = all.flatMap(([, report]) => report.trail);
    const counting = all.map(([, report]) => report.counting).reduce(laterOf, null);
    this.#adopt({ record: latest, agreedBy: view.members, trail: known, counting }, () => {
      if (this.#view !== view) return;
      this.#reports = null;
      const { trail } = this.#kept;
      for (const [nodeid, report] of all) {
        const isBehind = report.committed.version < latest.version || !hasAll(report.trail, trail);
        if (isBehind && nodeid !== this.#self) this.#sendCommit(view, nodeid);
      }
      const open = all.flatMap(([, { pending }]) => (pending !== null && pending.record.version === latest.version + 1 ? [pending] : []));
      const [first] = open;
      if (first !== undefined && view.quorate) this.#propose(view, open.reduce(laterPending, first).record);
      this.#takeWaiting(view);
    });
  }

  #takeWaiting(view: ConfigView): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { from, requestId, record } of waiting) this.#receiveRequest(view, from, requestId, record);
  }

  #wait(view: ConfigView, from: number, requestId: number, record: ConfigRecord): void {
    const known = this.#waiting.filter((waiting) => waiting.from === from);
    if (known.some((waiting) => waiting.requestId === requestId)) return;
    if (known.length < MAX_REQUESTS) this.#waiting.push({ from, requestId, record });
    else this.#send(view, from, { kind: "refuse", requestId, reason: tooMany });
  }

  #receiveRequest(view: ConfigView, from: number, requestId: number, record: ConfigRecord): void {
    if (this.#coordinator(view) !== this.#self) return;
    if (this.#reports !== null) return this.#wait(view, from, requestId, record);
    // Asked again in a new view: its answer comes with COMMIT.
    const known = [this.#proposal?.record.fingerprint, this.#kept.committed.fingerprint];
    if (known.includes(record.fingerprint)) return;
    const reason = this.#requestObjection(view, record);
    if (reason !== null) return this.#send(view, from, { kind: "refuse", requestId, reason });
    const isSettled = this.#settled?.view === view.id && this.#settled.version === this.#kept.committed.version;
    if (isSettled) this.#propose(view, record);
    else this.#wait(view, from, requestId, record);
  }

  #requestObjection(view: ConfigView, record: ConfigRecord): string | null {
    const { committed, pending } = this.#kept;
    if (!view.quorate) return "the cluster is not quorate";
    if (this.#proposal !== null || pending !== null) {
      return `another change to version ${(pending ?? this.#proposal)?.record.version} is under way: see \`coverlay config show\``;
    }
    if (record.version !== committed.version + 1) {
      return `version ${committed.version + 1} expected, because ${committed.version} is in force; found ${record.version}`;
    }
    // By a tie or last_man_standing: it would not be decided, and until then the majority of before counts as well.
    if (!isMajority([committed.nodes], view.members)) {
      return `the members of the view (${view.members.join(", ")}) are not more than half of the votes: start more nodes first`;
    }
    return votesObjection(committed, record, view.members) ?? this.#objection(committed, record, view.members);
  }

  #propose(view: ConfigView, record: ConfigRecord): void {
    this.#proposal = { record, stored: new Set() };
    for (const nodeid of view.members) this.#send(view, nodeid, { kind: "propose", record });
  }

  #checkProposal(view: ConfigView): void {
    const proposal = this.#proposal;
    if (proposal === null || proposal.stored.size < view.members.length) return;
    const { record, stored } = proposal;
    if (!isMajority([this.#kept.committed.nodes, record.nodes], stored)) return;
    this.#proposal = null;
    this.#adopt({ record, agreedBy: view.members, trail: [], counting: null }, () => {
      if (this.#view !== view) return;
      for (const nodeid of view.members) if (nodeid !== this.#self) this.#sendCommit(view, nodeid);
    });
  }
}
