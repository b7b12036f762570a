/** The client's side of groups (group-api.ts): requests by number, memberships by name. */
import { AssertionError } from "../base/assert.ts";
import { ByteWriter } from "../base/bytes.ts";
import { OperatingError } from "../base/error.ts";
import { batchHeadBytes, type GroupClientRequest, type GroupEvent, type GroupResult, readBatch } from "../wire/local-group.ts";
import type { Group, GroupChange, GroupHandlers, GroupMember } from "./group-api.ts";

/** Bytes that dlmd has not taken; beyond, "full". */
const unacceptedBytes: number = 16 * 1024 * 1024;
/** What a message costs beside its data. */
const messageCostBytes = 64;

/** What one turn says to one group leaves as one, up to so many messages and bytes; a longer message alone. */
const batchMessages = 1024;
const batchBytes: number = 32 * 1024;

interface Settle {
  readonly done: () => void;
  readonly failed: (reason: Error) => void;
}

interface Pending {
  readonly what: string;
  readonly bytes: number;
  readonly settles: readonly Settle[];
}

/** Of one group, of this turn. */
interface Batch {
  readonly group: string;
  readonly writer: ByteWriter;
  readonly settles: Settle[];
}

/** Of the connection (connection.ts). */
export interface GroupSender {
  send(request: GroupClientRequest): void;
  gather(give: () => void): void;
}

const words: Readonly<Record<Exclude<GroupResult, "accepted">, string>> = {
  "not-joined": "the program is not in the group",
  "joined-already": "this program is in the group already, or leaving it",
  "too-large": "the message is too large",
  "bad-name": "a name of 1 to 64 bytes expected",
  limit: "this node has as many memberships as it may have",
  "not-kept": "the client is not kept for this program",
};

class JoinedGroup implements Group {
  readonly name: string;
  readonly self: GroupMember;
  readonly handlers: GroupHandlers;
  members: readonly GroupMember[] = [];
  /** Settles the join. */
  joined: { readonly done: (group: Group) => void; readonly failed: (reason: Error) => void } | null;
  /** Settle leaves. */
  readonly leaves: { readonly done: () => void; readonly failed: (reason: Error) => void }[] = [];
  over: Error | null = null;
  readonly #groups: Groups;

  constructor(groups: Groups, name: string, self: GroupMember, handlers: GroupHandlers, joined: NonNullable<JoinedGroup["joined"]>) {
    this.#groups = groups;
    this.name = name;
    this.self = self;
    this.handlers = handlers;
    this.joined = joined;
  }

  multicast(data: Uint8Array): Promise<void> {
    if (this.over !== null) return Promise.reject(this.over);
    return this.#groups.say(this.name, data);
  }

  async leave(): Promise<void> {
    if (this.over !== null) throw this.over;
    const left = new Promise<void>((done, failed) => this.leaves.push({ done, failed }));
    // Its failure is that of the request, or of the connection.
    left.catch(() => undefined);
    await this.#groups.ask({ kind: "group-leave", group: this.name });
    await left;
  }

  end(reason: Error, tell = true): void {
    if (this.over !== null) return;
    this.over = reason;
    const { joined } = this;
    this.joined = null;
    for (const { failed } of this.leaves) failed(reason);
    if (joined !== null) joined.failed(reason);
    else if (tell) this.handlers.ended(reason);
  }
}

type Ask = Omit<Extract<GroupClientRequest, { kind: "group-join" | "group-leave" }>, "requestId">;

/** All groups of one connection. */
export class Groups {
  readonly #sender: GroupSender;
  readonly #self: GroupMember;
  readonly #memberships: Map<string, JoinedGroup> = new Map();
  readonly #pending: Map<number, Pending> = new Map();
  #lastId = 0;
  #unaccepted = 0;
  #over: Error | null = null;
  #batch: Batch | null = null;
  readonly #giveBatch = (): void => this.#closeBatch();

  constructor(self: GroupMember, sender: GroupSender) {
    this.#self = self;
    this.#sender = sender;
  }

