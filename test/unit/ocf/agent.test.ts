/** The exit codes of ocf:coverlay:volume, with a `coverlay` that is made up: test/e2e/ocf/ has the real one. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { START_LIMIT_MS } from "../../../overlay/volume/fence-proof.ts";
import { parseMountOptions } from "../../../overlay/volume/mount-options.ts";
import { noOcf, Ocf, OcfAgent, type Parameters, reasonOf } from "../../ocf-agent.ts";

const missing = noOcf();

/** What `coverlay mount` says of these options. */
function parseError(options: string): string {
  try {
    parseMountOptions(options);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error(`${options} should be refused`);
}

function mustRun(program: string, ...words: string[]): void {
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${words.join(" ")}: ${stderr}`);
}

describe("ocf:coverlay:volume", () => {
  let agent: OcfAgent;
  let directory: string;
  let good: Parameters;

  beforeAll(() => {
    // Its answer is a file beside it: the exit status, and what it says.
    agent = new OcfAgent(
      'echo "$@" >> "$0.log"; [ "$FAKE_SLEEP" = "" ] || sleep "$FAKE_SLEEP"; echo "$FAKE_SAYS" >&2; exit "${FAKE_STATUS:-0}"',
    );
    directory = path.join(agent.folder, "mount point");
    good = { device: agent.folder, directory };
  });
  afterAll(() => agent?.end());

  const ask = async (action: string, parameters: Parameters, env: Parameters = {}, timeoutS = 60): Promise<[number | null, string]> => {
    const result = await agent.act(action, parameters, env, { timeoutS });
    return [result.status, reasonOf(result)];
  };

  /** What the agent takes for an overlay that has no mount yet. */
  const startOverlay = async (device: string, command = "serve", uid = 0): Promise<ChildProcess> => {
    const options = [command, "--device", device, "--mountpoint", directory];
    const overlay = spawn("sh", ["-c", "echo begun; sleep 600 & trap 'kill $!; exit' TERM; wait", ...options], {
      stdio: ["ignore", "pipe", "ignore"],
      cwd: "/",
      uid,
    });
    await once(overlay.stdout, "data");
    return overlay;
  };

  it("what is not mounted is not running, whether the program is there or not", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(await ask("monitor", good)).toEqual([Ocf.NOT_RUNNING, ""]);
    expect(await ask("status", good)).toEqual([Ocf.NOT_RUNNING, ""]);
    expect(await ask("monitor", { ...good, coverlay: "/nowhere/coverlay" })).toEqual([Ocf.NOT_RUNNING, ""]);
    expect(await ask("stop", { ...good, coverlay: "/nowhere/coverlay" })).toEqual([Ocf.SUCCESS, ""]);
  });

  it("a parameter that is wrong everywhere is 6, one that is wrong on this node is 5; neither keeps a stop from success", async ({
    skip,
  }) => {
    skip(missing !== null, missing ?? "");
    const { device: _, ...noDevice } = good;
    const wrong: [Parameters, number, string][] = [
      [noDevice, Ocf.CONFIGURED, "parameter device is missing"],
      [{ ...good, directory: "" }, Ocf.CONFIGURED, "parameter directory should be an absolute path"],
      [{ ...good, directory: "shared" }, Ocf.CONFIGURED, 'an absolute path, found "shared"'],
      [{ ...good, directory: "/" }, Ocf.CONFIGURED, 'a directory below /, found "/"'],
      [{ ...good, directory: "//./" }, Ocf.CONFIGURED, 'a directory below /, found "//./"'],
      [{ ...good, directory: "/shared/.." }, Ocf.CONFIGURED, 'a directory below /, found "/shared/.."'],
      [{ ...good, force_unmount: "perhaps" }, Ocf.CONFIGURED, 'true or false, found "perhaps"'],
      [{ ...good, coverlay: "/nowhere/coverlay" }, Ocf.INSTALLED, "/nowhere/coverlay is not installed here"],
      [{ ...good, device: "/nowhere/disk" }, Ocf.INSTALLED, "/nowhere/disk is not on this node"],
      // `coverlay mount` refuses the name of a volume.
      [{ ...good, device: "data" }, Ocf.CONFIGURED, 'the path of a device or a directory, found "data"'],
    ];
    for (const [parameters, status, words] of wrong) {
      for (const action of ["validate-all", "start"])
        expect(await ask(action, parameters)).toEqual([status, expect.stringContaining(words)]);
      expect(await ask("stop", parameters)).toEqual([Ocf.SUCCESS, ""]);
    }
    expect(await ask("validate-all", good)).toEqual([Ocf.SUCCESS, ""]);
    // All that `ocf_is_true` knows, and their opposites.
    for (const word of ["True", "YES", "ON", "1", "False", "NO", "OFF", "0"])
      expect(await ask("validate-all", { ...good, force_unmount: word })).toEqual([Ocf.SUCCESS, ""]);
  });

  it("what coverlay mount says comes to crm_mon, with the code for it; without a mount its 0 is no success", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const start = (status: number, reason = "the reason"): Promise<[number | null, string]> =>
      ask("start", good, { FAKE_STATUS: `${status}`, FAKE_SAYS: `coverlay: waiting: for node3\n  hint\ncoverlay: ${reason}\n  a hint` });
    expect(await start(0)).toEqual([Ocf.GENERIC, `coverlay mount ended with 0, but ${directory} is not mounted`]);
    // Wrong on this node for good is an option only: the same status is a defect, too.
    expect(await start(1, parseError("noatme"))).toEqual([Ocf.ARGS, 'coverlay mount: mount option "noatme" is unknown']);
    expect(await start(1, parseError("runDir=x"))).toEqual([Ocf.ARGS, expect.stringContaining("coverlay mount: option runDir=x")]);
    expect(await start(1, "internal error: Error: x")).toEqual([Ocf.GENERIC, "coverlay mount: internal error: Error: x"]);
    expect(await start(32)).toEqual([Ocf.GENERIC, "coverlay mount: the reason"]);
    expect(await start(127)).toEqual([Ocf.INSTALLED, `${agent.program} cannot be run: the reason`]);
    // It has made the mount point, which systemd and mount(8) would not.
    expect(existsSync(directory)).toBe(true);
  });

  it("options go on, after wait, and bg is taken back", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const log = `${agent.program}.log`;
    const last = (): string | undefined => readFileSync(log, "utf8").trim().split("\n").at(-1);
    await ask("start", good);
    expect(last()).toBe(`mount -o wait,fg ${agent.folder} ${directory}`);
    await ask("start", { ...good, options: "noatime,bg,runDir=/run/other" });
    expect(last()).toBe(`mount -o wait,noatime,bg,runDir=/run/other,fg ${agent.folder} ${directory}`);
  });

  it("every form of a mount point is one path, also directly below /", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const plain = `/coverlay-x-${process.pid}`;
    const forms = [plain, `${plain}/`, `/${plain}`, `//${plain}//`, `${plain}/.`, `${plain}/./`, `/nowhere/..${plain}`, `/.${plain}`];
    try {
      for (const form of forms) {
        await ask("start", { ...good, directory: form });
        const last = readFileSync(`${agent.program}.log`, "utf8").trim().split("\n").at(-1);
        expect([form, last]).toEqual([form, `mount -o wait,fg ${agent.folder} ${plain}`]);
      }
    } finally {
      rmdirSync(plain);
    }
  });

  it("a mount that takes too long ends before Pacemaker kills it", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    // Pacemaker gives it 2 s: half of that and one are for the mount.
    const began = performance.now();
    expect(await ask("start", good, { FAKE_SLEEP: "60" }, 2)).toEqual([Ocf.GENERIC, "not mounted in 2 s: "]);
    expect(performance.now() - began).toBeLessThan(50_000);
  });

  it("while an overlay starts, the volume is not stopped: a stop ends it first", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const overlay = await startOverlay("x");
    const ended = once(overlay, "exit");
    const leaving = `the overlay of ${directory}, process ${overlay.pid}, has not released the volume`;
    expect(await ask("monitor", good)).toEqual([Ocf.GENERIC, leaving]);
    expect(await ask("start", good)).toEqual([Ocf.GENERIC, `${leaving}: stop it first`]);
    expect(overlay.exitCode).toBe(null);
    expect(await ask("stop", good)).toEqual([Ocf.SUCCESS, ""]);
    await ended;
    expect(await ask("monitor", good)).toEqual([Ocf.NOT_RUNNING, ""]);
  });

  it.for([
    ["of another user", "serve", 65_534],
    ["that is no overlay", "watch", 0],
  ] as const)("a program %s, with an overlay's words, keeps nothing from its end", async ([, command, uid], { skip }) => {
    skip(missing !== null, missing ?? "");
    const other = await startOverlay(agent.folder, command, uid);
    expect(await ask("monitor", good)).toEqual([Ocf.NOT_RUNNING, ""]);
    expect(await ask("stop", good)).toEqual([Ocf.SUCCESS, ""]);
    expect([other.exitCode, other.signalCode]).toEqual([null, null]);
    const ended = once(other, "exit");
    other.kill();
    await ended;
  });

  it("where no file can be made for what a start says, it says what it finds itself", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const nowhere = { TMPDIR: "/proc", PATH: `${path.join(agent.folder, "bin")}:${process.env["PATH"]}` };
    mkdirSync(path.join(agent.folder, "bin"), { recursive: true });
    // The root file system is read-only, and /run full.
    writeFileSync(path.join(agent.folder, "bin/mktemp"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
    expect(await ask("start", good, { ...nowhere, FAKE_STATUS: "0" })).toEqual([Ocf.GENERIC, expect.stringContaining("not mounted")]);
  });

  it("what is mounted over it does not hide an overlay of this volume that has the disk", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    mkdirSync(directory, { recursive: true });
    mustRun("mount", "-t", "tmpfs", "tmpfs", directory);
    try {
      const other = await startOverlay("/nowhere/disk");
      expect(await ask("stop", good)).toEqual([Ocf.SUCCESS, ""]);
      expect(await ask("monitor", good)).toEqual([Ocf.NOT_RUNNING, ""]);
      expect([other.exitCode, other.signalCode]).toEqual([null, null]);
      const otherEnded = once(other, "exit");
      other.kill();
      await otherEnded;
      const overlay = await startOverlay(agent.folder);
      const leaving = `the overlay of ${directory}, process ${overlay.pid}, has not released the volume`;
      expect(await ask("monitor", good)).toEqual([Ocf.GENERIC, leaving]);
      const ended = once(overlay, "exit");
      expect(await ask("stop", good)).toEqual([Ocf.SUCCESS, ""]);
      await ended;
    } finally {
      mustRun("umount", directory);
    }
  });

  it("what it cannot do is 3: among it promote, demote and migrate", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    for (const action of ["promote", "demote", "migrate_to", "reload", "no-such-thing"])
      expect((await agent.act(action, good)).status).toBe(Ocf.UNIMPLEMENTED);
    expect((await agent.act("usage", {})).status).toBe(Ocf.SUCCESS);
  });

  it("its metadata name each parameter that it reads, with its default", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const { stdout, status } = await agent.act("meta-data", {});
    expect(status).toBe(Ocf.SUCCESS);
    const text = readFileSync(agent.file, "utf8");
    const read = [...text.matchAll(/^: "\$\{OCF_RESKEY_(\w+)=(.*)\}"$/gm)].map(([, name, value]) => [name, value ?? ""]);
    const named = [...stdout.matchAll(/<parameter name="(\w+)"[^]*?<content type="\w+"(?: default="(.*?)")? \/>/g)];
    expect(named.map(([, name, value]) => [name, value ?? ""])).toEqual(read);
  });

  it("a start has time for the fence of an owner that never starts: START_LIMIT_MS, and a minute for the fence and the mount", async ({
    skip,
  }) => {
    skip(missing !== null, missing ?? "");
    const { stdout } = await agent.act("meta-data", {});
    const timeoutS = Number(/<action name="start" timeout="(\d+)s"/.exec(stdout)?.[1]);
    const undoS = Number(/^undo_s=(\d+)$/m.exec(readFileSync(agent.file, "utf8"))?.[1]);
    expect((timeoutS - undoS) * 1000).toBeGreaterThan(START_LIMIT_MS + 60_000);
    // The examples say the same.
    const readme = readFileSync(path.join(import.meta.dirname, "../../../overlay/ocf/README.md"), "utf8");
    expect([...readme.matchAll(/op start timeout=(\d+)s/g)].map(([, seconds]) => Number(seconds))).toEqual([timeoutS, timeoutS]);
  });
});
