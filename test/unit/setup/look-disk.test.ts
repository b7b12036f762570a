/** A look at a device that is cut off: what was printed before counts, and the rest is not known. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterEach, expect, it, vi } from "vitest";
import type { DiskFacts } from "../../../overlay/setup/judge-volume.ts";
import { START_LIMIT_MS, allowSilence, factsOf, lookAtDisk, missingChecks } from "../../../overlay/setup/look-disk.ts";

afterEach(() => void vi.useRealTimers());

const identity = { path: "/dev/sdb", bytes: 4096, isReadOnly: false, serial: null, wwn: null, backingFile: null };
const line = (facts: object): string => `${JSON.stringify(facts)}\n`;
const first = line({ identity, plainMounts: [], tags: { PARTUUID: "" } });
const second = line({ fileSystem: { type: "ext4" }, tags: { PARTUUID: "", UUID: "u" } });
const third = line({ bit: null, owner: { isOwned: false } });

it.each([
  ["", ["device"]],
  ["{}\n", ["device"]],
  ['{"identity":', ["device"]],
  [first, ["file-system", "bit", "owner", "mmp"]],
  [`${first}${second}{"bi`, ["bit", "owner", "mmp"]],
  [first + second + third, ["mmp"]],
  [first + second + third + line({ mmp: null }), []],
])("after %j it lacks %j", (stdout, missing) => {
  expect(missingChecks(factsOf("/dev/sdb", stdout))).toEqual(missing);
});

it("later lines have the last word, and what was not reached is not said to be well", () => {
  expect(factsOf("/dev/sdb", first + second)).toMatchObject({ device: "/dev/sdb", tags: { PARTUUID: "", UUID: "u" }, plainMounts: [] });
  expect(factsOf("/dev/sdb", first)?.isInUse).toMatchObject({ message: "it was not looked at" });
});

it("the start of the program has a limit of its own, and each step the one of the check", () => {
  vi.useFakeTimers();
  const crossed: number[] = [];
  const silence = allowSilence(4000, (ms) => crossed.push(ms));
  vi.advanceTimersByTime(START_LIMIT_MS - 1);
  for (let step = 0; step < 5; step++) {
    silence.heard();
    vi.advanceTimersByTime(3999);
  }
  expect(crossed).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(crossed).toEqual([4000]);

  const slow = allowSilence(4000, (ms) => crossed.push(ms));
  vi.advanceTimersByTime(START_LIMIT_MS);
  expect(crossed).toEqual([4000, START_LIMIT_MS]);
  slow.heard();
  slow.end();
  vi.advanceTimersByTime(START_LIMIT_MS);
  expect(crossed).toHaveLength(2);
});

const program = (script: string): string[] => ["sh", "-c", script, "sh"];
const stateOf = (pid: string): string => {
  try {
    return /^\d+ \(.*\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1] ?? "";
  } catch {
    return "Z";
  }
};

const serialOf = (facts: DiskFacts | null): string =>
  facts === null || "message" in facts.identity ? expect.fail("no serial") : (facts.identity.serial ?? "");

it("a program that goes silent is ended with what it has started, and its facts are kept", async () => {
  const script = `sleep infinity & printf '{}\\n{"identity":{"serial":"%s"}}\\n' $!; wait`;
  const { facts, findings } = await lookAtDisk("/dev/sdb", [], 20, program(script));
  const serial = serialOf(facts);
  await expect.poll(() => stateOf(serial)).toBe("Z");
  expect(findings.map(({ check, status, found }) => `${status} ${check} ${found}`)).toEqual(
    ["file-system", "bit", "owner", "mmp"].map((check) => `unknown ${check} none: the check was given up after 0.02 s`),
  );
});

it("a process that SIGKILL does not end is left behind", async () => {
  const script = `setsid sh -c 'printf "{\\"identity\\":{\\"serial\\":\\"%s\\"}}\\\\n" $$; exec sleep infinity' & wait`;
  const { facts, findings } = await lookAtDisk("/dev/sdb", [], 20, program(script));
  const serial = serialOf(facts);
  expect(stateOf(serial)).not.toBe("Z");
  process.kill(Number(serial), "SIGKILL");
  expect(findings).toHaveLength(4);
});

it.each([
  ["that fails", "echo why >&2; exit 1", "why"],
  ["that says nothing", "exit 0", "exit status 0"],
])("a program %s leaves the device unknown", async (_, script, words) => {
  const { facts, findings } = await lookAtDisk("/dev/sdb", [], 4000, program(script));
  expect(facts).toBeNull();
  expect(findings).toMatchObject([{ check: "device", status: "unknown", found: words }]);
});

it("while a look of before is left behind, no further one is started at that device", async () => {
  const script = "echo '{}'; read word; exit 1";
  const left = spawn("sh", ["-c", script, "sh", "/dev/sdb", "20", "1"], { stdio: ["pipe", "pipe", "ignore"] });
  try {
    await once(left.stdout, "data");
    const { facts, findings } = await lookAtDisk("/dev/sdb", [], 4000, program(script));
    expect(facts).toBeNull();
    expect(findings).toMatchObject([
      { check: "device", status: "unknown", found: expect.stringContaining(`process ${left.pid} `) as unknown },
    ]);
    expect((await lookAtDisk("/dev/sdc", [], 4000, program(script))).findings).toMatchObject([{ found: "exit status 1" }]);
  } finally {
    left.stdin.end();
    await once(left, "exit");
  }
  expect((await lookAtDisk("/dev/sdb", [], 4000, program(script))).findings).toMatchObject([{ found: "exit status 1" }]);
});

it.runIf(process.getuid?.() === 0)("a program of another user with the words of such a look does not count", async () => {
  const script = "echo '{}'; read word; exit 1";
  const stdio = ["pipe", "pipe", "ignore"] as const;
  const forged = spawn("sh", ["-c", script, "sh", "/dev/sdb", "20", "1"], { stdio: [...stdio], uid: 65534, gid: 65534, cwd: "/" });
  try {
    await once(forged.stdout, "data");
    expect((await lookAtDisk("/dev/sdb", [], 4000, program(script))).findings).toMatchObject([{ found: "exit status 1" }]);
  } finally {
    forged.stdin.end();
    await once(forged, "exit");
  }
});

it("the program is given the paths of fstab that are below /dev, and no others", async () => {
  const sources = ["/dev/sdb", "/nfs/image", "/dev/../nfs/image", "/dev/sdb", "UUID=1"];
  const { facts } = await lookAtDisk("/dev/sdb", sources, 4000, program(`echo '{"identity":{},"paths":"'"$*"'"}'`));
  expect(facts?.paths).toBe(`/dev/sdb 4000 ${process.pid} /dev/sdb`);
});
