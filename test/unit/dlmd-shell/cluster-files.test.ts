import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import {
  minTimeoutMs,
  readClusterConfig,
  readKeyring,
  replaceKeys,
  unfinishedKeys,
  writeClusterKey,
} from "../../../dlmd/driver/cluster-files.ts";
import { SMALL_FILE_BYTES_MAX } from "../../../dlmd/base/small-file.ts";
import { refusal } from "../../refusal.ts";

const did: string[] = [];
let beforeRename = (): void => {};
vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  return {
    ...real,
    renameSync: (from: string, to: string) => {
      beforeRename();
      real.renameSync(from, to);
      did.push(`rename ${to}`);
    },
    fsyncSync: (fd: number) => {
      real.fsyncSync(fd);
      did.push(`sync ${real.readlinkSync(`/proc/self/fd/${fd}`)}`);
    },
  };
});

let dir: string;
beforeEach(() => {
  did.length = 0;
  beforeRename = () => {};
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-key-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof OperatingError && error.hint !== undefined) return error.code;
    throw error;
  }
  return "accepted";
}

test("a key that was written is read again, has mode 0600 and is never overwritten", () => {
  const file = path.join(dir, "cluster.key");
  writeClusterKey(file);
  expect(statSync(file).mode & 0o7777).toBe(0o600);
  const key = Buffer.from(readKeyring(file).first.bytes);
  expect(key).toHaveLength(32);
  expect(readFileSync(file, "utf8")).toBe(`${key.toString("base64")}\n`);
  expect(codeOf(() => writeClusterKey(file))).toBe("key-exists");
  expect(readKeyring(file).first.bytes).toEqual(key);
  expect(codeOf(() => writeClusterKey(path.join(dir, "no/such")))).toBe("key-write");
});

test.each([0o640, 0o604, 0o660, 0o644, 0o610])("mode %o is refused", (mode) => {
  const file = path.join(dir, "cluster.key");
  writeClusterKey(file);
  chmodSync(file, mode);
  expect(codeOf(() => readKeyring(file))).toBe("key-mode");
});

test.skipIf(process.geteuid?.() !== 0)(
  "a key of another user is refused, with what to do; one of root or of who reads it is taken",
  async () => {
    const file = path.join(dir, "cluster.key");
    writeClusterKey(file);
    chownSync(file, 65_534, 65_534);
    expect(await refusal(() => readKeyring(file))).toMatchObject({
      code: "key-owner",
      message: `the cluster key ${file} must be a file of root, found user id 65534`,
      hint: expect.stringContaining(`chown root ${file}`) as unknown,
    });
    const own = vi.spyOn(process as { geteuid: () => number }, "geteuid").mockReturnValue(65_534);
    expect(codeOf(() => readKeyring(file))).toBe("accepted");
    own.mockReturnValue(1000);
    expect((await refusal(() => readKeyring(file))).message).toContain("a file of root or user id 1000, found user id 65534");
    chownSync(file, 0, 0);
    expect(codeOf(() => readKeyring(file))).toBe("accepted");
    own.mockRestore();
  },
);

test.each([
  ["empty", ""],
  ["31 bytes", Buffer.alloc(31).toString("base64")],
  ["33 bytes", Buffer.alloc(33).toString("base64")],
  ["two lines", `${Buffer.alloc(32).toString("base64")}\nmore\n`],
  ["twice the same", `${Buffer.alloc(32).toString("base64")}\n${Buffer.alloc(32).toString("base64")}\n`],
  ["five keys", [1, 2, 3, 4, 5].map((fill) => `${Buffer.alloc(32, fill).toString("base64")}\n`).join("")],
  ["a number that is too long", `${Buffer.alloc(32).toString("base64")} 1234567890\n`],
  ["hex", Buffer.alloc(32).toString("hex")],
])("%s is no key", (_name, text) => {
  const file = path.join(dir, "cluster.key");
  writeFileSync(file, text, { mode: 0o600 });
  expect(codeOf(() => readKeyring(file))).toBe("bad-key");
});

