/** An owner that loses its disk (hazard R6), and one that is killed: nobody is told an error that is the disk's, and the calls go on. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, it } from "vitest";
import { labFiles } from "../../overlay/lab/layout.ts";
import { WITHDRAW_AGAIN_MS } from "../../overlay/lower/server/disk-fault.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { tryExclusive } from "../../overlay/volume/device.ts";
import { readOwnerBlock, writeOwnerBlock } from "../../overlay/volume/direct-block.ts";
import type { Life } from "../../overlay/volume/life.ts";
import type { OwnerBlock } from "../../overlay/volume/owner-block.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { coverlay, logOf, type TestLab, withLab } from "./lab.ts";
import { hasSuperblock, lowerDirectory } from "./owner-lower.ts";
import { storedBit } from "./volume/take.ts";

const STATE_TIMEOUT_MS = 60_000;
const POLL_MS = 100;

afterEach(() => endActors());

interface Status {
  readonly role: string;
  readonly why: string;
  readonly disk: string | null;
  readonly pid: number;
}

const statusOf = async (lab: TestLab, nodeid: number): Promise<Status> =>
  (await queryOverlayStatus(lab.node(nodeid).runDir)) as unknown as Status;

async function says(lab: TestLab, nodeid: number, why: RegExp): Promise<Status> {
  const deadline = performance.now() + STATE_TIMEOUT_MS;
  for (;;) {
    const status = await statusOf(lab, nodeid);
    if (why.test(status.why)) return status;
    if (performance.now() > deadline) throw new Error(`node${nodeid} should say ${why}, says: ${status.why}`);
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}

interface Program {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
}

/** In the background; its working directory is outside of every mount. */
function python(script: string, ...words: string[]): Program {
  const child = spawn("python3", ["-c", script, ...words], { cwd: "/", stdio: "ignore" });
  return { child, ended: once(child, "exit").then(([status]) => status as number | null) };
}

const LOWERS = ["ext4", "xfs"] as const;

