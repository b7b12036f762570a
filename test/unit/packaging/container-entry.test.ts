/** The first process of the example's container, with programs that are played. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { run } from "../../../overlay/lab/command.ts";

const entry = path.resolve(import.meta.dirname, "../../../examples/container/entry");

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "container-entry-"));
  mkdirSync(`${dir}/bin`);
});
afterEach(() => rmSync(dir, { recursive: true }));

const program = (name: string, text: string): void => writeFileSync(`${dir}/bin/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });

async function statusOf(dlmd: string, mount: string): Promise<number | null> {
  program("dlmd", dlmd);
  program("coverlay", `echo "$1" >>${dir}/calls\n[ "$1" = mount ] || exit 0\n${mount}`);
  // /dev/fuse, where there is none.
  program("mknod", "exit 0");
  const PATH = `${dir}/bin:${process.env["PATH"]}`;
  const env = { ...process.env, PATH, COVERLAY_DEVICE: "/dev/none", COVERLAY_MOUNT_POINT: `${dir}/mnt` };
  return (await run("sh", [entry], { env, timeoutMs: 20_000 })).status;
}
const calls = (): string[] => readFileSync(`${dir}/calls`, "utf8").trim().split("\n");

it("a dlmd that ends while the mount waits for it ends the container, with its status", async () => {
  const dlmd = `until [ -s ${dir}/calls ]; do sleep 0.05; done\nexit 7`;
  expect(await statusOf(dlmd, "exec sleep 600")).toBe(7);
  expect(calls()).toEqual(["mount", "umount"]);
});

it("a mount that is refused ends it with that status", async () => {
  expect(await statusOf("exec sleep 600", "sleep 0.5; exit 32")).toBe(32);
});

it("a dlmd that ends after the mount ends it", async () => {
  expect(await statusOf("sleep 1; exit 9", "exit 0")).toBe(9);
});
