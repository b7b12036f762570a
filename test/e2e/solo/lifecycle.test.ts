/** How a mount begins and ends, as its kernel shows it. */
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { READ_AHEAD_KIB } from "../../../overlay/session/connection.ts";
import { python, runChild, shell } from "./child.ts";
import { type SoloMount, startSolo } from "./solo-mount.ts";

describe("the life of a mount", () => {
  let solo: SoloMount | undefined;

  const start = async (): Promise<SoloMount> => {
    solo = await startSolo({ entryValidity: true, metadataCalls: "inline" });
    return solo;
  };
  afterEach(async () => {
    await solo?.stop();
    solo = undefined;
  });

  it("shows as fuse.clustered with the device as its source, can be remounted read-only, and ends with umount", async () => {
    const mount = await start();
    const line = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .find((one) => one.includes(mount.mountpoint));
    expect(line).toMatch(/ - fuse\.clustered \/dev\/solo /);
    expect(line).toContain(`0:${mount.session.connection} `);
    const readAhead = readFileSync(`/sys/class/bdi/0:${mount.session.connection}/read_ahead_kb`, "utf8");
    expect(Number(readAhead)).toBe(READ_AHEAD_KIB);
    await shell(
      `touch ${mount.mountpoint}/f; mount -i -o remount,ro ${mount.mountpoint}; ! touch ${mount.mountpoint}/g 2>/dev/null; cat ${mount.mountpoint}/f`,
      "/",
    );
    await shell(`umount ${mount.mountpoint}`, "/");
    await mount.session.ended;
    expect([mount.session.handleCount, mount.session.inodeCount, mount.coherence.pins]).toEqual([0, 0, 0]);
    expect(mount.errors).toEqual([]);
  });

  it("umount -l keeps it for those who have files open", async () => {
    const mount = await start();
    const output = await shell(
      `exec 3<> ${mount.mountpoint}/f; echo data >&3; umount -l ${mount.mountpoint}; echo more >&3; cat /proc/self/fd/3 2>/dev/null; cat <&3; stat -L -c %s /proc/self/fd/3`,
      "/",
    );
    expect(output.split("\n").at(-1)).toBe("10");
    await mount.session.ended;
    expect(mount.coherence.tokens).toBe(0);
  });

  it("abort ends it while a caller waits for a lock", async () => {
    const mount = await start();
    await shell("touch f", mount.mountpoint);
    mount.coherence.withhold();
    const waiting = shell(`stat ${mount.mountpoint}/other || true`, "/");
    await until("a caller waits", () => mount.coherence.waiting.size === 1);
    mount.session.abort();
    await waiting;
    await mount.session.ended;
    expect(mount.session.handleCount).toBe(0);
    expect(mount.coherence.waiting.size).toBe(0);
  });

  it("fails with a reason where it can not be", async () => {
    await expect(startSolo({ entryValidity: true, metadataCalls: "inline", lowerDir: "/tmp", mountpoint: "/dev/null" })).rejects.toThrow(
      /EEXIST|ENOTDIR/,
    );
  });

  it("a caller's supplementary groups count for what it creates (hazard F15)", async () => {
    const mount = await start();
    await shell("mkdir d; chown 0:4321 d; chmod 0770 d", mount.mountpoint);
    await python(
      "os.setgroups([4321]); os.setgid(999); os.setuid(999)\nos.close(os.open('d/f', os.O_CREAT | os.O_WRONLY)); os.mkdir('d/e'); os.rename('d/f', 'd/e/f'); os.unlink('d/e/f'); os.rmdir('d/e')",
      mount.mountpoint,
    );
    const { status } = await runChild(
      "python3",
      ["-c", "import os; os.setgroups([]); os.setgid(999); os.setuid(999); os.open('d/g', os.O_CREAT)"],
      mount.mountpoint,
    );
    expect(status).toBe(1);
  });
});
