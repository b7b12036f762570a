/**
 * Who is in which group, told by the ordered channel itself: joins and leaves are messages like others, so every node has the same table at
 * the same place in the order. A node that is new in a view does not know the table: the lowest member that does sends it first, as it
 * was when the view began, and the newcomer replays on it what it has seen since. It sends nothing before.
 */
import { assertNever } from "../../base/assert.ts";
import { ByteReader, ByteWriter, decodeText } from "../../base/bytes.ts";
import { WireError } from "../../base/error.ts";
import type { StartedView } from "../../wire/order-datagram.ts";
import { hasMember, type Member, readIncarnation, writeIncarnation } from "../../wire/view-id.ts";
import type { EngineCommand, EngineEvent } from "../engine.ts";
import { type CommandResult, type GroupMember, type LeaveReason, maxGroupNameBytes, maxMessageBytes } from "../../wire/group.ts";
import { Assembler, type Message } from "./chunk.ts";

/** Memberships of the cluster: the whole table fits in one message. A join beyond is refused, everywhere alike. */
export const membershipLimit = 8192;
/** Memberships that one node asks for; beyond: "limit". */
export const nodeMembershipLimit = 4096;

export interface GroupsHost {
  push(message: Message): void;
  full(): boolean;
  event(event: EngineEvent): void;
  protest(nodeid: number, message: string): void;
}

interface Group {
  readonly name: string;
  /** In the order of their joins. */
  members: GroupMember[];
  /** Clients of this node among them. */
  local: number[];
}

const noBytes = new Uint8Array(0);

export class Groups {
  /** It knows the table, or there is none. */
  synced = false;
  readonly #self: Member;
  readonly #host: GroupsHost;
  readonly #groups: Map<string, Group> = new Map();
  #memberships = 0;
  readonly #assemblers: Map<number, Assembler> = new Map();
  /** Joins and leaves since the view began, while the table is awaited. */
  #early: { origin: Member; message: Message }[] = [];
  /** What this node's clients asked for: "client/group" to the group's name in UTF-8. */
  readonly #asked: Map<string, Uint8Array> = new Map();
  #last: { bytes: Uint8Array; name: string } = { bytes: noBytes, name: "" };

  constructor(self: Member, host: GroupsHost) {
    this.#self = self;
    this.#host = host;
  }

  // --------------------------------------------------------------------------------------------------------- commands

  command(command: EngineCommand): CommandResult {
    const { group, clientId } = command;
    const key = `${clientId}/${group}`;
    const asked = this.#asked.get(key);
    switch (command.kind) {
      case "join": {
        const name = new TextEncoder().encode(group);
        if (name.byteLength === 0 || name.byteLength > maxGroupNameBytes) return "bad-name";
        if (asked !== undefined) return "joined-already";
        if (this.#asked.size >= nodeMembershipLimit) return "limit";
        // A leave gives that place back at once, so the limit alone bounds nothing that waits for a quorum (hazard H9).
        if (this.#host.full()) return "full";
        this.#asked.set(key, name);
        this.#host.push({ kind: "join", group: name, clientId, data: noBytes });
        return "accepted";
      }
      case "leave":
        if (asked === undefined) return "not-joined";
        this.#asked.delete(key);
        this.#host.push({ kind: command.reason === "left" ? "leave" : "died", group: asked, clientId, data: noBytes });
        return "accepted";
      case "multicast":
        if (asked === undefined) return "not-joined";
        if (command.data.byteLength > maxMessageBytes) return "too-large";
        if (this.#host.full()) return "full";
        this.#host.push({ kind: "data", group: asked, clientId, data: command.data });
        return "accepted";
      default:
        return assertNever(command, "command");
    }
  }

  // --------------------------------------------------------------------------------------------------------- delivery

  deliver(origin: Member, body: Uint8Array): void {
    let assembler = this.#assemblers.get(origin.nodeid);
    if (assembler === undefined) {
      assembler = new Assembler();
      this.#assemblers.set(origin.nodeid, assembler);
    }
    try {
      assembler.packet(body, (message) => this.#message(origin, message));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // The same bytes fail at every member: what is dropped here is dropped everywhere.
      assembler.reset();
      this.#host.protest(origin.nodeid, `ordered packet dropped: ${error.message}`);
    }
  }

  #message(origin: Member, message: Message): void {
    if (message.kind === "groups") {
      if (!this.synced) this.#takeTable(message.data);
      return;
    }
    if (message.kind !== "data" && !this.synced) {
      this.#early.push({ origin, message });
      return;
    }
    const name = this.#nameOf(message.group);
    if (message.kind !== "data") return this.#change(name, origin, message);
    const group = this.#groups.get(name);
    if (group === undefined || group.local.length === 0) return;
    const from = { nodeid: origin.nodeid, incarnation: origin.incarnation, clientId: message.clientId };
    this.#host.event({ kind: "message", group: name, to: group.local, from, data: message.data });
  }

  #nameOf(bytes: Uint8Array): string {
    const last = this.#last;
    if (last.bytes.byteLength === bytes.byteLength && last.bytes.every((byte, i) => byte === bytes[i])) return last.name;
    const name = decodeText(bytes);
    this.#last = { bytes: bytes.slice(), name };
    return name;
  }

  #change(name: string, origin: Member, message: Message): void {
    const member: GroupMember = { nodeid: origin.nodeid, incarnation: origin.incarnation, clientId: message.clientId };
    if (message.kind === "join") return this.#join(name, member);
    const group = this.#groups.get(name);
    const found = group?.members.find((other) => other.nodeid === member.nodeid && other.clientId === member.clientId);
    if (group === undefined || found === undefined) return;
    // The one that leaves is told too, last of all.
    const to = group.local;
    group.members = group.members.filter((other) => other !== found);
    this.#memberships--;
    const reason: LeaveReason = message.kind === "leave" ? "left" : "client-died";
    this.#settle(group);
    if (to.length > 0) {
      this.#host.event({ kind: "members", group: name, to, members: group.members, joined: [], left: [{ member: found, reason }] });
    }
  }

  #join(name: string, member: GroupMember): void {
    const mine = member.nodeid === this.#self.nodeid;
    // Those of the daemons, one for each node, come in always.
    if (this.#memberships >= membershipLimit && member.clientId !== 0) {
      if (mine) {
        this.#asked.delete(`${member.clientId}/${name}`);
        this.#host.event({ kind: "join-refused", group: name, clientId: member.clientId });
      }
      return;
    }
    const group = this.#groups.get(name) ?? { name, members: [], local: [] };
    if (group.members.some((other) => other.nodeid === member.nodeid && other.clientId === member.clientId)) return;
    this.#groups.set(name, group);
    group.members = [...group.members, member];
    this.#memberships++;
    this.#settle(group);
    if (group.local.length > 0) {
      this.#host.event({ kind: "members", group: name, to: group.local, members: group.members, joined: [member], left: [] });
    }
  }

