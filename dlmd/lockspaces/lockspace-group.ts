/**
 * Which nodes have a lockspace open, and in which life: agreed upon by ordered messages of the engine (README.md of this room). A death concerns
 * the lockspaces that the dead node had open. dlm_controld keeps the same by one CPG group for each lockspace.
 *
 * "Agreed" is not "safe" (hazard M6): a node may be the only one that has delivered its own message. So it uses a lockspace only when all members
 * have said that they know.
 */
import { WireError } from "../base/error.ts";
import { DaemonGroup } from "../engine/daemon-group.ts";
import type { EngineCommand, EngineEvent, EngineView } from "../engine/engine.ts";
import type { CommandResult } from "../wire/group.ts";
import {
  decodeLockspaceMessage,
  encodeLockspaceMessage,
  LOCKSPACE_GROUP,
  type LockspaceMessage,
  MAX_OPEN_LOCKSPACES,
} from "../wire/lockspace-group.ts";
import type { Member } from "../wire/view-id.ts";

export interface LockspaceGroupPort {
  command(command: EngineCommand): CommandResult;
  /** All members know that this node has it open: its clients may be granted locks there. */
  usable(lockspace: string): void;
  /** A peer sent what it cannot have meant. */
  protest(nodeid: number, message: string): void;
}

/** What this node's own clients have open. */
interface Own {
  /** Of the message that opened it. */
  readonly no: number;
  /** Every member knows. It stays so: who joins later hears of it by our list. */
  usable: boolean;
}

/** A member of the view. `lockspaces` null: what it has open is not known here, which counts as all. */
interface Known {
  readonly incarnation: string;
  lockspaces: Set<string> | null;
  /** It has delivered what this node had opened up to that number. */
  heard: number;
}

export class LockspaceGroup {
  readonly #self: Member;
  readonly #port: LockspaceGroupPort;
  readonly #own: Map<string, Own> = new Map();
  #lastNo = 0;
  /** Of the last quorate view, by nodeid. */
  #members: Map<number, Known> = new Map();
  /** Those of the one before that are not in it. */
  #departed: readonly (Member & { readonly lockspaces: ReadonlySet<string> | null })[] = [];
  /** Our own join was ordered: from then on all messages come here. */
  #joined = false;
  readonly #group: DaemonGroup<LockspaceMessage>;
  /** By nodeid: the last number that was delivered here, and is not yet acknowledged. */
  readonly #due: Map<number, number> = new Map();