for (const lower of LOWERS) {
  it(`${lower}: an owner whose path to the disk is lost for good withdraws by itself: calls wait, and go on with another node`, async () => {
    await withLab({ nodes: 3, lower }, async (lab) => {
      expect(await lab.owner()).toBe(1);
      const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
      const [own, theirs, third, syncs, reader] = [on(1), on(2), on(3), on(2), on(3)];
      await syncs.run(`put("synced", "kept"); kept = os.open("synced", os.O_RDWR); os.fsync(kept)
os.mkdir("d1"); os.mkdir("d2"); os.mkdir("d3"); os.fsync(os.open(".", os.O_RDONLY))`);
      await own.run(`fd = os.open("d1/own", os.O_RDWR | os.O_CREAT); os.write(fd, b"of the owner")`);
      await reader.run(`os.stat("synced")`);
      for (const [program, directory] of [
        [theirs, "d2"],
        [third, "d3"],
      ] as const)
        await program.run(`os.stat(name)`, { name: directory });
      // Answered, and not synced.
      await theirs.run(`fd = os.open("d2/theirs", os.O_RDWR | os.O_CREAT); os.write(fd, b"of another")`);
      // Nobody reaches it, so that all are seen to wait.
      for (const nodeid of [3, 2, 1]) await lab.lab("cut", `node${nodeid}`);
      // MMP of ext4, or a read, may meet the cut first: then this write waits, and is made by the next owner.
      const trigger = syncs.run<string>(
        `fd = os.open("synced", os.O_RDWR); os.pwrite(fd, b"!", 4); result = code(os.fsync, fd)`,
        {},
        STATE_TIMEOUT_MS,
      );
      const withdrawn = await says(
        lab,
        1,
        /this node does not reach the device, and looks again: it was given up: (E[A-Z]+ of a (change|read)|the kernel has turned)/,
      );
      expect(withdrawn.role).toBe("waiting");
      expect(withdrawn.disk).toMatch(/^(E[A-Z]+ of a (change|read)|the kernel has turned)/);
      expect(logOf(lab, 1)).toMatch(/withdrawing from the volume: calls wait[^]*the disk is let go of, and not clean/);
      for (const nodeid of [2, 3]) expect((await says(lab, nodeid, /does not reach the device/)).role).toBe("waiting");
      const calls = [
        own.run<string>(`result = code(os.mkdir, "d1/made")`, {}, STATE_TIMEOUT_MS),
        theirs.run<string>(`result = code(os.mkdir, "d2/made")`, {}, STATE_TIMEOUT_MS),
        third.run<string>(`result = code(os.mkdir, "d3/made")`, {}, STATE_TIMEOUT_MS),
        reader.run<string>(`result = get("synced")[0:4]`, {}, STATE_TIMEOUT_MS),
      ];
      for (const program of [own, theirs, third, syncs, reader]) await untilWaiting(program);
      // Another node's path is well again. That of the owner stays cut.
      await lab.lab("uncut", "node3");
      expect(await Promise.all(calls)).toEqual(["ok", "ok", "ok", "kept"]);
      expect(await lab.owner()).toBe(3);
      expect(["ok", "EIO"]).toContain(await trigger);
      // Answered, and perhaps not on the disk: fsync says so, on the node that wrote it. ESTALE: nor is the file.
      for (const program of [own, theirs]) expect(["EIO", "ESTALE"]).toContain(await program.run(`result = code(os.fsync, fd)`));
      const anew = `result = [code(os.pwrite, kept, b"anew", 0), code(os.fsync, kept), code(os.fsync, kept)]`;
      expect(await syncs.run(anew)).toEqual(["ok", expect.stringMatching(/^(ok|EIO)$/), "ok"]);
      expect(await own.run(`result = code(os.mkdir, "d1/later")`)).toBe("ok");
      expect((await statusOf(lab, 1)).role).toBe("remote");
      const there = `result = [all("made" in os.listdir(name) for name in ("d1", "d2", "d3")), get("synced")[0:4]]`;
      expect(await third.run(there)).toEqual([true, "anew"]);
    });
  });

  it(`${lower}: a call that meets the failure at the owner is made by the next one: nobody is told EIO or EROFS`, async () => {
    await withLab({ nodes: 3, lower }, async (lab) => {
      expect(await lab.owner()).toBe(1);
      const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
      const programs = [on(1), on(2), on(2), on(3)];
      // And each has a file without a name open (H10).
      const prepare = `os.mkdir(f"d{at}"); os.fsync(os.open(".", os.O_RDONLY))
fd = os.open(f"n{at}", os.O_RDWR | os.O_CREAT); os.write(fd, b"kept"); os.unlink(f"n{at}"); os.fsync(fd)`;
      for (const [at, program] of programs.entries()) await program.run(prepare, { at });
      const directory = lowerDirectory((await statusOf(lab, 1)).pid, (await lab.status())[0]?.device ?? "");
      // FS_IOC_SHUTDOWN, after a flush: from here on the file system answers EIO by itself, as after a lost disk.
      const shutdown = startActor({ cwd: "/" });
      await shutdown.run(`fd = os.open(directory, os.O_RDONLY); fcntl.ioctl(fd, 0x8004587d, struct.pack("I", 0)); os.close(fd)`, {
        directory,
      });
      const began = performance.now();
      const steps = programs.map((program, at) =>
        program.run<string[]>(`result = [code(os.mkdir, f"d{at}/{k}") for k in range(20)]`, { at }, STATE_TIMEOUT_MS),
      );
      for (const made of await Promise.all(steps)) expect(new Set(made)).toEqual(new Set(["ok"]));
      process.stdout.write(`${lower}: all went on after ${Math.round(performance.now() - began)} ms\n`);
      expect(await lab.owner()).not.toBe(1);
      expect((await statusOf(lab, 1)).role).toBe("remote");
      expect(await programs[3]?.run(`result = [len(os.listdir(f"d{at}")) for at in range(4)]`)).toEqual([20, 20, 20, 20]);
      const nameless = `result = [os.pread(fd, 9, 0).decode(), os.fstat(fd).st_nlink, code(os.pwrite, fd, b"more", 4), code(os.fsync, fd)]`;
      for (const program of programs) expect(await program.run(nameless)).toEqual(["kept", 0, "ok", "ok"]);
    });
  });
}

