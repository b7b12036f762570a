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

/** So many requests wait there for the end of the block. */
async function untilHeld(nodeid: number, count: number): Promise<void> {
  let held: unknown;
  await until(
    `node${nodeid} holds ${count} requests`,
    async () => (held = (await queryOverlayStatus(lab.node(nodeid).runDir))["held"]) === count,
    () => `it holds ${String(held)}`,
  );
}

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

it.each(["the owner", "another node"])(
  "reads and a write through open files that a block of %s holds have the right bytes after it, though the writer was killed",
  async (which) => {
    const owner = await lab.owner();
    const nodeid = which === "the owner" ? owner : (nodes.find((one) => one !== owner) as number);
    const elsewhere = nodes.find((one) => one !== owner && one !== nodeid) as number;
    const name = `data-${which.replace(" ", "-")}`;
    const far = startActor({ cwd: lab.node(elsewhere).mount });
    // Each in a directory of its own. Far from the beginning, so that nothing has read it ahead.
    await far.run(
      `
for n in range(4): os.mkdir(f"{n}-{name}")
for n in range(3):
    fd = os.open(f"{n}-{name}/file", os.O_RDWR | os.O_CREAT); os.pwrite(fd, bytes([97 + n]) * 4096, 4 << 20); os.fsync(fd); os.close(fd)
os.stat(f"3-{name}")`,
      { name },
    );
    const actorIn = (n: number) => startActor({ cwd: path.join(lab.node(nodeid).mount, `${n}-${name}`) });
    const readers = [actorIn(0), actorIn(1)];
    const victim = actorIn(2);
    const open = `fd = os.open("file", os.O_RDWR); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM); os.pread(fd, 1, 0)`;
    await Promise.all([...readers, victim].map((actor) => actor.run(open)));
    await victim.run(`os.pwrite(fd, b"first", 0); os.fsync(fd)`);

    writeFileSync(knobFile(nodeid, "block"), "1\n");
    await until("the mount is blocked", async () => (await groupOf(nodeid)).block);
    const reading = readers.map((actor) => actor.run(`result = os.pread(fd, 4096, 4 << 20)`));
    await Promise.all(readers.map(untilWaiting));
    victim.run(`os.pwrite(fd, b"second", 0); os.fsync(fd)`).catch(() => undefined);
    // The kernel takes a request back that the overlay has not read yet: so it must be there before its program is killed.
    await untilHeld(nodeid, 3);
    victim.signal("SIGKILL");
    expect(await victim.ended).toMatchObject({ signal: "SIGKILL" });
    await untilHeld(nodeid, 4);
    // By another way to the owner: it would get the handle.
    await far.run(`fd = os.open(f"3-{name}/other", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"other!", 0); os.fsync(fd)`);

    writeFileSync(knobFile(nodeid, "block"), "0\n");
    expect(await Promise.all(reading)).toEqual(["a".repeat(4096), "b".repeat(4096)]);
    expect(await far.run(`result = [get(f"3-{name}/other"), get(f"2-{name}/file")[:6]]`)).toEqual(["other!", "second"]);
  },
);

it("what is no order is set back, and said in the log", async () => {
  writeFileSync(knobFile(2, "block"), "yes please\n");
  await until("the knob is set back", () => knob(2, "block") === "0\n");
  appendFileSync(knobFile(2, "block"), "1\n");
  await until("the knob is set back again", () => knob(2, "block") === "0\n");
  expect((await groupOf(2)).block).toBe(false);
});

it("a killed mount that was not the owner blocks nobody, even if another one does not let go of it; then its jid is free", async () => {
  const { round } = await untilAtRest(nodes);
  const owner = await lab.owner();
  const [still, dead] = nodes.filter((one) => one !== owner) as [number, number];
  const { jid } = await groupOf(dead);
  const worker = startActor({ cwd: lab.node(owner).mount });
  await worker.run(`os.mkdir("held"); fd = os.open("held/file", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"before", 0); os.fsync(fd)`);
  const { pid } = await queryOverlayStatus(lab.node(still).runDir);
  process.kill(pid, "SIGSTOP");
  try {
    await lab.kill(dead, "overlay");
    await until("the death is known", async () => (await groupOf(owner)).step === "stopping");
    expect(
      await worker.run(`os.pwrite(fd, b"while ", 0); os.fsync(fd); os.rename("held/file", "held/moved"); result = os.listdir("held")`),
    ).toEqual(["moved"]);
    expect(await groupOf(owner)).toMatchObject({ step: "stopping", block: false, dirty: [{ jid }] });
    expect([knob(owner, "block"), knob(owner, "recover")]).toEqual(["0\n", `${jid}\n`]);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  const rest = nodes.filter((one) => one !== dead);
  const after = await untilAtRest(rest);
  expect([after.round, await lab.owner()]).toEqual([round + 1, owner]);
  await lab.start(dead);
  await untilAtRest(nodes);
  expect((await groupOf(dead)).jid).toBe(jid);
});

it("a killed owner: the others are blocked until all have let go of it, and go on when there is the next one", async () => {
  const { round, members } = await untilAtRest(nodes);
  const owner = await lab.owner();
  const deadJid = members.find(({ nodeid }) => nodeid === owner)?.jid;
  const [near, far] = nodes.filter((one) => one !== owner) as [number, number];
  const maker = startActor({ cwd: lab.node(near).mount });
  const { pid } = await queryOverlayStatus(lab.node(far).runDir);
  // It lets go of nobody while it stands still.
  process.kill(pid, "SIGSTOP");
  let making: Promise<unknown>;
  try {
    await lab.kill(owner, "overlay");
    await until("the other one is blocked", async () => (await groupOf(near)).block);
    making = maker.run(`os.mkdir("after"); result = "made"`);
    await untilWaiting(maker);
    expect(await groupOf(near)).toMatchObject({ block: true, step: "stopping", dirty: [{ jid: deadJid, wasOwner: true }] });
    expect([knob(near, "block"), knob(near, "recover")]).toEqual(["1\n", `${deadJid}\n`]);
    const { stdout } = await coverlay(["status", "--run-dir", lab.node(near).runDir]);
    expect(stdout).toContain(`blocked until node${far} let go of the dead`);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  expect(await making).toBe("made");
  const after = await untilAtRest([near, far]);
  expect(after.round).toBeGreaterThan(round);
  expect(after.members.filter(({ ownership }) => ownership === "serving").map(({ nodeid }) => nodeid)).toEqual([await lab.owner()]);
  expect([knob(near, "block"), knob(near, "recover")]).toEqual(["0\n", "-1\n"]);
  await lab.start(owner);
  await untilAtRest(nodes);
});
