/** What a client owes that is asked to let go of the dead: the limits of it, and what the other nodes are told. */
import { expect, it } from "vitest";
import { type Client, newClient } from "../../../dlmd/clients/client.ts";
import { GONE_LIMIT_MS, ClientDeathBarrier } from "../../../dlmd/clients/death-barrier.ts";
import { GoneGate } from "../../../dlmd/recovery/gone-gate.ts";
import type { GoneWaitsMessage } from "../../../dlmd/wire/peer-gone.ts";

function clientWith(id: number, ...lockspaces: string[]): Client {
  const client = newClient(id, { uid: 0, pid: 1000 + id, owner: "", program: `/bin/program${id}` });
  lockspaces.forEach((name, at) => client.lockspaces.set(at, { name, resources: new Map(), opens: 1, blocked: false }));
  return client;
}

function asks() {
  const ended: number[] = [];
  const told: number[] = [];
  const made = new ClientDeathBarrier(GONE_LIMIT_MS, {
    tell: (client) => told.push(client.id),
    end: (client) => ended.push(client.id),
    believed: () => {},
  });
  const gone = [{ nodeid: 3, incarnation: "00000000000000aa", clientId: null }];
  const ask = (clients: readonly Client[], nowMs: number, ofNode = true, done = () => {}): void =>
    made.ask(clients, { gone, concerns: () => true, ofNode, done }, nowMs);
  return { asks: made, ask, ended, told };
}

it("a client has 30 seconds; after that its process is to end, and its end counts", () => {
  expect(GONE_LIMIT_MS).toBe(30_000);
  const { asks: made, ask, ended } = asks();
  const client = clientWith(1, "a", "b");
  ask([client], 100);
  expect(made.nextMs).toBe(100 + GONE_LIMIT_MS);
  made.expire(99 + GONE_LIMIT_MS);
  expect(ended).toEqual([]);
  made.expire(100 + GONE_LIMIT_MS);
  expect([ended, client.ending, made.nextMs]).toEqual([[1], true, Number.POSITIVE_INFINITY]);
  expect(made.ofNodes()).toMatchObject([{ client, lockspaces: ["a", "b"], sinceMs: 100 }]);
  made.forgetClient(client);
  expect(made.ofNodes()).toEqual([]);
});

it("a client that could not be ended is asked on, believed when it has answered everything, and has its time anew", () => {
  const { asks: made, ask, ended, told } = asks();
  const client = clientWith(1, "a");
  ask([client], 0);
  made.expire(GONE_LIMIT_MS);
  expect([ended, client.ending, made.changed()]).toEqual([[1], true, true]);
  // An hour later its disk answers. Meanwhile another node went, and another client.
  const laterMs = 3_600_000;
  let done = 0;
  ask([client], laterMs - 1);
  ask([client], laterMs - 1, false, () => done++);
  made.expire(laterMs + GONE_LIMIT_MS);
  expect([ended, told]).toEqual([[1], [1, 1, 1]]);
  made.answered(client, 2);
  made.answered(client, 3);
  expect([made.ofNodes().length, client.ending, done]).toEqual([1, true, 1]);
  made.answered(client, 1);
  expect([made.ofNodes(), client.ending, made.changed()]).toEqual([[], false, true]);
  ask([client], laterMs);
  made.expire(laterMs + GONE_LIMIT_MS - 1);
  expect(ended).toEqual([1]);
  made.expire(laterMs + GONE_LIMIT_MS);
  expect([ended, client.ending]).toEqual([[1, 1], true]);
});

it("a client that waits for its disk is spared: it has its time anew, and is believed when it answers; not if it was not told all", () => {
  const { asks: made, ask, ended } = asks();
  const client = clientWith(1, "a");
  ask([client], 0);
  made.expire(GONE_LIMIT_MS);
  client.ending = false;
  expect([made.spared(client, GONE_LIMIT_MS + 5), made.changed()]).toEqual([true, true]);
  expect(made.nextMs).toBe(2 * GONE_LIMIT_MS + 5);
  made.expire(2 * GONE_LIMIT_MS + 4);
  expect(ended).toEqual([1]);
  made.expire(2 * GONE_LIMIT_MS + 5);
  expect([ended, client.ending]).toEqual([[1, 1], true]);
  client.ending = false;
  made.spared(client, 2 * GONE_LIMIT_MS + 5);
  made.answered(client, 1);
  expect([made.ofNodes(), client.ending]).toEqual([[], false]);
  made.expire(10 * GONE_LIMIT_MS);
  expect(ended).toEqual([1, 1]);

  for (let i = 0; i <= 65_536; i++) ask([client], 0);
  made.expire(0);
  ask([client], 1);
  // It is ended again, but no more often than others are.
  client.ending = true;
  expect(made.spared(client, 1)).toBe(false);
  expect(made.nextMs).toBe(1 + GONE_LIMIT_MS);
  made.expire(GONE_LIMIT_MS);
  expect(ended).toEqual([1, 1, 1]);
  made.expire(1 + GONE_LIMIT_MS);
  expect(ended).toEqual([1, 1, 1, 1]);
  made.forgetClient(client);
  expect(made.nextMs).toBe(Number.POSITIVE_INFINITY);
});

it("a client that is spared has all its time anew, though another one's is over before", () => {
  const { asks: made, ask, ended } = asks();
  const [held, other] = [clientWith(1, "a"), clientWith(2, "a")];
  ask([held], 0);
  ask([other], 5000);
  made.expire(GONE_LIMIT_MS);
  held.ending = false;
  made.spared(held, 31_000);
  made.expire(5000 + GONE_LIMIT_MS);
  expect([ended, made.nextMs]).toEqual([[1, 2], 61_000]);
  // A death of which it is told meanwhile does not lengthen it.
  ask([held], 60_000);
  made.expire(60_999);
  expect(ended).toEqual([1, 2]);
  made.expire(61_000);
  expect(ended).toEqual([1, 2, 1]);
});