it("a disk that comes back, and that no other node reaches, is mounted again by its node: calls wait for a minute and go on", async () => {
  await withLab({ nodes: 2 }, async (lab) => {
    const program = startActor({ cwd: lab.node(1).mount });
    const other = startActor({ cwd: lab.node(2).mount });
    await program.run(
      `fd = os.open("f", os.O_RDWR | os.O_CREAT); os.write(fd, b"kept"); os.fsync(fd); os.fsync(os.open(".", os.O_RDONLY))`,
    );
    await other.run(`os.stat("f")`);
    // Answered, and not synced.
    await program.run(`os.pwrite(fd, b"lost", 0)`);
    for (const nodeid of [2, 1]) await lab.lab("cut", `node${nodeid}`);
    const trigger = startActor({ cwd: lab.node(1).mount });
    const triggered = trigger.run<string>(
      `fd = os.open("f", os.O_RDWR); os.pwrite(fd, b"!", 4); result = code(os.fsync, fd)`,
      {},
      2 * WITHDRAW_AGAIN_MS,
    );
    await says(lab, 1, /it was given up/);
    const made = other.run<string>(`result = code(os.mkdir, "made")`, {}, 2 * WITHDRAW_AGAIN_MS);
    await untilWaiting(other);
    await lab.lab("uncut", "node1");
    expect(await made).toBe("ok");
    expect(["ok", "EIO"]).toContain(await triggered);
    expect(await lab.owner()).toBe(1);
    expect(await program.run(`result = [code(os.fsync, fd), code(os.fsync, fd)]`)).toEqual(["EIO", "ok"]);
    expect(await program.run(`result = get("f")[0:4]`)).toMatch(/^(kept|lost)$/);
  });
});

it("a file system that the kernel finds damaged stays with its owner: changes end with EROFS, and status says so", async () => {
  await withLab({ nodes: 2 }, async (lab) => {
    const device = (await lab.status()).find((one) => one.nodeid === 1)?.device ?? "";
    // ext4 counts it as wrong metadata (EFSCORRUPTED).
    await writeFile(`/sys/fs/ext4/${path.basename(device)}/trigger_fs_error`, "found by a test");
    const says = async (): Promise<string> => (await coverlay(["status", "--run-dir", lab.node(1).runDir])).stdout;
    await until("status says that it is damaged", async () => /disk: the file system is damaged/.test(await says()));
    const made = python("import os,sys\nos.mkdir(sys.argv[1])", path.join(lab.node(2).mount, "d"));
    expect(await made.ended).not.toBe(0);
    expect(await lab.owner()).toBe(1);
  });
});

/** Another machine has the disk, from now on. */
async function nameAnother(device: string): Promise<{ readonly life: Life; readonly read: () => Promise<OwnerBlock> }> {
  const { ownerBlock, uuid } = storedBit(device);
  const read = (): Promise<OwnerBlock> => readOwnerBlock(device, ownerBlock ?? 0, uuid);
  const block = await read();
  const life = { ...(block.life as Life), nodeid: 9, bootId: "another-boot", hostName: "another" };
  await writeOwnerBlock(device, ownerBlock ?? 0, { ...block, sequence: block.sequence + 1, life });
  return { life, read };
}

it("another life in the owner's block: the owner withdraws, and what it had in memory does not come to the disk", async () => {
  await withLab({ nodes: 2, lower: "xfs" }, async (lab) => {
    const device = (await lab.status()).find((one) => one.nodeid === 1)?.device ?? "";
    const program = startActor({ cwd: lab.node(1).mount });
    await program.run(`put("synced", "kept"); fd = os.open("synced", os.O_RDWR); os.fsync(fd); os.fsync(os.open(".", os.O_RDONLY))`);
    await program.run(`put("lost", "in memory only, " * 1000)`);
    const { life, read } = await nameAnother(device);
    expect((await says(lab, 1, /^withdrawn: .*written by another node meanwhile: it names process \d+ of node 9 on another/)).role).toBe(
      "waiting",
    );
    expect(tryExclusive(device)).toBe("free");
    expect(await read()).toMatchObject({ state: "owned", life });
    expect(readFileSync(labFiles(lab.dir).image).includes("in memory only, in memory")).toBe(false);
  });
});

