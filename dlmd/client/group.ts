/** The client's side of groups (group-api.ts): requests by number, memberships by name. */
import { assert } from "../base/assert.ts";
import { OperatingError } from "../base/error.ts";
import type { GroupClientRequest, GroupEvent, GroupResult } from "../wire/local-group.ts";
import type { Group, GroupChange, GroupHandlers, GroupMember } from "./group-api.ts";

/** Bytes that dlmd has not taken; beyond, "full". */
const unacceptedBytes: number = 16 * 1024 * 1024;
/** What a message costs beside its data. */
const messageCostBytes = 64;

interface Pending {
  readonly what: string;
  readonly bytes: number;
  readonly done: () => void;
  readonly failed: (reason: Error) => void;
}

const words: Readonly<Record<Exclude<GroupResult, "accepted">, string>> = {
  "not-joined": "this program is not in the group",
  "joined-already": "this program is in the group already, or leaving it",
  "too-large": "the message is too large",
  "bad-name": "a name of 1 to 64 bytes expected",
  limit: "this node has as many memberships as it may have",
};

class Membership implements Group {
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

  constructor(groups: Groups, name: string, self: GroupMember, handlers: GroupHandlers, joined: NonNullable<Membership["joined"]>) {
    this.#groups = groups;
    this.name = name;
    this.self = self;
    this.handlers = handlers;
    this.joined = joined;
  }

  multicast(data: Uint8Array): Promise<void> {
    if (this.over !== null) return Promise.reject(this.over);
    return this.#groups.ask({ kind: "group-send", group: this.name, data }, data.byteLength + messageCostBytes);
  }

  async leave(): Promise<void> {
    if (this.over !== null) throw this.over;
    const left = new Promise<void>((done, failed) => this.leaves.push({ done, failed }));
    // Its failure is that of the request, or of the connection.
    left.catch(() => undefined);
    await this.#groups.ask({ kind: "group-leave", group: this.name }, 0);
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

type Ask =
  | Omit<Extract<GroupClientRequest, { kind: "group-send" }>, "requestId">
  | Omit<Extract<GroupClientRequest, { kind: "group-join" | "group-leave" }>, "requestId">;

/** All groups of one connection. */
export class Groups {
  readonly #send: (request: GroupClientRequest) => void;
  readonly #self: GroupMember;
  readonly #memberships: Map<string, Membership> = new Map();
  readonly #pending: Map<number, Pending> = new Map();
  #lastId = 0;
  #unaccepted = 0;
  #over: Error | null = null;

  constructor(self: GroupMember, send: (request: GroupClientRequest) => void) {
    this.#self = self;
    this.#send = send;
  }

  join(name: string, handlers: GroupHandlers): Promise<Group> {
    if (this.#over !== null) return Promise.reject(this.#over);
    if (this.#memberships.has(name)) return Promise.reject(refusal(`join of group ${name}`, "joined-already"));
    return new Promise((done, failed) => {
      const membership = new Membership(this, name, this.#self, handlers, { done, failed });
      this.#memberships.set(name, membership);
      this.ask({ kind: "group-join", group: name }, 0).catch((reason: unknown) => {
        if (this.#memberships.get(name) === membership) this.#memberships.delete(name);
        membership.end(reason as Error);
      });
    });
  }

  ask(request: Ask, bytes: number): Promise<void> {
    if (this.#over !== null) return Promise.reject(this.#over);
    const what = `${request.kind.slice("group-".length)} of group ${request.group}`;
    if (bytes > 0 && this.#unaccepted + bytes > unacceptedBytes && this.#unaccepted > 0) {
      const message = `${what}: ${this.#unaccepted} bytes wait for dlmd, at most ${unacceptedBytes} may`;
      return Promise.reject(new OperatingError(message, { code: "full", hint: "Await the multicasts before." }));
    }
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#pending.has(this.#lastId));
    const requestId = this.#lastId;
    return new Promise((done, failed) => {
      this.#pending.set(requestId, { what, bytes, done, failed });
      this.#unaccepted += bytes;
      this.#send({ ...request, requestId });
    });
  }

  receive(event: GroupEvent): void {
    switch (event.kind) {
      case "group-result":
        return this.#result(event.requestId, event.result);
      case "group-members":
        return this.#members(event.group, event);
      case "group-message": {
        const { group, from, seq, data } = event;
        const membership = this.#memberships.get(group);
        assert(membership !== undefined, `a message of group ${group}, in which this program is not`);
        membership.handlers.message({ group, from, seq, data: Uint8Array.from(data), own: this.#isSelf(from) }, membership);
        return;
      }
      case "group-ended": {
        const membership = this.#memberships.get(event.group);
        this.#memberships.delete(event.group);
        membership?.end(new OperatingError(`group ${event.group}: ${event.reason}`, { code: "group-ended" }));
        return;
      }
    }
  }

  #isSelf({ nodeid, incarnation, clientId }: GroupMember): boolean {
    return nodeid === this.#self.nodeid && clientId === this.#self.clientId && incarnation === this.#self.incarnation;
  }

  #result(requestId: number, result: GroupResult): void {
    const pending = this.#pending.get(requestId);
    assert(pending !== undefined, `a result of group request ${requestId}, which nobody made`);
    this.#pending.delete(requestId);
    this.#unaccepted -= pending.bytes;
    if (result === "accepted") pending.done();
    else pending.failed(refusal(pending.what, result));
  }

  #members(name: string, { members, joined, left }: GroupChange): void {
    const membership = this.#memberships.get(name);
    assert(membership !== undefined, `members of group ${name}, in which this program is not`);
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
    this.#over = reason;
    for (const { failed } of this.#pending.values()) failed(reason);
    this.#pending.clear();
    for (const membership of this.#memberships.values()) membership.end(reason, tell);
    this.#memberships.clear();
  }
}

function refusal(what: string, result: Exclude<GroupResult, "accepted">): OperatingError {
  return new OperatingError(`${what}: ${words[result]}`, { code: result });
}
