/**
 * Ctrl-C at `volume enable` and `disable`: before the first write nothing is changed, and after it the change is brought to its end. The tools of ext4
 * are held up by stand-ins at that place, so the signal comes there.
 */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { disableVolume, enableVolume, showVolume } from "../../../overlay/cli/volume.ts";
import { follow, type Followed } from "../followed.ts";
import { checkFileSystem, type Disk, withDisk } from "./disk.ts";

const bit = { cluster: "demo", volume: "v", uuid: randomUUID() };

let dir: string;
beforeEach(() => void (dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-interrupted-"))));
afterEach(() => rmSync(dir, { recursive: true }));

interface Held {
  readonly env: NodeJS.ProcessEnv;
  /** It has been started. */
  readonly reached: () => Promise<void>;
  /** It goes on. */
  readonly release: () => void;
}

/** That tool waits in its place until it is released, or the test is over. */
function hold(tool: string): Held {
  const gate = path.join(dir, `gate-${tool}`);
  const real = execFileSync("sh", ["-c", `PATH=$PATH:/usr/sbin:/sbin command -v ${tool}`], { encoding: "utf8" }).trim();
  const script = `#!/bin/sh\n: >${gate}-reached\nwhile [ -d ${dir} ] && [ ! -e ${gate} ]; do sleep 0.02; done\nexec ${real} "$@"\n`;
  writeFileSync(path.join(dir, tool), script);
  chmodSync(path.join(dir, tool), 0o755);
  return {
    env: { ...process.env, PATH: `${dir}:${process.env["PATH"] ?? ""}` },
    reached: () => expect.poll(() => existsSync(`${gate}-reached`), { timeout: 60_000, interval: 20 }).toBe(true),
    release: () => writeFileSync(gate, ""),
  };
}

const enable = ({ device }: Disk, env: NodeJS.ProcessEnv): Followed =>
  follow(["volume", "enable", device, "--cluster", bit.cluster, "--name", bit.volume, "--uuid", bit.uuid], env);
const disable = ({ device }: Disk, env: NodeJS.ProcessEnv): Followed => follow(["volume", "disable", device], env);

it("enable: nothing is changed by one that comes while the device is looked at", () =>
  withDisk("ext4", async (disk) => {
    const { env, reached } = hold("debugfs");
    const command = enable(disk, env);
    await command.until(`looking at ${disk.device}`);
    await reached();
    command.interrupt();
    const { status, stdout, stderr } = await command.ended;
    expect([status, stdout]).toEqual([8, ""]);
    expect(stderr).toContain(`interrupted: nothing was changed on ${disk.device}`);
    expect(showVolume(disk.device)).toMatchObject({ clustered: false });
    checkFileSystem("ext4", disk.device);
  }));

it("enable: amid the change it is heard, and the volume is whole", () =>
  withDisk("ext4", async (disk) => {
    const { env, reached, release } = hold("tune2fs");
    const command = enable(disk, env);
    await command.until("switching ext4's multiple-mount protection");
    await reached();
    command.interrupt();
    await command.until("interrupted too late: the change");
    command.interrupt();
    release();
    const { status, stdout } = await command.ended;
    expect([status, stdout]).toEqual([0, expect.stringContaining(`uuid: ${bit.uuid}`)]);
    expect(showVolume(disk.device)).toMatchObject({
      clustered: true,
      uuid: bit.uuid,
      mmp: { state: "clean" },
      owner: { state: "released" },
    });
    checkFileSystem("ext4", disk.device);
  }));

it("disable: the volume stays as it is before the first write, and is plain after it", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const probing = hold("debugfs");
    const early = disable(disk, probing.env);
    await early.until(`looking at ${disk.device}`);
    await probing.reached();
    early.interrupt();
    expect(await early.ended).toMatchObject({ status: 8, stdout: "" });
    expect(showVolume(disk.device)).toMatchObject({ clustered: true, uuid: bit.uuid, mmp: { state: "clean" } });
    probing.release();

    const { env, reached, release } = hold("tune2fs");
    const late = disable(disk, env);
    await late.until("switching ext4's multiple-mount protection");
    await reached();
    late.interrupt();
    await late.until("interrupted too late: the change");
    release();
    expect(await late.ended).toMatchObject({ status: 0, stdout: expect.stringContaining("it is a plain file system again") as string });
    expect(showVolume(disk.device)).not.toHaveProperty("mmp");
    expect(await disableVolume(disk.device)).toBe(false);
    checkFileSystem("ext4", disk.device);
  }));

it("with --json nothing but the answer is said", () =>
  withDisk("ext4", async ({ device }) => {
    const words = ["volume", "enable", device, "--cluster", "demo", "--json"];
    const { status, stdout, stderr } = await follow(words).ended;
    expect([status, stderr, JSON.parse(stdout)]).toEqual([0, "", expect.objectContaining({ target: device, cluster: "demo" })]);
  }));
