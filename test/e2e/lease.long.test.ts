/**
 * A node whose dlmd stands still (hazards C4, H1): its mount stops serving at the end of the lease, although nobody tells it, and its kernel
 * answers nothing from its caches; the others go on after that; what it does when its dlmd goes on.
 */
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaitingOrEnded } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";
import { untilMountEnded } from "./role.ts";
import { goOn, stopDlmd } from "./stopped-dlmd.ts";

let lab: TestLab;

beforeAll(async () => {
  lab = await startLab({ nodes: 3, size: "256M" });
});
afterEach(() => {
  goOn();
  endActors();
});
afterAll(async () => {
  await lab?.end();
});

/** The owner, and the others; all have the volume mounted. */
async function places(): Promise<{ owner: number; first: number; second: number }> {
  for (const { nodeid, overlayPid } of await lab.status()) if (overlayPid === null) await lab.start(nodeid);
  const owner = await lab.owner();
  const [first, second] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
  return { owner, first, second };
}

/** On a machine so busy that the others had gone on before: then nothing may be answered. */
const lost = /OSError|EIO|ENOTCONN|Transport|Input|ended with/;

async function counters(nodeid: number): Promise<Record<string, number>> {
  return (await queryOverlayStatus(lab.node(nodeid).runDir))["counters"] as Record<string, number>;
}

/** Stops dlmd, and waits until the lease has ended and the kernel has nothing cached any more. */
async function lapse(nodeid: number): Promise<void> {
  const { inodesDropped: before = 0 } = await counters(nodeid);
  stopDlmd(lab, nodeid);
  await until(
    "the lease has ended, and what was cached was dropped",
    async () => ((await counters(nodeid))["inodesDropped"] ?? 0) > before,
  );
}

/** It is open, and its kernel has it cached. */
const openWatched = `
import errno, os, time
fd = os.open("watched", os.O_RDONLY)
before = os.pread(fd, 16, 0)
last = time.clock_gettime(time.CLOCK_BOOTTIME)
result = before.decode()
`;

/** Reads it again and again until it changes or fails; gives what ended it, and when it was last as it was (CLOCK_BOOTTIME). */
const watch = `
while True:
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        now = os.pread(fd, 16, 0)
    except OSError as error:
        result = [last, errno.errorcode[error.errno]]
        break
    if now != before:
        result = [last, now.decode()]
        break
    last = began
`;

it("a dlmd that goes on in time: who waited goes on, nothing was lost; who was killed meanwhile is gone", async () => {
  const { first: victim } = await places();
  const { mount, runDir } = lab.node(victim);
  const [reader, killed]: Actor[] = [startActor({ cwd: mount }), startActor({ cwd: mount })];
  if (reader === undefined || killed === undefined) throw new Error("two actors");
  await reader.run(`
import os
with open("kept", "w") as file: file.write("as it was")
fd = os.open("kept", os.O_RDONLY)
os.pread(fd, 16, 0)`);
  await killed.run(`import os; fd = os.open("kept", os.O_RDONLY); os.pread(fd, 16, 0)`);
  const quiet = await queryOverlayStatus(runDir);
  expect(quiet["lease"]).toBe("holds");
  await lapse(victim);
  const waiting = reader.run<string>(`result = os.pread(fd, 16, 0).decode()`, {}, 60_000).catch(String);
  const dying = killed.run(`os.stat("kept")`).catch(String);
  for (const early of await Promise.all([untilWaitingOrEnded(reader, waiting), untilWaitingOrEnded(killed, dying)]))
    expect(early ?? "EIO").toMatch(lost);
  killed.signal("SIGKILL");
  expect((await killed.ended).signal).toBe("SIGKILL");
  await dying;
  goOn();
  const answer = await waiting;
  expect(answer).toMatch(answer === "as it was" ? /^as it was$/ : lost);
  if (answer !== "as it was") await untilMountEnded(runDir);
});

/** Descriptors that need no name, and ask for attributes only where the kernel has none that are valid. */
const look = `
import os
def look():
    for fd in held: os.fstat(fd)
`;

it("all that the kernel has cached is dropped at the end of the lease, also of thousands of inodes, and while one waits for a page", async () => {
  const { first: victim } = await places();
  const { mount, runDir } = lab.node(victim);
  const [here, mapping] = [startActor({ cwd: mount }), startActor({ cwd: mount })];
  const count = 2000;
  const made = `
import os
os.mkdir("many")
for i in range(count): os.close(os.open("many/%d" % i, os.O_CREAT | os.O_WRONLY))
with open("mapped", "wb") as file: file.write(b"m" * 65536)`;
  await here.run(made, { count });
  const hold = `
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, 2 * count))
held = [os.open("many/%d" % i, os.O_PATH) for i in range(count)]
look()`;
  await here.run(look + hold, { count });
  await mapping.run(`
import mmap, os
fd = os.open("mapped", os.O_RDONLY)
map = mmap.mmap(fd, 65536, mmap.MAP_SHARED, mmap.PROT_READ)
result = map[0]`);
  const requests = async (): Promise<number> => (await counters(victim))["fuseRequests"] ?? 0;
  const asked = async (): Promise<number> => {
    const before = await requests();
    await here.run("look()");
    return (await requests()) - before;
  };
  expect(await asked()).toBeLessThan(count / 100);
  await lapse(victim);
  const mapped = mapping.run<number>(`result = map[0]`, {}, 60_000).catch(String);
  expect((await untilWaitingOrEnded(mapping, mapped)) ?? "EIO").toMatch(lost);
  goOn();
  const [value, again] = await Promise.all([mapped, asked().catch(String)]);
  const isAlive = value === 109 && typeof again === "number";
  if (!isAlive) await untilMountEnded(runDir);
  expect(isAlive ? again : count).toBeGreaterThanOrEqual(count);
});

it.each([
  ["dlmd", false],
  ["dlmd and the overlay, whose keeper runs", true],
])("SIGSTOP of %s: no read that begins after another node's write has ended sees what was before it", async (_what, both) => {
  const { owner: writer, second: victim } = await places();
  const here = startActor({ cwd: lab.node(victim).mount });
  const there = startActor({ cwd: lab.node(writer).mount });
  await there.run(`with open("watched", "w") as file: file.write("before")`);
  expect(await here.run<string>(openWatched)).toBe("before");
  const watched = here.run<[number, string]>(watch, {}, 60_000);
  const overlay = lab.overlayPid(victim) as number;
  if (both) process.kill(overlay, "SIGSTOP");
  stopDlmd(lab, victim);
  // It needs the reader's lock: nobody gives it up, so it ends when the others have gone on.
  const write = `
import os, time
fd = os.open("watched", os.O_WRONLY)
os.pwrite(fd, b"after!", 0)
result = time.clock_gettime(time.CLOCK_BOOTTIME)
`;
  const written = await there.run<number>(write, {}, 60_000);
  if (both) process.kill(overlay, "SIGCONT");
  const [lastBefore, end] = await watched;
  expect(lastBefore).toBeLessThan(written);
  // The owner has ended its session by then, or its dlmd tells it below.
  expect(["EIO", "ENOTCONN", "ESTALE"]).toContain(end);
  goOn();
  await until("the mount that the others went on without is taken out", async () => {
    const answer = await here.run<string>(`
try:
    result = repr(os.listdir("."))
except OSError as error:
    result = errno.errorcode[error.errno]
`);
    return answer === "ENOTCONN";
  });
  expect(await there.run<string>(`result = open("watched").read()`)).toBe("after!");
});