test("a directory is no key, whatever its mode", () => {
  for (const mode of [0o755, 0o700]) {
    chmodSync(dir, mode);
    expect(codeOf(() => readKeyring(dir))).toBe("bad-key");
  }
});

test("a pipe is no key, and its writer is not waited for; nor is what never ends", () => {
  const pipe = path.join(dir, "pipe");
  expect(spawnSync("mkfifo", ["-m", "0600", pipe]).status).toBe(0);
  expect(() => readKeyring(pipe)).toThrow("found a pipe");
  expect(() => readKeyring("/dev/zero")).toThrow("found a character device");
  const long = path.join(dir, "long");
  writeFileSync(long, "x".repeat(SMALL_FILE_BYTES_MAX + 1), { mode: 0o600 });
  expect(() => readKeyring(long)).toThrow("found more");
});

test("several keys: the first is spoken with, all are found by their ids; a replaced file stays 0600", () => {
  const file = path.join(dir, "cluster.key");
  writeClusterKey(file, Buffer.alloc(32, 1));
  replaceKeys(file, [
    { bytes: Buffer.alloc(32, 2), serial: 1 },
    { bytes: Buffer.alloc(32, 1), serial: 0 },
  ]);
  expect(statSync(file).mode & 0o7777).toBe(0o600);
  const keyring = readKeyring(file);
  expect(keyring.first.bytes).toEqual(Buffer.alloc(32, 2));
  expect(keyring.all.map(({ id }) => keyring.find(id)?.bytes[0])).toEqual([2, 1]);
  expect(keyring.find("00000000")).toBeNull();
});

test("keys are replaced where a symbolic link leads, and the folder there is synced", () => {
  const real = path.join(dir, "real/cluster.key");
  const link = path.join(dir, "cluster.key");
  mkdirSync(path.dirname(real));
  writeClusterKey(real);
  symlinkSync("real/cluster.key", link);
  did.length = 0;
  replaceKeys(link, [{ bytes: Buffer.alloc(32, 2), serial: 1 }]);
  expect(did).toEqual([`rename ${real}`, `sync ${path.dirname(real)}`]);
  expect([readlinkSync(link), lstatSync(real).isFile()]).toEqual(["real/cluster.key", true]);
  expect(readKeyring(real).first.bytes).toEqual(Buffer.alloc(32, 2));
});

test("keys that are being replaced are known as unfinished; where that fails, the old ones stay, and nothing beside them", () => {
  const file = path.join(dir, "cluster.key");
  writeClusterKey(file, Buffer.alloc(32, 1));
  let unfinished: string[] = [];
  beforeRename = () => {
    unfinished = unfinishedKeys(file);
    throw new Error("played");
  };
  expect(codeOf(() => replaceKeys(file, [{ bytes: Buffer.alloc(32, 2), serial: 1 }]))).toBe("key-write");
  expect(unfinished).toEqual([`${file}.${process.pid}.new`]);
  expect(readdirSync(dir)).toEqual(["cluster.key"]);
  expect(readKeyring(file).first.bytes).toEqual(Buffer.alloc(32, 1));
  expect(codeOf(() => replaceKeys(path.join(dir, "none"), []))).toBe("key-write");
});

test("files that are not there are named", () => {
  expect(codeOf(() => readKeyring(path.join(dir, "none")))).toBe("no-cluster-key");
  expect(codeOf(() => readClusterConfig(path.join(dir, "none")))).toBe("no-cluster-configuration");
  expect(codeOf(() => readClusterConfig("/dev/zero"))).toBe("no-cluster-configuration");
});

test("the environment lowers the least time-out, and never raises it", () => {
  expect(minTimeoutMs({})).toBe(1500);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "200" })).toBe(200);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "9000" })).toBe(1500);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "soon" })).toBe(1500);
});