it("a client that answers after it was spared has its usual time for what it is asked then", () => {
  const { asks: made, ask, ended } = asks();
  const client = clientWith(1, "a");
  ask([client], 0);
  made.expire(GONE_LIMIT_MS);
  client.ending = false;
  made.spared(client, GONE_LIMIT_MS);
  made.answered(client, 1);
  ask([client], GONE_LIMIT_MS + 10);
  made.expire(2 * GONE_LIMIT_MS + 9);
  expect(ended).toEqual([1]);
  made.expire(2 * GONE_LIMIT_MS + 10);
  expect(ended).toEqual([1, 1]);
});

it("a client of which a request was dropped is not believed again, whatever it answers", () => {
  const { asks: made, ask, ended } = asks();
  const client = clientWith(1, "a");
  ask([client], 0);
  made.expire(GONE_LIMIT_MS);
  client.flooded = true;
  expect(made.spared(client, GONE_LIMIT_MS)).toBe(false);
  made.answered(client, 1);
  expect([client.ending, made.ofNodes()]).toEqual([true, []]);
  made.expire(2 * GONE_LIMIT_MS);
  expect(ended).toEqual([1, 1]);
});

it("a new life of a client that was ended owes nothing of the one before", () => {
  const { asks: made, ask, ended } = asks();
  const [before, after] = [clientWith(1, "a"), clientWith(2, "a")];
  ask([before], 0);
  made.expire(GONE_LIMIT_MS);
  made.forgetClient(before);
  ask([after], GONE_LIMIT_MS);
  made.answered(after, 2);
  expect([made.ofNodes(), after.ending, ended]).toEqual([[], false, [1]]);
});

it("a client that is ended for another reason answers as before, and stays one that is to end", () => {
  const { asks: made, ask } = asks();
  const client = clientWith(1, "a");
  client.ending = true;
  ask([client], 0);
  made.answered(client, 1);
  expect([made.ofNodes(), client.ending]).toEqual([[], true]);
});

it("a client that leaves more than 65,536 asks unanswered is ended at once, and nothing grows after that", () => {
  const { asks: made, ask, ended, told } = asks();
  const client = clientWith(1, "a");
  for (let i = 0; i < 65_536; i++) ask([client], i % 2);
  made.expire(1);
  expect(ended).toEqual([]);
  ask([client], 1);
  expect(made.nextMs).toBe(Number.NEGATIVE_INFINITY);
  made.expire(1);
  expect(ended).toEqual([1]);
  for (let i = 0; i < 10_000; i++) ask([client], 2);
  expect(told).toHaveLength(65_537);
  expect(made.ofNodes()).toHaveLength(1);
  // It was not told of all: answers are not enough any more.
  for (let goneId = 1; goneId <= 65_537; goneId++) made.answered(client, goneId);
  expect([made.ofNodes().length, client.ending]).toEqual([1, true]);
  made.forgetClient(client);
  expect(made.ofNodes()).toEqual([]);
});

it("a client that owes too much is told no more, though a view ends in which clients died of which it was not told", () => {
  const { asks: made, ask, told } = asks();
  const client = clientWith(1, "a");
  for (let i = 0; i <= 65_536; i++) ask([client], 0);
  made.expire(0);
  for (let i = 0; i < 10; i++) ask([client], 1, false);
  made.stop();
  expect(client.asked).toBe(65_537);
  ask([client], 2);
  expect(told).toHaveLength(65_537);
});

it("clients that died one by one are forgotten with their view, but the time of those asked goes on", () => {
  const { asks: made, ask, ended } = asks();
  const [slow, ending] = [clientWith(1, "a"), clientWith(2, "a")];
  ending.ending = true;
  let done = 0;
  ask([slow, ending], 0, false, () => done++);
  expect(made.ofClients().map(({ client }) => client.id)).toEqual([1, 2]);
  made.stop();
  expect(made.ofClients().map(({ client }) => client.id)).toEqual([1]);
  made.expire(GONE_LIMIT_MS);
  made.forgetClient(slow);
  made.forgetClient(ending);
  expect([ended, done]).toEqual([[1], 0]);
});

it("too many lockspaces to name: all wait; of the clients the first ones are named", () => {
  const { asks: made, ask } = asks();
  const names = Array.from({ length: 4097 }, (_, at) => `space${at}`);
  const clients = Array.from({ length: 9 }, (_, at) => clientWith(at + 1, ...(at === 0 ? names : ["space0"])));
  ask(clients, 0);
  const gate = new GoneGate(1, () => made.ofNodes());
  gate.enterView();
  const news = gate.news(1000) as GoneWaitsMessage;
  expect([news.all, news.lockspaces, news.clients.length]).toEqual([true, [], 8]);
  expect(news.clients[1]).toMatchObject({ clientId: 2, pid: 1002, program: "/bin/program2", waitedMs: 1000 });
  // Said once, until it is another.
  expect(gate.news(2000)).toBeNull();

  const other = new GoneGate(2, () => []);
  other.receive(1, news, 5000);
  expect(other.blocks("any")).toBe(true);
  expect(other.explain(6000)).toContain("wait since 2.0 s until client 1 of node 1 (pid 1001, program1) has let go of nodes that are gone");
  for (const client of clients) made.forgetClient(client);
  gate.review();
  const last = gate.news(7000) as GoneWaitsMessage;
  other.receive(1, last, 7000);
  expect([last.all, other.blocks("any"), other.explain(7000)]).toEqual([false, false, ""]);
});
