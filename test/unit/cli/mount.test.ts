/** `coverlay mount`: what it has checked is what the process of the mount is given, which has another working directory. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { mountClustered } from "../../../overlay/cli/mount.ts";
import { enableDirectory } from "../../../overlay/volume/bit-writer.ts";
import type { OverlayArguments } from "../../../overlay/volume/start-overlay.ts";

const bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const started: OverlayArguments[] = [];
const played = vi.hoisted(() => ({ down: false, waiters: [] as (readonly string[])[] }));

vi.mock("../../../overlay/query/dlmd-query.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  askDlmd: async () => {
    if (played.down) throw new OperatingError("dlmd is not running", { code: "dlmd-not-running", hint: "Start it." });
    return {
      info: { clusterName: "demo", nodes: [], volumes: [{ name: "shared", uuid: bit.uuid, lower: "directory" }] },
      view: { quorate: true, members: [1] },
    };
  },
}));
vi.mock("../../../overlay/volume/mount-waiter.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  startWaiter: async (_: unknown, command: readonly string[]) => {
    played.waiters.push(command);
    return 7;
  },
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
  played.waiters.length = 0;
  played.down = false;
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

it("hands on to the process of bg whether unknown options are ignored", async () => {
  played.down = true;
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  for (const sloppy of [true, false]) {
    const options = `bg,x-unknown,runDir=${base}/run${sloppy ? ",bogus=1" : ""}`;
    const said: string[] = [];
    const note = (line: string): void => void said.push(line);
    const outcome = await mountClustered({ device: lower, directory: `${base}/mnt`, options, sloppy, fake: false, tell: () => {}, note });
    expect(outcome).toMatchObject({ state: "waiting", pid: 7 });
    expect(said).toEqual([expect.stringContaining("process 7 goes on in the background")]);
  }
  vi.restoreAllMocks();
  expect(played.waiters.map((command) => command.includes("-s"))).toEqual([true, false]);
});
