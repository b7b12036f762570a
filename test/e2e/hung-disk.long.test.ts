/** A disk that hangs on one node: that node's mount goes on answering, another node takes over, and other volumes do not notice. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, it } from "vitest";
import { enableVolume } from "../../overlay/cli/volume.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { DISK_ANSWER_LIMIT_MS } from "../../overlay/volume/disk-steps.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { HungDisk, noHang } from "./hung-disk.ts";
import { coverlay, coverlayProgram, logOf, noConfigChange, type TestLab, withLab } from "./lab.ts";
import { attachLoop, run, withDisk } from "./volume/disk.ts";

/** What the issue allows others to be late; a mount that stands still itself would be later. */
const OTHERS_LATE_MS = 5000;
/** A takeover after the first one was given up, on a machine that does other things. */
const TAKEOVER_MS = 15_000;
/** Of a state that a test waits for. */
const STATE_MS = 60_000;

let hung: HungDisk | null = null;
afterEach(() => {
  endActors();
  hung?.end();
  hung = null;
});

/** Mounts as an owner does, once a line comes; measures how long its event loop stood still at most. */
const MOUNTS = `
import { once } from "node:events";
const [at, device] = process.argv.slice(1);
const load = (file) => import(at + "/volume/" + file + ".js");
const { probeDevice } = await load("probe");
const { readOwnerBlock } = await load("direct-block");
const { mountLower } = await load("lower-mount");
const { DiskSteps } = await load("disk-steps");
const { bit } = probeDevice(device).bit;
const block = await readOwnerBlock(device, bit.ownerBlock, bit.uuid);
console.log("ready");
await once(process.stdin, "data");
let last = performance.now(), longest = 0;
setInterval(() => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; }, 10).unref();
const begun = performance.now();
const taking = { self: { nodeid: 1, incarnation: "i", clientId: 1 }, claim: { block, proof: null }, mayMount: () => true, disk: new DiskSteps(device) };
const code = await mountLower({ kind: "device", path: device }, bit, false, 0, taking).then(() => "mounted", (error) => error.code ?? String(error));
console.log(JSON.stringify({ code, ms: performance.now() - begun, longest }));
process.exit(0);
`;

it("a mount of a disk that hangs is given up at the limit, and the event loop never stands still", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  await withDisk("ext4", async ({ device }) => {
    await enableVolume(device, { cluster: "c", volume: "v", uuid: randomUUID() });
    const words = ["--input-type=module", "-e", MOUNTS, path.dirname(coverlayProgram), device];
    const child: ChildProcess = spawn(process.execPath, words, { stdio: ["pipe", "pipe", "inherit"] });
    if (child.stdout === null) throw new Error("no pipe");
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("ready");
    hung = new HungDisk(device);
    hung.hang(child.pid ?? 0);
    child.stdin?.write("go\n");
    const said = lines.next();
    // A mount that stands still says nothing at all.
    const limit = new Promise((resolve) => setTimeout(resolve, 2 * DISK_ANSWER_LIMIT_MS, { value: '{"code":"stands still"}' }));
    const { value } = (await Promise.race([said, limit])) as { value: string };
    hung.letGo();
    await once(child, "exit");
    const { code, ms, longest } = JSON.parse(value) as { code: string; ms: number; longest: number };
    expect(code).toBe("device-silent");
    expect(ms).toBeGreaterThanOrEqual(DISK_ANSWER_LIMIT_MS);
    expect(longest).toBeLessThan(DISK_ANSWER_LIMIT_MS / 2);
  });
});

async function must(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await coverlay(words);
  expect(`${status} ${stderr}`).toBe("0 ");
  return stdout;
}

/** Another volume, on a device of its own, mounted on that node only. */
async function withSecondVolume(lab: TestLab, nodeid: number, use: (directory: string) => Promise<void>): Promise<void> {
  const { runDir } = lab.node(nodeid);
  const image = path.join(lab.dir, "second.img");
  const directory = path.join(lab.node(nodeid).mount, "../second");
  const changed = path.join(lab.dir, "second.yaml");
  mkdirSync(directory);
  writeFileSync(image, "");
  truncateSync(image, 64 << 20);
  run("mkfs.ext4", "-q", "-F", image);
  const device = attachLoop(image);
  try {
    const yaml = readFileSync(path.join(lab.dir, "cluster.yaml"), "utf8");
    const cluster = /^cluster: (\S+)$/m.exec(yaml)?.[1] ?? "";
    const { uuid } = JSON.parse(await must("volume", "enable", device, "--cluster", cluster, "--name", "second", "--json")) as {
      uuid: string;
    };
    writeFileSync(changed, `${yaml.replace("version: 1", "version: 2").trimEnd()}\n  - { name: second, uuid: ${uuid}, lower: device }\n`);
    await must("config", "apply", changed, "--run-dir", runDir, "--json");
    await lab.mustExec(nodeid, [process.execPath, coverlayProgram, "mount", device, directory, "-o", `runDir=${runDir}`]);
    try {
      await use(directory);
    } finally {
      await lab.exec(nodeid, [process.execPath, coverlayProgram, "umount", directory]);
    }
  } finally {
    run("losetup", "--detach", device);
    for (const file of [image, changed]) rmSync(file, { force: true });
  }
}

