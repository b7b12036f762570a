/** `coverlay mount`: what it has checked is what the process of the mount is given, which has another working directory. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { mountClustered } from "../../../overlay/cli/mount.ts";
import { enableDirectory } from "../../../overlay/volume/bit-writer.ts";
import type { OverlayArguments } from "../../../overlay/volume/start-overlay.ts";

const bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const started: OverlayArguments[] = [];

vi.mock("../../../overlay/query/dlmd-query.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  askDlmd: async () => ({
    info: { clusterName: "demo", nodes: [], volumes: [{ name: "shared", uuid: bit.uuid, lower: "directory" }] },
    view: { quorate: true, members: [1] },
  }),
}));
vi.mock("../../../overlay/volume/start-overlay.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  startOverlay: async (args: OverlayArguments) => {
    started.push(args);
    return 1;
  },
}));

let base: string;
let lower: string;

beforeEach(() => {
  base = mkdtempSync(path.join(os.tmpdir(), "coverlay-mount-"));
  lower = path.join(base, "lower");
  for (const name of ["lower", "mnt", "run"]) mkdirSync(path.join(base, name));
  enableDirectory(lower, bit);
});

afterEach(() => {
  started.length = 0;
  rmSync(base, { recursive: true });
});

async function mount(device: string): Promise<string | undefined> {
  const options = `runDir=${base}/run`;
  await mountClustered({ device, directory: `${base}/mnt`, options, sloppy: false, fake: false, tell: () => {} });
  return started.at(-1)?.device;
}

it("hands on a directory of the working directory by its whole path", async () => {
  expect(await mount(path.relative(process.cwd(), lower))).toBe(lower);
  expect(await mount(`./${path.relative(process.cwd(), lower)}/`)).toBe(lower);
});

it("hands on a directory by its real path, and the name of a volume as it is", async () => {
  symlinkSync(lower, `${base}/link`);
  expect(await mount(`${base}/link`)).toBe(lower);
  expect(await mount("shared")).toBe("shared");
});