  #settle(group: Group): void {
    group.local = group.members.filter((member) => member.nodeid === this.#self.nodeid).map((member) => member.clientId);
    if (group.members.length === 0) this.#groups.delete(group.name);
  }

  // ------------------------------------------------------------------------------------------------------------ views

  /** A quorate view begins. The message that this node must send first in it: the table, for those who do not know it. */
  enterView({ members, start }: StartedView): Message | null {
    this.#assemblers.clear();
    this.#early = [];
    const knowing = start.together.filter((member) => member.synced).map((member) => member.nodeid);
    this.synced = knowing.length === 0 || knowing.includes(this.#self.nodeid);
    const here = (member: GroupMember): boolean => hasMember(members, member.nodeid, member.incarnation);
    for (const group of this.#groups.values()) this.#dropGone(group, here);
    const newcomers = members.some((member) => !knowing.includes(member.nodeid));
    if (!newcomers || Math.min(...knowing) !== this.#self.nodeid) return null;
    return { kind: "groups", group: noBytes, clientId: 0, data: this.#encodeTable() };
  }

  #dropGone(group: Group, here: (member: GroupMember) => boolean): void {
    const gone = group.members.filter((member) => !here(member));
    if (gone.length === 0) return;
    group.members = group.members.filter(here);
    this.#memberships -= gone.length;
    this.#settle(group);
    if (group.local.length === 0) return;
    const left = gone.map((member) => ({ member, reason: "node-gone" as const }));
    this.#host.event({ kind: "members", group: group.name, to: group.local, members: group.members, joined: [], left });
  }

  #encodeTable(): Uint8Array {
    const w = new ByteWriter(1024, maxMessageBytes).u32(this.#groups.size);
    for (const group of this.#groups.values()) {
      w.string(group.name).u32(group.members.length);
      for (const member of group.members) writeIncarnation(w.u16(member.nodeid), member.incarnation).u32(member.clientId);
    }
    return w.copy();
  }

  #takeTable(data: Uint8Array): void {
    const r = new ByteReader(data);
    this.#groups.clear();
    this.#memberships = 0;
    for (let groups = r.u32(); groups > 0; groups--) {
      const group: Group = { name: r.string(maxGroupNameBytes), members: [], local: [] };
      for (let left = r.u32(); left > 0; left--) {
        group.members.push({ nodeid: r.u16(), incarnation: readIncarnation(r), clientId: r.u32() });
        this.#memberships++;
      }
      this.#groups.set(group.name, group);
    }
    r.end();
    this.synced = true;
    const early = this.#early;
    this.#early = [];
    for (const { origin, message } of early) this.#change(this.#nameOf(message.group), origin, message);
  }

  /** For status and tests. */
  table(): { group: string; members: readonly GroupMember[] }[] {
    return [...this.#groups.values()].map(({ name, members }) => ({ group: name, members }));
  }
}
