/** The exit codes of ocf:coverlay:volume, with a `coverlay` that is made up: test/e2e/ocf/ has the real one. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { noOcf, Ocf, OcfAgent, type Parameters, reasonOf } from "../../ocf-agent.ts";

const missing = noOcf();

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
      [{ ...good, force_unmount: "perhaps" }, Ocf.CONFIGURED, 'true or false, found "perhaps"'],
      [{ ...good, coverlay: "/nowhere/coverlay" }, Ocf.INSTALLED, "/nowhere/coverlay is not installed here"],
      [{ ...good, device: "/nowhere/disk" }, Ocf.INSTALLED, "/nowhere/disk is not on this node"],
    ];
    for (const [parameters, status, words] of wrong) {
      for (const action of ["validate-all", "start"])
        expect(await ask(action, parameters)).toEqual([status, expect.stringContaining(words)]);
      expect(await ask("stop", parameters)).toEqual([Ocf.SUCCESS, ""]);
    }
    expect(await ask("validate-all", good)).toEqual([Ocf.SUCCESS, ""]);
    // The name of a volume is no file.
    expect(await ask("validate-all", { ...good, device: "data" })).toEqual([Ocf.SUCCESS, ""]);
  });

  it("what coverlay mount says comes to crm_mon, with the code for it; without a mount its 0 is no success", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const says = "coverlay: waiting: for node3\n  hint\ncoverlay: the reason\n  a hint";
    const start = (status: number): Promise<[number | null, string]> => ask("start", good, { FAKE_STATUS: `${status}`, FAKE_SAYS: says });
    expect(await start(0)).toEqual([Ocf.GENERIC, `coverlay mount ended with 0, but ${directory} is not mounted`]);
    expect(await start(1)).toEqual([Ocf.ARGS, "coverlay mount: the reason"]);
    expect(await start(32)).toEqual([Ocf.GENERIC, "coverlay mount: the reason"]);
    expect(await start(127)).toEqual([Ocf.INSTALLED, `${agent.program} cannot be run: the reason`]);
    // It has made the mount point, which systemd and mount(8) would not.
    expect(existsSync(directory)).toBe(true);
  });

  it("options go on, after wait", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const log = `${agent.program}.log`;
    const last = (): string | undefined => readFileSync(log, "utf8").trim().split("\n").at(-1);
    await ask("start", good);
    expect(last()).toBe(`mount -o wait ${agent.folder} ${directory}`);
    await ask("start", { ...good, options: "noatime,runDir=/run/other" });
    expect(last()).toBe(`mount -o wait,noatime,runDir=/run/other ${agent.folder} ${directory}`);
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
    const words = ["-c", "echo begun; sleep 600 & trap 'kill $!; exit' TERM; wait", "serve", "--device", "x", "--mountpoint", directory];
    const overlay = spawn("sh", words, { stdio: ["ignore", "pipe", "ignore"] });
    const ended = once(overlay, "exit");
    await once(overlay.stdout, "data");
    const leaving = `the overlay of ${directory}, process ${overlay.pid}, has not released the volume`;
    expect(await ask("monitor", good)).toEqual([Ocf.GENERIC, leaving]);
    expect(await ask("start", good)).toEqual([Ocf.GENERIC, `${leaving}: stop it first`]);
    expect(overlay.exitCode).toBe(null);
    expect(await ask("stop", good)).toEqual([Ocf.SUCCESS, ""]);
    await ended;
    expect(await ask("monitor", good)).toEqual([Ocf.NOT_RUNNING, ""]);
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
});