  constructor(self: Member, port: LockspaceGroupPort) {
    this.#self = { nodeid: self.nodeid, incarnation: self.incarnation };
    this.#port = port;
    this.#group = new DaemonGroup(LOCKSPACE_GROUP, {
      command: (command) => port.command(command),
      encode: encodeLockspaceMessage,
      enterView: (view) => this.#enterView(view),
      loseQuorum: () => undefined,
      membersChanged: ({ joined }) => {
        // What is ordered before it joined does not come to it.
        this.#joined ||= joined.some(({ nodeid }) => nodeid === self.nodeid);
        if (joined.some(({ nodeid }) => nodeid !== self.nodeid)) this.#sayList();
      },
      receive: (from, data) => this.#message(from, data),
    });
  }

  /** The engine was given something to do. */
  get touched(): boolean {
    return this.#group.touched;
  }
  set touched(touched: boolean) {
    this.#group.touched = touched;
  }

  // ------------------------------------------------------------------------------------------- this node's lockspaces

  /** The first client opens it. False: as many are open as may be. */
  open(lockspace: string): boolean {
    if (this.#own.size >= MAX_OPEN_LOCKSPACES) return false;
    const no = ++this.#lastNo;
    this.#own.set(lockspace, { no, usable: false });
    this.#group.say({ kind: "lockspace-opened", no, lockspace });
    return true;
  }

  /** The last client is gone, and so are all its locks. */
  close(lockspace: string): void {
    this.#own.delete(lockspace);
    this.#group.say({ kind: "lockspace-closed", lockspace });
  }

  isUsable(lockspace: string): boolean {
    return this.#own.get(lockspace)?.usable === true;
  }

  #sayList(): void {
    this.#group.sayInstead({ kind: "lockspace-list", no: this.#lastNo, lockspaces: [...this.#own.keys()] });
  }

  /** Lockspaces wait until all members know that this node has them open. */
  #review(): void {
    let known = Number.POSITIVE_INFINITY;
    for (const { heard } of this.#members.values()) known = Math.min(known, heard);
    for (const [lockspace, own] of this.#own) {
      if (own.usable || own.no > known) continue;
      own.usable = true;
      this.#port.usable(lockspace);
    }
  }

  /** That life of that node has delivered what this one had opened up to `no`. */
  receiveKnown({ nodeid, incarnation }: Member, no: number): void {
    const member = this.#members.get(nodeid);
    if (member?.incarnation !== incarnation || no <= member.heard) return;
    member.heard = no;
    this.#review();
  }

  /** What is to be said to those members: that their messages were delivered here. */
  takeAcknowledgements(members: readonly Member[]): { readonly nodeid: number; readonly no: number }[] {
    if (this.#due.size === 0 || !this.#group.inView) return [];
    const said = [...this.#due].filter(([nodeid]) => members.some((member) => member.nodeid === nodeid));
    for (const [nodeid] of said) this.#due.delete(nodeid);
    return said.map(([nodeid, no]) => ({ nodeid, no }));
  }

  // ---------------------------------------------------------------------------------------------------------- events

  /** Of the engine, in order; of messages and members, those of this group. */
  event(event: EngineEvent): void {
    this.#group.event(event);
  }

  #enterView(view: EngineView): void {
    const before = this.#members;
    const departed: (Member & { readonly lockspaces: ReadonlySet<string> | null })[] = [];
    const members = new Map<number, Known>();
    const isTogether = (nodeid: number): boolean => view.together.includes(nodeid);
    for (const { nodeid, incarnation } of view.members) {
      const known = before.get(nodeid);
      // Who was in no quorate view before was granted nothing. Before our own join what it says may not have come here.
      const fresh = !isTogether(nodeid) && (this.#joined || nodeid === this.#self.nodeid);
      if (known?.incarnation === incarnation) members.set(nodeid, known);
      else members.set(nodeid, { incarnation, lockspaces: fresh ? new Set() : null, heard: 0 });
    }
    for (const [nodeid, { incarnation, lockspaces }] of before) {
      if (members.get(nodeid)?.incarnation !== incarnation) departed.push({ nodeid, incarnation, lockspaces });
    }
    this.#members = members;
    this.#departed = departed;
    this.#due.clear();
    this.#sayList();
    this.#review();
  }

  #message(from: Member, data: Uint8Array): void {
    const member = this.#members.get(from.nodeid);
    if (member?.incarnation !== from.incarnation) return;
    let message: LockspaceMessage;
    try {
      message = decodeLockspaceMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // The same bytes fail at every member.
      member.lockspaces = null;
      return this.#port.protest(from.nodeid, `message about lockspaces that cannot be read: ${error.message}`);
    }
    if (message.kind === "lockspace-closed") {
      member.lockspaces?.delete(message.lockspace);
      return;
    }
    if (message.kind === "lockspace-opened") member.lockspaces?.add(message.lockspace);
    else member.lockspaces = new Set(message.lockspaces);
    this.#delivered(from.nodeid, member, message.no);
  }

  #delivered(nodeid: number, member: Known, no: number): void {
    if (nodeid !== this.#self.nodeid) {
      this.#due.set(nodeid, no);
      return;
    }
    member.heard = no;
    this.#review();
  }

  // --------------------------------------------------------------------------------------------------------- answers

  /** What that node had open, of the last quorate view or of the one before; null: not known, which counts as all. */
  openedBy({ nodeid, incarnation }: Member): ReadonlySet<string> | null {
    const member = this.#members.get(nodeid);
    if (member?.incarnation === incarnation) return member.lockspaces;
    return this.#departed.find((one) => one.nodeid === nodeid && one.incarnation === incarnation)?.lockspaces ?? null;
  }

  /** By name: the nodeids that have it open, ascending. */
  table(): Map<string, number[]> {
    const found = new Map<string, number[]>();
    for (const [nodeid, { lockspaces }] of [...this.#members].sort(([a], [b]) => a - b)) {
      for (const lockspace of lockspaces ?? []) found.set(lockspace, [...(found.get(lockspace) ?? []), nodeid]);
    }
    return found;
  }

  /** Members of which it is not known here what they have open. */
  unknown(): number[] {
    return [...this.#members].filter(([, { lockspaces }]) => lockspaces === null).map(([nodeid]) => nodeid);
  }
}
