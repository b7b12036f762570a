/** A program on a simulated node that joins groups, sends and leaves at random; what it is told must fit (client/group-api.ts). The order itself: engine/checker.ts. */
import type { GroupMember } from "../../dlmd/wire/group.ts";
import type { GroupClientRequest, GroupEvent } from "../../dlmd/wire/local-group.ts";
import type { SimClient } from "./client.ts";

const groups = ["alpha", "beta", "gamma"];

interface Seat {
  /** It asked to leave. */
  leaving: boolean;
  /** As it was told: not yet in, in, in no more. */
  state: "asked" | "in" | "out";
  members: string[];
  accepted: number;
  returned: number;
  readonly lastOf: Map<string, number>;
}

const keyOf = ({ nodeid, incarnation, clientId }: GroupMember): string => `${nodeid}.${incarnation}/${clientId}`;

export class SimGroupClient {
  readonly #client: SimClient;
  readonly #send: (request: GroupClientRequest) => void;
  /** Never joined twice, so that every join is told from every other. */
  readonly #seats: Map<string, Seat> = new Map();
  readonly #asked: Map<number, GroupClientRequest> = new Map();
  #nextRequestId = 1;
  #sent: Map<string, number> = new Map();

  constructor(client: SimClient, send: (request: GroupClientRequest) => void) {
    this.#client = client;
    this.#send = send;
  }

  #fail(what: string): never {
    return this.#client.node.cluster.fail(`${this.#client.name}: ${what}`);
  }

  #ask(request: GroupClientRequest): void {
    this.#asked.set(request.requestId, request);
    this.#send(request);
  }

  /** One random thing to do. */
  act(): void {
    const { random } = this.#client;
    const group = random.pick(groups);
    const seat = this.#seats.get(group);
    if (seat === undefined) {
      this.#seats.set(group, { leaving: false, state: "asked", members: [], accepted: 0, returned: 0, lastOf: new Map() });
      return this.#ask({ kind: "group-join", requestId: this.#nextRequestId++, group });
    }
    if (seat.leaving) return;
    if (random.chance(0.03)) {
      seat.leaving = true;
      return this.#ask({ kind: "group-leave", requestId: this.#nextRequestId++, group });
    }
    for (let burst = random.chance(0.05) ? random.int(20) : 1; burst > 0; burst--) this.#say(group);
  }

  #say(group: string): void {
    const { random } = this.#client;
    const n = (this.#sent.get(group) ?? 0) + 1;
    // What is in several only programs look at.
    const count = random.chance(0.2) ? 2 + random.int(9) : 1;
    this.#sent.set(group, n + count - 1);
    const data = new Uint8Array(random.chance(0.02) ? random.int(6000) : random.int(120));
    // As engine/checker.ts looks at them, with the number in front.
    for (let i = 0; i < data.byteLength; i += 97) data[i] = n + i + 8;
    this.#ask({ kind: "group-send", requestId: this.#nextRequestId++, group, count, data });
  }

  told(event: GroupEvent): void {
    if (event.kind === "group-result") return this.#result(event.requestId, event.result);
    const seat = this.#seats.get(event.group);
    if (seat === undefined || seat.state === "out") return this.#fail(`told of ${event.group}, which it is not in: ${event.kind}`);
    switch (event.kind) {
      case "group-members":
        return this.#members(seat, event);
      case "group-message": {
        const from = keyOf(event.from);
        if (!seat.members.includes(from)) return this.#fail(`a message in ${event.group} of ${from}, which is not in it`);
        const last = seat.lastOf.get(from);
        if (last !== undefined && event.seq !== last + 1)
          return this.#fail(`message ${event.seq} of ${from} in ${event.group} after ${last}`);
        seat.lastOf.set(from, event.seq + event.count - 1);
        if (from === this.#client.name) seat.returned += event.count;
        return;
      }
      case "group-ended":
        return this.#fail(`put out of ${event.group}: ${event.reason}`);
    }
  }

  #result(requestId: number, result: string): void {
    const request = this.#asked.get(requestId);
    if (request === undefined) return this.#fail(`an answer to request ${requestId} of groups, which has none coming`);
    this.#asked.delete(requestId);
    if (result !== "accepted") return this.#fail(`${request.kind} of ${request.group} ended with ${result}`);
    if (request.kind !== "group-send") return;
    (this.#seats.get(request.group) as Seat).accepted += request.count;
  }

  #members(seat: Seat, event: Extract<GroupEvent, { kind: "group-members" }>): void {
    const own = this.#client.name;
    const now = event.members.map(keyOf);
    const joined = event.joined.map(keyOf);
    const left = event.left.map(({ member }) => keyOf(member));
    if (seat.state === "asked") {
      if (!joined.includes(own)) return this.#fail(`told of ${event.group} before it has joined`);
      seat.state = "in";
    } else {
      const expected = [...seat.members.filter((member) => !left.includes(member)), ...joined];
      if (expected.join() !== now.join()) return this.#fail(`members of ${event.group}: ${expected.join()} expected, found ${now.join()}`);
    }
    for (const member of left) seat.lastOf.delete(member);
    seat.members = now;
    if (left.includes(own)) seat.state = "out";
  }

  /** Everything asked for is answered, and has happened. */
  atRest(): void {
    for (const { kind, group } of this.#asked.values()) this.#fail(`${kind} of ${group} was never answered`);
    for (const [group, { leaving, state, accepted, returned, members }] of this.#seats) {
      if (state !== (leaving ? "out" : "in")) this.#fail(`${state} in ${group} at rest${leaving ? ", though it asked to leave" : ""}`);
      if (state === "in" && accepted !== returned) this.#fail(`${accepted} messages to ${group} were accepted, ${returned} came back`);
      const { nodes } = this.#client.node.cluster;
      const here = (member: string): boolean => nodes.some((node) => [...node.clients.values()].some((client) => client.name === member));
      const dead = members.find((member) => !here(member));
      if (state === "in" && dead !== undefined) this.#fail(`${dead} is gone, and in ${group} at rest`);
    }
  }
}
