/** The place of network namespaces, which all labs of a machine share: played, so that no real one is touched. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { makeHub, removeNetworks } from "../../../overlay/lab/network.ts";
import type { LabState } from "../../../overlay/lab/state.ts";

const NETNS_MARK = "/run/coverlay-lab.netns";
const played = vi.hoisted(() => ({ names: [] as string[], mark: false, looks: 0 }));
vi.mock("../../../overlay/lab/layout.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  NETNS_DIR: "/run/netns of a test",
}));
vi.mock("node:fs", async (importOriginal) => {
  const fs = await importOriginal<typeof import("node:fs")>();
  return {
    ...fs,
    existsSync: (file: string) => (file === NETNS_MARK ? played.mark : fs.existsSync(file)),
    readdirSync: (dir: string) => {
      if (dir !== "/run/netns of a test") return fs.readdirSync(dir);
      played.looks += 1;
      return played.names;
    },
    readFileSync: (file: string, options: BufferEncoding) => (file === "/proc/self/mountinfo" ? "" : fs.readFileSync(file, options)),
    writeFileSync: (file: string, data: string) => (file === NETNS_MARK ? void (played.mark = true) : fs.writeFileSync(file, data)),
    rmSync: (file: string, options: object) => (file === NETNS_MARK ? void (played.mark = false) : fs.rmSync(file, options)),
  };
});

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "lab-netns-"));
  Object.assign(played, { names: [], mark: false, looks: 0 });
  vi.stubEnv("PATH", `${dir}/bin:${process.env["PATH"]}`);
  mkdirSync(`${dir}/bin`);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true, force: true });
});

function standIn(tool: string, script: string): void {
  writeFileSync(`${dir}/bin/${tool}`, `#!/bin/sh\n${script}\n`);
  chmodSync(`${dir}/bin/${tool}`, 0o755);
}

const lab = (id: string): LabState => ({ id, dir, nodes: [] }) as Partial<LabState> as LabState;

it("is not taken away by the last lab while another makes its first namespace", async () => {
  standIn("ip", `echo >>${dir}/ip; while [ ! -e ${dir}/go ]; do sleep 0.01; done`);
  standIn("umount", `echo >${dir}/umount`);
  const making = makeHub(lab("00000a"), new AbortController().signal);
  while (!existsSync(`${dir}/ip`)) await new Promise((resolve) => setImmediate(resolve));
  const removing = removeNetworks(lab("00000b"));
  for (let turns = 0; turns < 100; turns += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(played.looks).toBe(0);
  played.names.push("coverlay-00000a-hub");
  writeFileSync(`${dir}/go`, "");
  await Promise.all([making, removing]);
  expect([existsSync(`${dir}/umount`), played.mark]).toEqual([false, true]);
});

it("is taken away by the last lab", async () => {
  standIn("umount", `echo >${dir}/umount`);
  played.mark = true;
  await removeNetworks(lab("00000b"));
  expect([existsSync(`${dir}/umount`), played.mark]).toEqual([true, false]);
});
