/** The mounters of a volume as a group, seen from outside: jids, the knobs of a node, an operator's block, and what a death leaves. */
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { endActors, startActor, until, untilWaiting } from "./actor.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";

interface GroupStatus {
  readonly jid: number | null;
  readonly block: boolean;
  readonly step: string;
  readonly round: number;
  readonly dirty: readonly { readonly jid: number }[];
  readonly members: readonly { readonly nodeid: number; readonly jid: number; readonly ownership: string; readonly phase: string }[];
}

const nodes = [1, 2, 3];
let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3 });
});
afterEach(() => {
  endActors();
  for (const nodeid of nodes) writeFileSync(knobFile(nodeid, "block"), "0\n");
});
afterAll(async () => {
  await lab.end();
});

const knobFile = (nodeid: number, knob: string): string => path.join(lab.node(nodeid).runDir, "volume-lab", knob);
const knob = (nodeid: number, name: string): string => readFileSync(knobFile(nodeid, name), "utf8");
const groupOf = async (nodeid: number): Promise<GroupStatus> =>
  (await queryOverlayStatus(lab.node(nodeid).runDir))["group"] as unknown as GroupStatus;

/** All that live say the same of a group at rest, in which those nodes are mounted. */
async function untilAtRest(living: readonly number[]): Promise<GroupStatus> {
  let seen: GroupStatus[] = [];
  await until(
    `the group of nodes ${living.join(", ")} is at rest`,
    async () => {
      seen = await Promise.all(living.map(groupOf));
      const members = seen.map((group) => group.members.map(({ nodeid }) => nodeid).toSorted((a, b) => a - b));
      return seen.every(
        ({ step, block, dirty, members: all }, at) =>
          step === "idle" &&
          !block &&
          dirty.length === 0 &&
          members[at]?.join() === living.join() &&
          all.every(({ phase }) => phase === "mounted"),
      );
    },
    () => JSON.stringify(seen),
  );
  return seen[0] as GroupStatus;
}

it("each mount has a jid of its own, and shows it in its knobs and in the status", async () => {
  const group = await untilAtRest(nodes);
  expect(group.members.map(({ jid }) => jid).toSorted((a, b) => a - b)).toEqual([0, 1, 2]);
  expect(group.members.filter(({ ownership }) => ownership === "serving").map(({ nodeid }) => nodeid)).toEqual([await lab.owner()]);
  for (const nodeid of nodes) {
    const { jid } = await groupOf(nodeid);
    expect(["jid", "mounted", "block", "recover"].map((name) => knob(nodeid, name))).toEqual([`${jid}\n`, "1\n", "0\n", "-1\n"]);
    const { stdout } = await coverlay(["status", "--run-dir", lab.node(nodeid).runDir]);
    expect(stdout).toContain(`jid ${jid}; 3 mounters`);
  }
});

it.each(["the owner", "another node"])(
  "an operator blocks %s: what needs the lower waits, what is cached goes on, a caller can be killed; 0 lets all go",
  async (which) => {
    const owner = await lab.owner();
    const nodeid = which === "the owner" ? owner : (nodes.find((one) => one !== owner) as number);
    const { mount } = lab.node(nodeid);
    const elsewhere = nodes.find((one) => one !== owner && one !== nodeid) as number;
    const name = which.replace(" ", "-");
    await startActor({ cwd: mount }).run(`[os.mkdir(f"{n}-{name}") for n in range(4)]`, { name });
    // Each in a directory of its own: an operation that waits keeps its locks.
    const actorIn = (top: string, n: number) => startActor({ cwd: path.join(top, `${n}-${name}`) });
    const [reader, writer, victim, far] = [actorIn(mount, 0), actorIn(mount, 1), actorIn(mount, 2), actorIn(lab.node(elsewhere).mount, 3)];
    await reader.run(`fd = os.open("cached", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"cached", 0); os.fsync(fd); os.pread(fd, 6, 0)`);
    await Promise.all([writer, victim, far].map((actor) => actor.run(`os.stat(".")`)));

    writeFileSync(knobFile(nodeid, "block"), "1\n");
    await until("the mount is blocked", async () => (await groupOf(nodeid)).block);
    const making = writer.run(`os.mkdir("made"); result = "made"`);
    await untilWaiting(writer);
    victim.run(`os.mkdir("never")`).catch(() => undefined);
    await untilWaiting(victim);
    expect(await reader.run(`result = os.pread(fd, 6, 0)`)).toBe("cached");
    victim.signal("SIGKILL");
    expect(await victim.ended).toMatchObject({ signal: "SIGKILL" });
    const { stdout } = await coverlay(["status", "--run-dir", lab.node(nodeid).runDir]);
    expect(stdout).toContain("blocked by an operator");
    // Nobody else is blocked.
    expect(await far.run(`os.mkdir("made"); result = "made"`)).toBe("made");

    writeFileSync(knobFile(nodeid, "block"), "0\n");
    expect(await making).toBe("made");
    expect((await groupOf(nodeid)).block).toBe(false);
  },
);

it("what is no order is set back, and said in the log", async () => {
  writeFileSync(knobFile(2, "block"), "yes please\n");
  await until("the knob is set back", () => knob(2, "block") === "0\n");
  appendFileSync(knobFile(2, "block"), "1\n");
  await until("the knob is set back again", () => knob(2, "block") === "0\n");
  expect((await groupOf(2)).block).toBe(false);
});

it("a killed mount that was not the owner leaves its jid dirty for a moment; the next mount has it again", async () => {
  const { round } = await untilAtRest(nodes);
  const owner = await lab.owner();
  const dead = nodes.findLast((one) => one !== owner) as number;
  const { jid } = await groupOf(dead);
  await lab.kill(dead, "overlay");
  const rest = nodes.filter((one) => one !== dead);
  const after = await untilAtRest(rest);
  expect([after.round, await lab.owner()]).toEqual([round + 1, owner]);
  await lab.start(dead);
  await untilAtRest(nodes);
  expect((await groupOf(dead)).jid).toBe(jid);
});

it("a killed owner: the others are blocked until the next one has put its jid in order, and go on", async () => {
  const { round } = await untilAtRest(nodes);
  const owner = await lab.owner();
  const rest = nodes.filter((one) => one !== owner);
  await lab.kill(owner, "overlay");
  const made = rest.map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }).run(`os.mkdir(f"after {n}"); result = n`, { n: nodeid }));
  expect(await Promise.all(made)).toEqual(rest);
  const after = await untilAtRest(rest);
  expect(after.round).toBeGreaterThan(round);
  expect(after.members.filter(({ ownership }) => ownership === "serving").map(({ nodeid }) => nodeid)).toEqual([await lab.owner()]);
  await lab.start(owner);
  await untilAtRest(nodes);
});