  join(name: string, handlers: GroupHandlers): Promise<Group> {
    if (this.#over !== null) return Promise.reject(this.#over);
    if (this.#memberships.has(name)) return Promise.reject(refusal(`join of group ${name}`, "joined-already"));
    return new Promise((done, failed) => {
      const membership = new JoinedGroup(this, name, this.#self, handlers, { done, failed });
      this.#memberships.set(name, membership);
      this.ask({ kind: "group-join", group: name }).catch((reason: unknown) => {
        if (this.#memberships.get(name) === membership) this.#memberships.delete(name);
        membership.end(reason as Error);
      });
    });
  }

  ask(request: Ask): Promise<void> {
    if (this.#over !== null) return Promise.reject(this.#over);
    this.#closeBatch();
    return new Promise((done, failed) => {
      const requestId = this.#begin(request.kind, request.group, 0, [{ done, failed }]);
      this.#sender.send({ ...request, requestId });
    });
  }

  /** In the name of a client that is kept for this program (hazard C12). Copies `data`. */
  farewell(clientId: number, group: string, data: Uint8Array): Promise<void> {
    if (this.#over !== null) return Promise.reject(this.#over);
    this.#closeBatch();
    return new Promise((done, failed) => {
      const requestId = this.#begin("group-farewell", group, 0, [{ done, failed }]);
      this.#sender.send({ kind: "group-farewell", requestId, clientId, group, data });
    });
  }

  #begin(kind: GroupClientRequest["kind"], group: string, bytes: number, settles: readonly Settle[]): number {
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#pending.has(this.#lastId));
    this.#pending.set(this.#lastId, { what: `${kind.slice("group-".length)} of group ${group}`, bytes, settles });
    return this.#lastId;
  }

  /** Copies `data`. */
  say(group: string, data: Uint8Array): Promise<void> {
    if (this.#over !== null) return Promise.reject(this.#over);
    const bytes = data.byteLength + messageCostBytes;
    if (this.#unaccepted + bytes > unacceptedBytes && this.#unaccepted > 0) {
      const message = `send of group ${group}: ${this.#unaccepted} bytes wait for dlmd, at most ${unacceptedBytes} may`;
      return Promise.reject(new OperatingError(message, { code: "full", hint: "Await the multicasts before." }));
    }
    this.#unaccepted += bytes;
    return new Promise((done, failed) => {
      const { writer, settles } = this.#openBatch(group, data.byteLength);
      writer.u32(data.byteLength).bytes(data);
      settles.push({ done, failed });
    });
  }

  #openBatch(group: string, bytes: number): Batch {
    const open = this.#batch;
    if (open !== null) {
      const fits = open.settles.length < batchMessages && open.writer.length + batchHeadBytes + bytes <= batchBytes;
      if (open.group === group && fits) return open;
      this.#closeBatch();
    }
    this.#batch = { group, writer: new ByteWriter(Math.max(256, batchHeadBytes + bytes)), settles: [] };
    this.#sender.gather(this.#giveBatch);
    return this.#batch;
  }

  #closeBatch(): void {
    const batch = this.#batch;
    if (batch === null) return;
    this.#batch = null;
    const { group, writer, settles } = batch;
    const count = settles.length;
    const all = writer.view();
    const bytes = all.byteLength + count * (messageCostBytes - batchHeadBytes);
    const requestId = this.#begin("group-send", group, bytes, settles);
    this.#sender.send({ kind: "group-send", requestId, group, count, data: count === 1 ? all.subarray(batchHeadBytes) : all });
  }

  receive(event: GroupEvent): void {
    switch (event.kind) {
      case "group-result":
        return this.#result(event.requestId, event.result);
      case "group-members":
        return this.#members(event.group, event);
      case "group-message":
        return this.#messages(event);
      case "group-ended": {
        const membership = this.#memberships.get(event.group);
        this.#memberships.delete(event.group);
        membership?.end(new OperatingError(`group ${event.group}: ${event.reason}`, { code: "group-ended", hint: "Join it anew." }));
        return;
      }
    }
  }

  #messages({ group, from, seq, count, data }: Extract<GroupEvent, { kind: "group-message" }>): void {
    const membership = this.#memberships.get(group);
    if (membership === undefined) throw new AssertionError(`a message of group ${group}, in which this program is not`);
    const own = this.#isSelf(from);
    let next = seq;
    // One copy of all of them.
    readBatch(count, new Uint8Array(data), (message) =>
      membership.handlers.message({ group, from, seq: next++, data: message, own }, membership),
    );
  }

  #isSelf({ nodeid, incarnation, clientId }: GroupMember): boolean {
    return nodeid === this.#self.nodeid && clientId === this.#self.clientId && incarnation === this.#self.incarnation;
  }

  #result(requestId: number, result: GroupResult): void {
    const pending = this.#pending.get(requestId);
    if (pending === undefined) throw new AssertionError(`a result of group request ${requestId}, which nobody made`);
    this.#pending.delete(requestId);
    this.#unaccepted -= pending.bytes;
    for (const { done, failed } of pending.settles) {
      if (result === "accepted") done();
      else failed(refusal(pending.what, result));
    }
  }

  #members(name: string, { members, joined, left }: GroupChange): void {
    const membership = this.#memberships.get(name);
    if (membership === undefined) throw new AssertionError(`members of group ${name}, in which this program is not`);
    membership.members = members;
    membership.joined?.done(membership);
    membership.joined = null;
    membership.handlers.members({ members, joined, left }, membership);
    if (!left.some(({ member }) => this.#isSelf(member))) return;
    this.#memberships.delete(name);
    membership.over = refusal(`group ${name}`, "not-joined");
    for (const { done } of membership.leaves) done();
  }

  /** The connection is over; `tell`: this program did not end it. */
  end(reason: Error, tell: boolean): void {
    // What was said goes out with the end of the connection.
    this.#closeBatch();
    this.#over = reason;
    for (const { settles } of this.#pending.values()) for (const { failed } of settles) failed(reason);
    this.#pending.clear();
    for (const membership of this.#memberships.values()) membership.end(reason, tell);
    this.#memberships.clear();
  }
}

function refusal(what: string, result: Exclude<GroupResult, "accepted">): OperatingError {
  return new OperatingError(`${what}: ${words[result]}`, { code: result, hint: "The limits of groups are in dlmd/LIMITS.md." });
}
