/** Groups of programs on three nodes: one order for all, joins and leaves in it, with reasons; back-pressure; a dlmd that starts again. */
import { execFileSync } from "node:child_process";
import { afterEach, expect, test } from "vitest";
import type { Group, GroupMember } from "../../../dlmd/client/group-api.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { Happenings, type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster | null = null;
afterEach(async () => {
  await cluster?.close();
  cluster = null;
});

const nameOf = ({ nodeid, clientId }: GroupMember): string => `${nodeid}/${clientId}`;

/** A member that writes down all it hears. */
class Scribe {
  readonly heard: string[] = [];
  readonly happenings = new Happenings();
  ended: Error | null = null;
  group: Group | null = null;

  async join(client: TestClient, name = "g"): Promise<this> {
    this.group = await client.client.join(name, {
      message: ({ from, seq, data, own }) => {
        if (own !== (nameOf(from) === this.name)) this.#note(`own: ${own}, of ${nameOf(from)} at ${this.name}`);
        this.#note(`${nameOf(from)} #${seq} ${Buffer.from(data).toString().slice(0, 20)}`);
      },
      members: ({ joined, left }) => {
        for (const member of joined) this.#note(`+ ${nameOf(member)}`);
        for (const { member, reason } of left) this.#note(`- ${nameOf(member)} ${reason}`);
      },
      ended: (reason) => {
        this.ended = reason;
        this.happenings.happened();
      },
    });
    this.name = nameOf(this.group.self);
    return this;
  }

  name = "";

  #note(line: string): void {
    this.heard.push(line);
    this.happenings.happened();
  }

  async hears(line: string): Promise<void> {
    await this.happenings.until(() => this.heard.includes(line));
  }

  say(text: string): Promise<void> {
    return (this.group as Group).multicast(Buffer.from(text));
  }
}

/** What they heard from the join of the last one on. */
function since(scribe: Scribe, name: string): string[] {
  return scribe.heard.slice(scribe.heard.lastIndexOf(`+ ${name}`));
}

test("one order for members on three nodes, two of them on one; who leaves, dies or goes with its node does so in that order", async () => {
  const made = (cluster = createCluster({ nodes: 3 }));
  const [one, two, three] = (await made.startAll()) as [TestClient, TestClient, TestClient];
  const first = await new Scribe().join(one);
  const second = await new Scribe().join(await made.connect(1));
  const third = await new Scribe().join(two);
  // They speak while the last one joins.
  const turns = 100;
  const talk = async (scribe: Scribe): Promise<void> => {
    for (let i = 1; i <= turns; i++) await scribe.say(`line ${i}`);
  };
  const talking = [first, second, third].map((scribe) => talk(scribe));
  const last = await new Scribe().join(three);
  await Promise.all([...talking, talk(last)]);
  const all = [first, second, third, last];
  for (const scribe of all) for (const speaker of all) await scribe.hears(`${speaker.name} #${turns} line ${turns}`);
  for (const scribe of all) expect(since(scribe, last.name)).toEqual(last.heard);
  expect(last.heard[0]).toBe(`+ ${last.name}`);
  expect(since(first, second.name)).toEqual(second.heard);
  // Every message once, in its sender's order.
  for (const speaker of all) {
    const its = first.heard.filter((line) => line.startsWith(`${speaker.name} #`));
    expect(its).toEqual(Array.from({ length: turns }, (_, at) => `${speaker.name} #${at + 1} line ${at + 1}`));
  }
  expect(last.group?.members.map(nameOf)).toEqual(first.group?.members.map(nameOf));
  await expect(one.client.join("g", { message() {}, members() {}, ended() {} })).rejects.toMatchObject({ code: "joined-already" });

  await (third.group as Group).leave();
  expect(third.heard.at(-1)).toBe(`- ${third.name} left`);
  await expect(third.say("late")).rejects.toMatchObject({ code: "not-joined" });
  for (const scribe of [first, second, last]) await scribe.hears(`- ${third.name} left`);
  expect((await new Scribe().join(two)).heard.at(0)).toMatch(/^\+ 2/);

  // A node is killed: its member goes with it, and hears that it is disconnected.
  await made.kill(3, "SIGKILL");
  await first.hears(`- ${last.name} node-gone`);
  await second.hears(`- ${last.name} node-gone`);
  await last.happenings.until(() => last.ended !== null);
  await first.say("without it");
  await second.hears(`${first.name} #${turns + 1} without it`);
  // It starts again: nothing of before is there.
  await made.start(3);
  const again = await new Scribe().join(await made.connect(3));
  await again.say("back");
  for (const scribe of [first, second, again]) await scribe.hears(`${again.name} #1 back`);
  expect(again.heard).toEqual([`+ ${again.name}`, `${again.name} #1 back`]);
  expect(since(first, again.name)).toEqual(again.heard);
});