it("another life in the owner's block, and the owner is unmounted before it looks: what other nodes wrote does not come to the disk either", async () => {
  await withLab({ nodes: 2, lower: "xfs" }, async (lab) => {
    const device = (await lab.status()).find((one) => one.nodeid === 1)?.device ?? "";
    const program = startActor({ cwd: lab.node(2).mount });
    await program.run(`put("lost", "in memory only, " * 1000); fd = os.open("lost", os.O_RDWR)`);
    const { life, read } = await nameAnother(device);
    await coverlay(["umount", lab.node(1).mount]);
    await until("the device is free", () => tryExclusive(device) === "free");
    expect(logOf(lab, 1)).toMatch(/withdrawing from the volume: calls wait .*written by another node meanwhile/);
    expect(await read()).toMatchObject({ state: "owned", life });
    expect(readFileSync(labFiles(lab.dir).image).includes("in memory only, in memory")).toBe(false);
    // Nobody can say whether it is on the disk until there is an owner.
    void program.run(`os.fsync(fd)`).catch(() => undefined);
    await untilWaiting(program);
  });
});

/** Makes, writes and syncs one file after the other until told to stop; prints the errors, how many it made, and the longest time that one took. */
const LOAD = `
import json, os, sys, threading, time
directory, go = sys.argv[1], True
content = lambda n: (str(n) * 9000).encode()[:9000]
threading.Thread(target=lambda: (sys.stdin.read(), globals().update(go=False)), daemon=True).start()
early = os.open(f"{directory}/early", os.O_CREAT | os.O_RDWR)
os.pwrite(early, b"not synced", 0)
print("runs", flush=True)
made, errors, longest = 0, [], 0
while go:
    begun = time.monotonic()
    try:
        fd = os.open(f"{directory}/{made}", os.O_CREAT | os.O_RDWR, 0o644)
        os.pwrite(fd, content(made), 0)
        os.pwrite(fd, b"end", 9000)
        if made % 10 == 0: os.fsync(fd)
        os.close(fd)
        made += 1
    except OSError as error:
        errors.append(str(error))
    longest = max(longest, time.monotonic() - begun)
try: os.fsync(early)
except OSError as error: errors.append("early: " + str(error))
for n in range(made):
    with open(f"{directory}/{n}", "rb") as file: data = file.read()
    if data != content(n) + b"end": errors.append(f"{n} is wrong")
print(json.dumps({"made": made, "errors": errors, "longest": longest}), flush=True)
`;

interface LoadResult {
  readonly made: number;
  readonly errors: readonly string[];
  /** Seconds. */
  readonly longest: number;
}

it.each(LOWERS)(
  "%s: an owner whose overlay is killed is proved gone: another node goes on, without an error and without a fence",
  async (lower) => {
    await withLab({ nodes: 3, lower }, async (lab) => {
      expect(await lab.owner()).toBe(1);
      const device = (await lab.status())[0]?.device ?? "";
      const loads = [2, 3].map((nodeid) => {
        const directory = path.join(lab.node(nodeid).mount, `of-${nodeid}`);
        mkdirSync(directory);
        const child = spawn("python3", ["-c", LOAD, directory], { cwd: "/", stdio: ["pipe", "pipe", "inherit"] });
        return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
      });
      for (const { lines } of loads) expect((await lines.next()).value).toBe("runs");
      await lab.kill(1, "overlay");
      // The kernel unmounts it, and writes back first: that is not the takeover's time.
      await until("the device is free", () => !hasSuperblock(lower, device));
      const begun = performance.now();
      let next: number | null = null;
      while (next === null) {
        for (const nodeid of [2, 3]) if ((await statusOf(lab, nodeid)).role === "owner") next = nodeid;
        if (performance.now() - begun > STATE_TIMEOUT_MS) throw new Error(`no owner: ${(await statusOf(lab, 2)).why}`);
      }
      process.stderr.write(`${lower}: another owner after ${Math.round(performance.now() - begun)} ms\n`);
      const results: LoadResult[] = [];
      for (const { child, lines } of loads) {
        child.stdin.end();
        results.push(JSON.parse(String((await lines.next()).value)) as LoadResult);
      }
      for (const { made, errors, longest } of results) {
        expect(errors).toEqual([]);
        expect(made).toBeGreaterThan(0);
        process.stdout.write(`made ${made}, the longest took ${longest.toFixed(2)} s\n`);
      }
      // The mount of the killed overlay is gone, and is made again as any other.
      expect(() => readdirSync(lab.node(1).mount)).toThrow("ENOTCONN");
      await lab.start(1);
      expect((await statusOf(lab, 1)).role).toBe("remote");
      expect(readdirSync(lab.node(1).mount).filter((name) => name.startsWith("of-"))).toEqual(["of-2", "of-3"]);
    });
  },
);
