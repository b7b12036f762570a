/** Groups of a node's programs, against an engine that is told what to answer. */
import { expect, it } from "vitest";
import type { EngineCommand } from "../../../dlmd/engine/engine.ts";
import type { CommandResult, GroupMember } from "../../../dlmd/wire/group.ts";
import { type Client, newClient } from "../../../dlmd/clients/client.ts";
import { ClientGroups } from "../../../dlmd/clients/client-groups.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";

function bench(): {
  groups: ClientGroups;
  a: Client;
  b: Client;
  commands: string[];
  told(): string[];
  answer: CommandResult;
  paused: Set<number>;
  joined(client: Client): void;
} {
  const [a, b] = [newClient(1), newClient(2)];
  const commands: string[] = [];
  let told: string[] = [];
  const state = { answer: "accepted" as CommandResult };
  const paused = new Set<number>();
  const groups: ClientGroups = new ClientGroups({
    nodeid: 7,
    command: (command: EngineCommand) => {
      if (state.answer === "accepted")
        commands.push(`${command.kind} ${command.clientId}${command.kind === "leave" ? ` ${command.reason}` : ""}`);
      return state.answer;
    },
    client: (clientId) => [a, b].find((client) => client.id === clientId),
    isHeir: (heir, clientId) => heir === b && clientId === a.id && a.kept,
    toClient: (client, event) =>
      void told.push(
        `${client.id}: ${event.kind}${event.kind === "group-message" ? ` ${event.seq}` : ""}${event.kind === "group-result" ? ` ${event.result}` : ""}`,
      ),
    adjustPause: (client) => void (groups.waits(client) ? paused.add(client.id) : paused.delete(client.id)),
    protest: (_, message) => void told.push(message),
  });
  const member = (client: Client): GroupMember => ({ nodeid: 7, incarnation: "00000000000000aa", clientId: client.id });
  return Object.assign(state, {
    groups,
    a,
    b,
    commands,
    paused,
    told: () => {
      const was = told;
      told = [];
      return was;
    },
    joined: (client: Client) => {
      groups.request(client, { kind: "group-join", requestId: 1, group: "g" });
      groups.event({ kind: "members", group: "g", to: [client.id], members: [member(client)], joined: [member(client)], left: [] });
    },
  });
}

const send = { kind: "group-send", requestId: 2, group: "g", count: 1, data: Uint8Array.of(1) } as const;
const numbered = (seq: number): Uint8Array => new ByteWriter().u64(seq).u8(1).copy();
const from = { nodeid: 9, incarnation: "00000000000000bb", clientId: 4 };

it("keeps what the engine has no room for, in order, with its client unread, and goes on client by client", () => {
  const t = bench();
  t.joined(t.a);
  t.joined(t.b);
  t.told();
  t.answer = "full";
  for (const client of [t.a, t.a, t.b]) t.groups.request(client, send);
  t.groups.request(t.a, { kind: "group-leave", requestId: 3, group: "g" });
  expect(t.told()).toEqual([]);
  expect([...t.paused]).toEqual([1, 2]);
  t.groups.event({ kind: "room" });
  expect(t.groups.roomy).toBe(true);
  t.groups.drain();
  expect(t.told()).toEqual([]);
  t.answer = "accepted";
  t.commands.length = 0;
  t.groups.drain();
  expect(t.commands).toEqual(["multicast 1", "multicast 2", "multicast 1", "leave 1 left"]);
  expect(t.paused.size).toBe(0);
});

it("a join for which the engine has no room waits, with its client unread, and what it asks for then comes after it", () => {
  const t = bench();
  t.answer = "full";
  t.groups.request(t.a, { kind: "group-join", requestId: 1, group: "g" });
  t.groups.request(t.a, send);
  expect([t.told(), [...t.paused]]).toEqual([[], [1]]);
  t.answer = "accepted";
  t.groups.drain();
  expect([t.commands, t.told()]).toEqual([
    ["join 1", "multicast 1"],
    ["1: group-result accepted", "1: group-result accepted"],
  ]);
  expect(t.paused.size).toBe(0);
});

it("tells nothing of a membership before: who was thrown out and joins again hears from its new join on", () => {
  const t = bench();
  t.joined(t.a);
  t.told();
  t.groups.slow(t.a, "slow");
  expect(t.told()).toEqual(["1: group-ended"]);
  t.groups.request(t.a, { kind: "group-join", requestId: 1, group: "g" });
  t.groups.event({ kind: "message", group: "g", to: [1], from, data: numbered(5) });
  const self = { nodeid: 7, incarnation: "00000000000000aa", clientId: 1 };
  t.groups.event({ kind: "members", group: "g", to: [1], members: [], joined: [], left: [{ member: self, reason: "left" }] });
  expect(t.told()).toEqual(["1: group-result accepted"]);
  t.groups.event({ kind: "members", group: "g", to: [1], members: [self], joined: [self], left: [] });
  t.groups.event({ kind: "message", group: "g", to: [1], from, data: numbered(6) });
  expect(t.told()).toEqual(["1: group-members", "1: group-message 6"]);
});

it("leaves for a client that is gone, and tells it nothing more", () => {
  const t = bench();
  t.joined(t.a);
  t.commands.length = 0;
  t.told();
  t.groups.gone(t.a);
  t.groups.event({ kind: "message", group: "g", to: [1], from, data: numbered(5) });
  expect([t.commands, t.told()]).toEqual([["leave 1 client-died"], []]);
});

it("protests against a message without a number", () => {
  const t = bench();
  t.joined(t.a);
  t.told();
  t.groups.event({ kind: "message", group: "g", to: [1], from, data: new Uint8Array(3) });
  expect(t.told()).toEqual(["message of 3 bytes in group g, without a number"]);
});