test("who sends faster than the cluster orders waits, or is told; nothing is lost, nobody is disconnected", async () => {
  const made = (cluster = createCluster({ nodes: 2 }));
  const [one, two] = (await made.startAll()) as [TestClient, TestClient];
  const sender = await new Scribe().join(one);
  const receiver = await new Scribe().join(two);
  const group = sender.group as Group;
  const block = Buffer.alloc(256 * 1024, "x");
  // More than dlmd takes at once (8 MiB), and more than may wait here (16 MiB).
  const sent = await Promise.allSettled(Array.from({ length: 80 }, () => group.multicast(block)));
  const taken = sent.filter(({ status }) => status === "fulfilled").length;
  const refused = sent.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  expect(taken).toBeGreaterThan(40);
  expect(refused.length).toBeGreaterThan(0);
  for (const reason of refused) expect(reason instanceof OperatingError && reason.code).toBe("full");
  await group.multicast(Buffer.from("end"));
  await receiver.hears(`${sender.name} #${taken + 1} end`);
  expect(receiver.heard.filter((line) => line.includes("#"))).toHaveLength(taken + 1);
  await expect(group.multicast(Buffer.alloc(1_047_545))).rejects.toMatchObject({ code: "too-large" });
  expect([one.ended.reason, two.ended.reason]).toEqual([null, null]);
});

test("a network that takes no parts of long datagrams any more costs a moment: all messages arrive, the view stays", async () => {
  const made = (cluster = createCluster({ nodes: 2, namespaces: true }));
  const [one, two] = (await made.startAll()) as [TestClient, TestClient];
  const sender = await new Scribe().join(one);
  const receiver = await new Scribe().join(two);
  const { viewId } = one.client.view;
  const nft = (...words: string[]): string =>
    execFileSync("nsenter", [`--net=/run/netns/${made.namespace(2)}`, "nft", ...words], { encoding: "utf8", stdio: "pipe" });
  nft("add table ip parts { chain pre { type filter hook prerouting priority -500; }; }");
  nft("add rule ip parts pre ip frag-off & 0x3fff != 0 counter");
  const parts = (): number => Number(/packets (\d+)/.exec(nft("list chain ip parts pre"))?.[1]);
  let said = 0;
  const block = Buffer.alloc(256 * 1024, "x");
  const talk = async (): Promise<void> => {
    await Promise.all(Array.from({ length: 8 }, () => (sender.group as Group).multicast(block)));
    said += 8;
    await receiver.hears(`${sender.name} #${said} ${"x".repeat(20)}`);
  };
  // Until the question whether long ones arrive is answered, and on.
  while (parts() < 200) await talk();
  nft("add rule ip parts pre ip frag-off & 0x3fff != 0 drop");
  await talk();
  expect(receiver.heard.filter((line) => line.includes("#"))).toHaveLength(said);
  expect([one.client.view.viewId, two.client.view.viewId]).toEqual([viewId, viewId]);
});
