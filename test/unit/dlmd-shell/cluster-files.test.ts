import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { minTimeoutMs, readClusterConfig, readClusterKey, writeClusterKey } from "../../../dlmd/driver/cluster-files.ts";

let dir: string;
beforeEach(() => {
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
  const key = readClusterKey(file);
  expect(key).toHaveLength(32);
  expect(readFileSync(file, "utf8")).toBe(`${key.toString("base64")}\n`);
  expect(codeOf(() => writeClusterKey(file))).toBe("key-exists");
  expect(readClusterKey(file)).toEqual(key);
  expect(codeOf(() => writeClusterKey(path.join(dir, "no/such")))).toBe("key-write");
});

test.each([0o640, 0o604, 0o660, 0o644, 0o610])("mode %o is refused", (mode) => {
  const file = path.join(dir, "cluster.key");
  writeClusterKey(file);
  chmodSync(file, mode);
  expect(codeOf(() => readClusterKey(file))).toBe("key-mode");
});

test.each([
  ["empty", ""],
  ["31 bytes", Buffer.alloc(31).toString("base64")],
  ["33 bytes", Buffer.alloc(33).toString("base64")],
  ["two lines", `${Buffer.alloc(32).toString("base64")}\nmore\n`],
  ["hex", Buffer.alloc(32).toString("hex")],
])("%s is no key", (_name, text) => {
  const file = path.join(dir, "cluster.key");
  writeFileSync(file, text, { mode: 0o600 });
  expect(codeOf(() => readClusterKey(file))).toBe("bad-key");
});

test("files that are not there are named", () => {
  expect(codeOf(() => readClusterKey(path.join(dir, "none")))).toBe("no-cluster-key");
  expect(codeOf(() => readClusterConfig(path.join(dir, "none")))).toBe("no-cluster-configuration");
});

test("the environment lowers the least time-out, and never raises it", () => {
  expect(minTimeoutMs({})).toBe(1500);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "200" })).toBe(200);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "9000" })).toBe(1500);
  expect(minTimeoutMs({ COVERLAY_TEST_TIMEOUT_MS: "soon" })).toBe(1500);
});
