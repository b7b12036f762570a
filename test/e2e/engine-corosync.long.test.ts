/** A lab whose dlmds agree on views over corosync: what dies, what is cut off, and a corosync that ends. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunResult, run } from "../../overlay/lab/command.ts";
import { noCorosync } from "../compliance/corosync-cluster.ts";
import { until } from "./actor.ts";
import { coverlayProgram, startLab, type TestLab } from "./lab.ts";

const missing = noCorosync();

describe("a cluster over corosync", () => {
  let lab: TestLab;
  let owner: number;
  let [other, third]: [number, number] = [0, 0];

  beforeAll(async () => {
    if (missing !== null) return;
    lab = await startLab({ nodes: 3, size: "256M", engine: "corosync", fencing: false });
    owner = await lab.owner();
    [other, third] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
  });
  afterAll(() => lab?.end());

  const append = (nodeid: number, word: string): Promise<string> =>
    lab.mustExec(nodeid, ["sh", "-c", `echo ${word} >> ${lab.node(nodeid).mount}/words`]);
  const words = (nodeid: number): Promise<string> => lab.mustExec(nodeid, ["cat", `${lab.node(nodeid).mount}/words`]);
  const viewOf = async (nodeid: number): Promise<{ quorate: boolean; members: readonly number[]; quorumReason: string } | null> =>
    (await lab.status()).find((node) => node.nodeid === nodeid)?.view ?? null;
  const logOf = (nodeid: number): string => readFileSync(`${lab.dir}/node${nodeid}/dlmd.log`, "utf8");

  it("what one node writes the others read", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    await append(owner, "one");
    await append(other, "two");
    expect(await words(third)).toBe("one\ntwo\n");
  });

  it("a node loses its power: the others go on, and it comes back", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    await lab.kill(third);
    await until("there is a view without it", async () => (await viewOf(other))?.members.length === 2);
    await append(other, "three");
    expect(await words(owner)).toBe("one\ntwo\nthree\n");
    await lab.start(third);
    expect(await words(third)).toBe("one\ntwo\nthree\n");
    expect((await viewOf(third))?.members).toEqual([1, 2, 3]);
  });

  it("a node is cut off: it has no quorum, the others have, and what it asked for is done when it is back", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    await lab.lab("partition", `node${third}`);
    await until("it knows", async () => (await viewOf(third))?.quorate === false);
    expect((await viewOf(third))?.quorumReason).toBe(`votequorum of node ${third} says that its ring is not quorate`);
    await until("the others go on", async () => (await viewOf(other))?.members.length === 2);
    await append(other, "four");
    // Its mount is there, but ends when the rings are one again: its life of before is over then. The start waits for that.
    const start = lab.start(third);
    await lab.lab("heal", `node${third}`);
    await start;
    expect((await viewOf(third))?.members).toEqual([1, 2, 3]);
    expect(await words(third)).toBe("one\ntwo\nthree\nfour\n");
  });

  it("nobody has a quorum: writes wait for it, and are there afterwards", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const views = (): string[] => [1, 2, 3].map(logOf).flatMap((log) => log.match(/viewId=\S+ members=\S+ quorate=true/g) ?? []);
    const before = new Set(views());
    // At once: two that still hear each other for a token time-out would go on without the third, whose mount would end.
    await Promise.all([1, 2].map((nodeid) => lab.lab("partition", `node${nodeid}`)));
    await until("nobody is quorate", async () => (await lab.status()).every(({ view }) => view?.quorate === false));
    expect(views().filter((view) => !before.has(view))).toEqual([]);
    const waiting = append(other, "five");
    await lab.lab("heal", "node1,node2,node3");
    await waiting;
    expect(await words(third)).toBe("one\ntwo\nthree\nfour\nfive\n");
  });

  it("corosync is asked to end: refused while the volume is mounted, done when it is not", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const there = (...words: string[]): Promise<RunResult> => run("nsenter", [`--net=/run/netns/${lab.node(third).netns}`, "--", ...words]);
    const before = logOf(third).length;
    const said = (): string => logOf(third).slice(before);
    const refused = await there("corosync-cfgtool", "-H");
    // CS_ERR_BUSY; the status of this version is 0 all the same.
    expect(refused.stdout + refused.stderr).toContain("Could not shutdown (error = 10)");
    await until("it is said", () => said().includes("refused, lockspaces are open here"), said);
    expect((await viewOf(third))?.members).toEqual([1, 2, 3]);
    expect(await there(process.execPath, coverlayProgram, "umount", lab.node(third).mount)).toMatchObject({ status: 0 });
    const done = await there("corosync-cfgtool", "-H");
    expect(done).toMatchObject({ status: 0, stdout: expect.not.stringContaining("Could not") });
    await until("dlmd waits for another one", () => said().includes("waiting for corosync"), said);
    expect(said()).toContain("nothing is open here, so it may");
    await append(other, "more");
    await lab.start(third);
    await until("it is back", async () => (await viewOf(third))?.members.length === 3);
    await lab.mustExec(other, ["sed", "-i", "/more/d", `${lab.node(other).mount}/words`]);
  });

  it("its corosync ends: dlmd begins anew with those words, and joins when corosync runs again", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const pids = readFileSync(`${lab.dir}/node${third}/corosync/pids`, "utf8").trim().split("\n").map(Number);
    // It may have waited for corosync when it was started, too.
    const before = logOf(third).length;
    const said = (): string => logOf(third).slice(before);
    process.kill(pids.at(-1) as number, "SIGKILL");
    await until("it is said", () => said().includes("waiting for corosync"), said);
    expect(said()).toMatch(/what this node had in the cluster is void[^]*waiting for corosync/);
    await until("the others go on", async () => (await viewOf(other))?.members.length === 2);
    await append(other, "six");
    await lab.start(third);
    await until("it is back", async () => (await viewOf(third))?.members.length === 3);
    expect(await words(third)).toBe("one\ntwo\nthree\nfour\nfive\nsix\n");
  });

  it("a node is stopped: its corosync leaves the ring, which does not wait until the token is lost", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const ringLog = (): string => readFileSync(`${lab.dir}/node${other}/corosync.log`, "utf8");
    const before = ringLog().length;
    await lab.stop(third);
    await until("the ring is without it", () => ringLog().slice(before).includes(`Members left: ${third}`), ringLog);
    // Its word that it leaves is one packet: who misses that hears of it from the others, at once as well.
    expect(ringLog().slice(before)).not.toContain("A processor failed");
    await append(other, "seven");
    await lab.start(third);
    expect(await words(third)).toBe("one\ntwo\nthree\nfour\nfive\nsix\nseven\n");
  });
});
