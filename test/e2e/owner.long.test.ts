/**
 * What the README promises of the owner: a clean unmount hands the volume over; when it dies operations wait, can be killed, and go on when it
 * is back; a refused mount says why.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { open as openFile, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectDlm } from "../../dlmd/client/client.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";
import { untilRole } from "./role.ts";

/** How long a state of the lab is waited for. */
const STATE_TIMEOUT_MS = 60_000;
const POLL_MS = 100;

describe("the owner", () => {
  let lab: TestLab;
  const at = (nodeid: number, name: string): string => path.join(lab.node(nodeid).mount, name);

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, fencing: false });
  });
  afterAll(async () => {
    await lab?.end();
  });

  it("hands the volume over when it unmounts; open files go on, and what was not synced is on disk", async () => {
    expect(await lab.owner()).toBe(1);
    await writeFile(at(1, "handed"), "over");
    const reader = spawn("python3", [
      "-u",
      "-c",
      "import os,sys\nfd=os.open(sys.argv[1],os.O_RDWR)\nos.pwrite(fd,b'over',0)\nprint('open',flush=True)\nsys.stdin.readline()\nos.fsync(fd)\nos.pwrite(fd,b'OV',0)\nprint(os.pread(fd,10,0).decode())",
      at(3, "handed"),
    ]);
    const lines = createInterface({ input: reader.stdout });
    expect(await once(lines, "line")).toEqual(["open"]);
    await lab.stop(1);
    expect([2, 3]).toContain(await lab.owner());
    expect(await readFile(at(2, "handed"), "utf8")).toBe("over");
    const answered = once(lines, "line");
    reader.stdin.end("\n");
    expect(await answered).toEqual(["OVer"]);
    await writeFile(at(2, "later"), "x");
    expect(await readFile(at(3, "later"), "utf8")).toBe("x");
    await lab.start(1);
    expect(await readFile(at(1, "handed"), "utf8")).toBe("OVer");
  });

  it("the cluster's key is replaced: mounts made before and after it reach each other", async () => {
    const owner = await lab.owner();
    const [first, second] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
    let changed: () => void = () => undefined;
    const handlers = { view() {}, async gone() {}, disconnected() {}, overlayKeysChanged: () => changed() };
    const clients = await Promise.all([1, 2, 3].map((nodeid) => connectDlm(path.join(lab.node(nodeid).runDir, "dlmd.sock"), handlers)));
    const firstSecrets = (): string[] => clients.map(({ info }) => Buffer.from(info.overlayKeys[0]?.bytes ?? []).toString("hex"));
    const before = firstSecrets();
    const open = await openFile(at(first, "rotated"), "w+");
    try {
      for (const [step, keys] of [
        ["--add", 2],
        ["--promote", 2],
        ["--prune", 1],
      ] as const) {
        const was = clients.map(({ info }) => info.overlayKeys);
        await coverlay(["keygen", step, path.join(lab.dir, "cluster.key")]);
        while (clients.some(({ info }, n) => info.overlayKeys === was[n] || info.overlayKeys.length !== keys)) {
          await new Promise<void>((resolve) => {
            changed = resolve;
          });
        }
        await open.write(step);
        expect(await readFile(at(second, "rotated"), "utf8")).toMatch(new RegExp(`${step}$`));
      }
    } finally {
      await open.close();
      await Promise.all(clients.map((client) => client.close()));
    }
    expect(new Set(firstSecrets()).size).toBe(1);
    expect(firstSecrets()[0]).not.toBe(before[0]);
    await lab.stop(second);
    await lab.start(second);
    expect(await readFile(at(second, "rotated"), "utf8")).toBe("--add--promote--prune");
    await writeFile(at(second, "rotated"), "new key");
    expect(await readFile(at(first, "rotated"), "utf8")).toBe("new key");
  });

  it("dies: operations wait and can be killed, and go on when it is back; what was synced is there", async () => {
    const owner = await lab.owner();
    const [first, second] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
    await lab.mustExec(first, [
      "python3",
      "-c",
      "import os\nfd=os.open('synced',os.O_CREAT|os.O_WRONLY)\nos.write(fd,b'kept')\nos.fsync(fd)\nos.fsync(os.open('.',0))",
    ]);
    await lab.kill(owner);
    await untilRole(lab, first, "waiting");
    await untilRole(lab, second, "waiting");

    const killed = spawn("python3", ["-c", "import os,sys\nos.mkdir(sys.argv[1])", at(first, "killed")]);
    const waits = spawn("cat", [at(second, "synced")]);
    let answer = "";
    waits.stdout.on("data", (chunk: Buffer) => {
      answer += chunk.toString();
    });
    const waitsExit = once(waits, "exit");
    // Both are in the kernel, in a request of FUSE, when that is what /proc says.
    for (const { pid } of [killed, waits]) await inFuse(pid as number);
    const killedExit = once(killed, "exit");
    process.kill(killed.pid as number, "SIGKILL");
    expect((await killedExit)[1]).toBe("SIGKILL");

    await lab.start(owner);
    expect(await waitsExit).toEqual([0, null]);
    expect(answer).toBe("kept");
    for (const nodeid of [1, 2, 3]) {
      await writeFile(at(nodeid, `back-${nodeid}`), "x");
      for (const other of [1, 2, 3]) expect((await stat(at(other, `back-${nodeid}`))).size).toBe(1);
    }
  });

  it("refusals: each with its own words and exit status 32", async () => {
    const { runDir, mount } = lab.node(2);
    const device = (await lab.status()).find((one) => one.nodeid === 2)?.device ?? "";
    const inNode = async (...words: string[]): Promise<{ status: number | null; stderr: string }> => {
      const result = await lab.exec(2, ["node", path.resolve("dist/overlay/main.js"), "mount", ...words], {});
      return { status: result.status, stderr: result.stderr };
    };
    const again = await inNode(device, mount, "-o", `runDir=${runDir}`);
    expect(again.status).toBe(32);
    expect(again.stderr).toMatch(/already mounted/);
    const noDlmd = await inNode(device, lab.dir, "-o", `runDir=${lab.dir}`);
    expect(noDlmd.status).toBe(32);
    expect(noDlmd.stderr).toMatch(/dlmd/);
    const noDevice = await inNode("/dev/no-such-device", lab.dir, "-o", `runDir=${runDir}`);
    expect(noDevice.status).toBe(32);
    expect(noDevice.stderr).toMatch(/no-such-device/);
    const badOption = await inNode(device, lab.dir, "-o", `runDir=${runDir},data=journal`);
    expect(badOption.status).toBe(1);
    expect(badOption.stderr).toMatch(/data/);
    const help = await coverlay(["mount", "--help"]);
    expect(help.stdout).toMatch(/Exit status/);
  });
});

async function inFuse(pid: number): Promise<void> {
  const deadline = performance.now() + STATE_TIMEOUT_MS;
  for (;;) {
    const wchan = await readFile(`/proc/${pid}/stack`, "utf8").catch(() => "");
    if (/fuse|request_wait_answer/.test(wchan)) return;
    if (performance.now() > deadline) throw new Error(`process ${pid} should wait in FUSE: ${wchan}`);
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}
