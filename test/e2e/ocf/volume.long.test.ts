/** ocf:coverlay:volume with real mounts: `ocf-tester`, and each state in which a mount can be. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { run } from "../../../overlay/lab/command.ts";
import { noOcf, Ocf, type Parameters, reasonOf } from "../../ocf-agent.ts";
import { until } from "../actor.ts";
import { startLab, type TestLab } from "../lab.ts";
import { becomeOwner, connectionOf, type LabAgent, labAgent, overlayPid } from "./lab-agent.ts";

const missing = noOcf();
const tester = "/usr/sbin/ocf-tester";
const noTester = noOcf(tester, "/usr/bin/xmllint");

describe("ocf:coverlay:volume", () => {
  let lab: TestLab;
  let here: LabAgent;
  let directory: string;

  beforeAll(async () => {
    if (missing !== null) return;
    lab = await startLab({ nodes: 2, size: "256M" });
    here = await labAgent(lab, 1);
    directory = lab.node(1).mount;
  });
  afterAll(async () => {
    here?.agent.end();
    await lab?.end();
  });

  const ask = async (action: string, more: Parameters = {}, env: Parameters = {}, timeoutS = 60): Promise<[number | null, string]> => {
    const result = await here.agent.act(action, { ...here.parameters, ...more }, env, { timeoutS });
    return [result.status, reasonOf(result)];
  };
  const isMounted = (): boolean => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${directory} `);
  const ok = [Ocf.SUCCESS, ""];

  it("a mount that serves is running, at each depth; the deepest leaves one file of a line", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    for (const level of ["0", "10", "20"]) expect(await ask("monitor", {}, { OCF_CHECK_LEVEL: level })).toEqual(ok);
    expect(await ask("status")).toEqual(ok);
    expect(await ask("start")).toEqual(ok);
    const [file = "", ...others] = readdirSync(path.join(directory, ".coverlay-monitor"));
    expect([others, readFileSync(path.join(directory, ".coverlay-monitor", file), "utf8")]).toEqual([
      [],
      expect.stringMatching(/^\d+ \d+\n$/),
    ]);
    // Another volume that is mounted here is not this one.
    expect(await ask("monitor", { device: "/dev/null" })).toEqual([Ocf.NOT_RUNNING, ""]);
  });

  it("a stop and a start where no file can be made for what is said lose the words, and nothing else", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const bin = path.join(here.agent.folder, "bin");
    mkdirSync(bin, { recursive: true });
    writeFileSync(path.join(bin, "mktemp"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
    const nowhere = { PATH: `${bin}:${process.env["PATH"]}` };
    expect(await ask("stop", {}, nowhere)).toEqual(ok);
    expect(isMounted()).toBe(false);
    expect(await ask("start", {}, nowhere)).toEqual(ok);
    expect(await ask("monitor")).toEqual(ok);
  });

  it("the owner's overlay is killed: it is no success at any depth; start mounts anew, while the other node goes on", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    await becomeOwner(lab, 1);
    expect(await lab.owner()).toBe(1);
    writeFileSync(path.join(directory, "file"), "before");
    const pid = overlayPid(lab, 1);
    await lab.kill(1, "overlay");
    await until("it is gone", () => startTimeOf(pid) === null);
    const dead = [Ocf.GENERIC, `no overlay serves the mount at ${directory}`];
    for (const level of ["0", "10", "20"]) expect(await ask("monitor", {}, { OCF_CHECK_LEVEL: level })).toEqual(dead);
    expect(await ask("start")).toEqual(ok);
    expect(overlayPid(lab, 1)).not.toBe(pid);
    expect(await ask("monitor", {}, { OCF_CHECK_LEVEL: "20" })).toEqual(ok);
    expect(readFileSync(path.join(lab.node(2).mount, "file"), "utf8")).toBe("before");
  });

  it("its connection is aborted: it is no success, and a stop leaves nothing", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const pid = overlayPid(lab, 1);
    const connection = `/sys/fs/fuse/connections/${connectionOf(lab, 1)}`;
    process.kill(pid, "SIGSTOP");
    try {
      // It stands still: calls wait, which is no failure, and no second one is made.
      for (let turn = 0; turn < 2; turn++) expect(await ask("monitor")).toEqual(ok);
      writeFileSync(`${connection}/abort`, "1");
      const aborted = [Ocf.GENERIC, `calls to ${directory} fail: its connection was aborted`];
      for (const action of ["monitor", "start"]) expect(await ask(action)).toEqual(aborted);
      expect(isMounted()).toBe(true);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    expect(await ask("stop")).toEqual(ok);
    expect(startTimeOf(pid)).toBe(null);
    expect(isMounted()).toBe(false);
    expect(await ask("start")).toEqual(ok);
  });

  it("the deepest look follows no link of a user, and a full disk is no failure", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const deepest = (env: Parameters = {}): Promise<[number | null, string]> => ask("monitor", {}, { OCF_CHECK_LEVEL: "20", ...env });
    const folder = path.join(directory, ".coverlay-monitor");
    const precious = path.join(here.agent.folder, "precious");
    writeFileSync(precious, "precious");
    expect(await deepest()).toEqual(ok);
    const [name = ""] = readdirSync(folder);
    const file = path.join(folder, name);
    rmSync(file);
    symlinkSync(precious, file);
    expect((await deepest())[0]).toBe(Ocf.GENERIC);
    rmSync(file);
    const notWritten = async (): Promise<void> => {
      expect(await deepest()).toEqual(ok);
      expect(readdirSync(folder)).toEqual([]);
    };
    chmodSync(folder, 0o775);
    await notWritten();
    chmodSync(folder, 0o755);
    chownSync(folder, 1000, 0);
    await notWritten();
    chownSync(folder, 0, 0);
    renameSync(folder, `${folder}-real`);
    symlinkSync(`${folder}-real`, folder);
    await notWritten();
    rmSync(folder);
    renameSync(`${folder}-real`, folder);
    expect(await deepest()).toEqual(ok);
    expect(readdirSync(folder)).toEqual([name]);
    expect(readFileSync(precious, "utf8")).toBe("precious");
    // dd, with the words of a disk's errors.
    const failing = async (words: string): Promise<[number | null, string]> => {
      writeFileSync(path.join(here.agent.folder, "dd"), `#!/bin/sh\ncat\necho "dd: writing: ${words}" >&2\nexit 1\n`, { mode: 0o755 });
      return deepest({ PATH: `${here.agent.folder}:${process.env["PATH"]}` });
    };
    expect(await failing("No space left on device")).toEqual(ok);
    expect(await failing("Disk quota exceeded")).toEqual(ok);
    expect((await failing("Input/output error"))[0]).toBe(Ocf.GENERIC);
  });

  it("a stop waits until the volume is released, also where it is unmounted and still in use", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const pid = overlayPid(lab, 1);
    const user = spawn("sh", ["-c", "echo; read -r word; echo $word > late"], { cwd: directory, stdio: ["pipe", "pipe", "ignore"] });
    await once(user.stdout, "data");
    expect((await run("umount", ["-i", "-l", directory])).status).toBe(0);
    const leaving = `the overlay of ${directory}, process ${pid}, has not released the volume`;
    expect(await ask("monitor")).toEqual([Ocf.GENERIC, leaving]);
    expect(await ask("start")).toEqual([Ocf.GENERIC, `${leaving}: stop it first`]);
    const stopped = ask("stop");
    user.stdin.end("word\n");
    expect(await stopped).toEqual(ok);
    expect(startTimeOf(pid)).toBe(null);
    expect(readFileSync(path.join(lab.node(2).mount, "late"), "utf8")).toBe("word\n");
    expect(await ask("start")).toEqual(ok);
  });

  it("a stop ends who uses the volume, if it is let; if not it fails, and says why", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    // It takes no notice of SIGTERM.
    const user = spawn("sh", ["-c", "trap : TERM; echo; while :; do sleep 1; done"], {
      cwd: directory,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const ended = once(user, "exit");
    await once(user.stdout, "data");
    const [status, words] = await ask("stop", { force_unmount: "false" });
    expect([status, words]).toEqual([Ocf.GENERIC, `coverlay umount: unmounting ${directory} failed: EBUSY`]);
    expect(await ask("monitor")).toEqual(ok);
    // Pacemaker hands a word on as it was written.
    expect(await ask("stop", { force_unmount: "True" })).toEqual(ok);
    expect(await ended).toEqual([null, "SIGKILL"]);
    expect(isMounted()).toBe(false);
    expect(await ask("stop")).toEqual(ok);
    expect(await ask("monitor")).toEqual([Ocf.NOT_RUNNING, ""]);
  });

  it("a stop whose users do not end is over in its time, with the reason", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(await ask("start")).toEqual(ok);
    const program = path.join(here.agent.folder, "always-busy");
    writeFileSync(program, "#!/bin/sh\necho 'coverlay: umount: EBUSY' >&2; exit 32\n", { mode: 0o755 });
    expect(await ask("stop", { coverlay: program }, {}, 8)).toEqual([
      Ocf.GENERIC,
      expect.stringMatching(/umount: .*EBUSY, and the stop is out of time$/),
    ]);
    writeFileSync(program, "#!/bin/sh\nexec sleep 600\n", { mode: 0o755 });
    const silent = "coverlay umount: it has not ended, and the stop is out of time";
    expect(await ask("stop", { coverlay: program }, {}, 8)).toEqual([Ocf.GENERIC, silent]);
    expect(await ask("monitor")).toEqual(ok);
    expect(await ask("stop")).toEqual(ok);
  });

  it("what else is mounted there is left alone; over ours it is an error", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect((await run("mount", ["-t", "tmpfs", "tmpfs", directory])).status).toBe(0);
    expect(await ask("monitor")).toEqual([Ocf.NOT_RUNNING, ""]);
    expect(await ask("start")).toEqual([Ocf.GENERIC, `tmpfs of type tmpfs is mounted at ${directory}`]);
    expect(await ask("stop")).toEqual(ok);
    expect((await run("umount", [directory])).status).toBe(0);
    expect(await ask("start")).toEqual(ok);
    expect((await run("mount", ["-t", "tmpfs", "tmpfs", directory])).status).toBe(0);
    const covered = `tmpfs of type tmpfs is mounted at ${directory}`;
    for (const action of ["monitor", "start"]) expect(await ask(action)).toEqual([Ocf.GENERIC, covered]);
    expect(await ask("stop")).toEqual([Ocf.GENERIC, `${covered}: unmount that first`]);
    expect((await run("umount", [directory])).status).toBe(0);
    expect(await ask("monitor")).toEqual(ok);
  });

  it("without a quorum a start waits, ends in its time with the reason, and leaves nothing", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(await ask("stop")).toEqual(ok);
    await lab.kill(2);
    await until("there is no quorum", async () => (await lab.status()).find(({ nodeid }) => nodeid === 1)?.view?.quorate === false);
    // 15 s of them are for the mount, which has to start and to say why it waits.
    const [status, words] = await ask("start", {}, {}, 28);
    expect([status, words]).toEqual([Ocf.GENERIC, expect.stringMatching(/^not mounted in 15 s: the cluster has no quorum/)]);
    expect(await ask("monitor")).toEqual([Ocf.NOT_RUNNING, ""]);
    await lab.start(2);
    expect(await ask("start")).toEqual(ok);
  });

  it("ocf-tester has nothing against it", async ({ skip }) => {
    skip(noTester !== null, noTester ?? "");
    const options = Object.entries({ ...here.parameters, coverlay: here.agent.program }).flatMap(([name, value]) => [
      "-o",
      `${name}=${value}`,
    ]);
    const result = await run(tester, ["-n", "shared", ...options, here.agent.file], { timeoutMs: 120_000 });
    expect(result.stdout).toContain(`${here.agent.file} passed all tests`);
    expect(result.status).toBe(0);
    // It ends with a volume that is stopped.
    expect(await ask("start")).toEqual(ok);
  });
});