/** Locks and unlocks files of its directory, one for each line that comes, or writes one anew; says how long each took, in ms. */
const PROGRAM = `
import fcntl, os, sys, time
what, where = sys.argv[1:3]
held = os.open(where + "/locked", os.O_CREAT | os.O_RDWR)
print("ready", flush=True)
for n, line in enumerate(sys.stdin):
    begun = time.monotonic()
    if what == "lock":
        fcntl.lockf(held, fcntl.LOCK_EX)
        fcntl.lockf(held, fcntl.LOCK_UN)
    else:
        fd = os.open(f"{where}/{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, b"x"); os.close(fd)
    print(int(1000 * (time.monotonic() - begun)), flush=True)
`;

interface Program {
  readonly turn: () => Promise<number>;
  readonly end: () => Promise<void>;
}

async function program(what: "lock" | "write", where: string): Promise<Program> {
  const child = spawn("python3", ["-c", PROGRAM, what, where], { cwd: "/", stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  expect((await lines.next()).value).toBe("ready");
  return {
    turn: async () => {
      child.stdin.write("\n");
      return Number((await lines.next()).value);
    },
    end: async () => {
      child.stdin.end();
      await once(child, "exit");
    },
  };
}

it("the node whose turn it is has a disk that hangs: locks and another volume go on, another node takes over", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  ctx.skip(noConfigChange !== null, noConfigChange ?? "");
  await withLab({ nodes: 3 }, async (lab) => {
    const device = (await lab.status()).find((one) => one.nodeid === 2)?.device ?? "";
    const status = (nodeid: number, mount = lab.node(nodeid).mount): Promise<{ role: string; why: string; pid: number }> =>
      queryOverlayStatus(lab.node(nodeid).runDir, OTHERS_LATE_MS, mount) as never;
    expect(await lab.owner()).toBe(1);
    // Node 3 comes last, so that the turn is node 2's.
    await lab.stop(3);
    await lab.start(3);
    await withSecondVolume(lab, 2, async (second) => {
      const programs = [
        await program("lock", lab.node(2).mount),
        await program("lock", lab.node(3).mount),
        await program("write", second),
        await program("write", lab.node(3).mount),
      ] as const;
      const [locks2, locks3, other, waits] = programs;
      // Each has the file's lock in turn, so that the other must answer.
      for (const { turn } of [locks2, locks3, locks2]) await turn();
      hung = new HungDisk(device);
      hung.hang((await status(2)).pid);
      await lab.kill(1, "overlay");
      const begun = performance.now();
      let said = "";
      while (!/\/dev\/loop\d+ has not answered for 5 s/.test(said) && performance.now() - begun < TAKEOVER_MS) {
        const asked = performance.now();
        said = (await status(2)).why;
        expect(performance.now() - asked).toBeLessThan(OTHERS_LATE_MS);
        expect(await other.turn()).toBeLessThan(OTHERS_LATE_MS);
      }
      expect(said).toMatch(/has not answered for 5 s \(reading the owner's block\)/);
      for (const { turn } of [locks3, locks2, locks3]) expect(await turn()).toBeLessThan(OTHERS_LATE_MS);
      expect(await waits.turn()).toBeLessThan(TAKEOVER_MS);
      expect((await status(3)).role).toBe("owner");
      for (const { end } of programs) await end();
      hung.letGo();
    });
  });
});

it("R7: a node dies while its call waits for the owner's hung disk: the owner withdraws, another volume goes on, and then all", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  ctx.skip(noConfigChange !== null, noConfigChange ?? "");
  await withLab({ nodes: 3 }, async (lab) => {
    expect(await lab.owner()).toBe(1);
    await withSecondVolume(lab, 3, async (second) => {
      const other = await program("write", second);
      const [dies, waits] = [2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor];
      await dies.run(`fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_DSYNC); os.pwrite(fd, b"x" * 4096, 0)`);
      await waits.run(`os.mkdir("d"); os.fsync(os.open(".", os.O_RDONLY))`);
      await lab.lab("hang", "node1");
      // Of what changes nothing, a sync too, nobody waits for the end.
      const ended = dies.run(`os.pwrite(fd, b"y" * 4096, 0)`).catch(() => "ended with its node");
      await untilWaiting(dies);
      await lab.kill(2);
      // Its calls of the dead node have 5 s to end, and do not.
      await until("the owner withdraws", () => /withdrawing from the volume[^\n]*did not end in 5000 ms/.test(logOf(lab, 1)));
      const made = waits.run<string>(`result = code(os.mkdir, "d/made")`, {}, STATE_MS);
      await untilWaiting(waits);
      expect((await queryOverlayStatus(lab.node(3).runDir, OTHERS_LATE_MS, lab.node(3).mount))["role"]).not.toBe("owner");
      await other.turn();
      await lab.lab("unhang", "node1");
      expect(["ok", "EIO"]).toContain(await made);
      expect(await waits.run<string>(`os.makedirs("d/later"); result = code(os.fsync, os.open("d", os.O_RDONLY))`, {}, STATE_MS)).toBe(
        "ok",
      );
      expect([1, 3]).toContain(await lab.owner());
      await other.end();
      expect(await ended).toBe("ended with its node");
      endActors();
    });
  });
});
