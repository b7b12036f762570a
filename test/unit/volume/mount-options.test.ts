/** The -o options: what they set, what is ignored, and what is refused with the nearest known word. */
import { describe, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { MountFlag, flagsOfMount, parseMountOptions } from "../../../overlay/volume/mount-options.ts";

function refusal(text: string): OperatingError {
  try {
    parseMountOptions(text);
  } catch (error) {
    if (error instanceof OperatingError) return error;
    throw error;
  }
  throw new Error(`"${text}" was not refused`);
}

describe("mount options", () => {
  test("nothing, and what mount(8) and systemd keep to themselves", () => {
    const plain = {
      readOnly: false,
      remount: false,
      flags: 0,
      runDir: null,
      localFlocks: false,
      deepIdle: false,
      transport: "kernel",
      waitMs: null,
      background: false,
    };
    expect(parseMountOptions("")).toEqual(plain);
    expect(parseMountOptions("rw,_netdev,nofail,noauto,auto,clustered,x-systemd.automount,X-mount.mkdir=0755,,comment=a b")).toEqual(plain);
  });

  test("flags; later ones win", () => {
    expect(parseMountOptions("ro,nosuid,nodev,noexec").flags).toBe(
      MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC,
    );
    expect(parseMountOptions("ro,rw").readOnly).toBe(false);
    expect(parseMountOptions("rw,ro").readOnly).toBe(true);
    expect(parseMountOptions("noatime,relatime").flags).toBe(MountFlag.RELATIME);
    expect(parseMountOptions("user,exec").flags).toBe(MountFlag.NOSUID | MountFlag.NODEV);
    expect(parseMountOptions("nosuid,defaults").flags).toBe(0);
  });

  test("deepidle", () => {
    expect(parseMountOptions("deepidle").deepIdle).toBe(true);
    expect(refusal("deepidle=1").message).toBe('mount option "deepidle=1" takes no value');
  });

  test("runDir", () => {
    expect(parseMountOptions("runDir=/run/lab/node1,ro")).toMatchObject({ runDir: "/run/lab/node1", readOnly: true });
    expect(parseMountOptions('runDir="/run/with,comma"').runDir).toBe("/run/with,comma");
    expect(parseMountOptions("runDir=/run/coverlay/").runDir).toBe("/run/coverlay");
    expect(refusal("runDir=here").message).toContain("absolute path");
    expect(refusal("runDir").message).toBe('mount option "runDir" needs a value');
  });

  test("localflocks", () => {
    expect(parseMountOptions("rw,localflocks").localFlocks).toBe(true);
    expect(parseMountOptions("localflocks,transport=fuse-native").transport).toBe("fuse-native");
    expect(() => parseMountOptions("transport=fuse-native")).toThrow("no file locks of the cluster");
    expect(() => parseMountOptions("transport=nfs")).toThrow("kernel or fuse-native is expected");
    expect(refusal("localflocks=1").message).toBe('mount option "localflocks=1" takes no value');
    expect(refusal("localflock").hint).toBe('Did you mean "localflocks"?');
  });

  test("wait, timeout in seconds and retry in minutes: the last one counts", () => {
    expect(parseMountOptions("rw,wait").waitMs).toBe(Number.POSITIVE_INFINITY);
    expect(parseMountOptions("wait,timeout=90").waitMs).toBe(90_000);
    expect(parseMountOptions("timeout=90,retry=2").waitMs).toBe(120_000);
    expect(parseMountOptions("retry=0").waitMs).toBe(0);
    expect(parseMountOptions("retry=2,wait").waitMs).toBe(Number.POSITIVE_INFINITY);
    expect(refusal("wait=5").message).toBe('mount option "wait=5" takes no value');
    expect(refusal("timeout").message).toBe('mount option "timeout" needs a value');
    for (const wrong of ["timeout=", "timeout=1.5", "timeout=-1", "retry=soon", "timeout=1728001", "retry=28801"])
      expect(refusal(wrong).message).toContain(`option ${wrong}: a whole number of`);
    expect(parseMountOptions("timeout=1728000").waitMs).toBe(20 * 24 * 3_600_000);
  });

  test("bg waits for 10000 minutes where nothing else is said, and fg takes it back", () => {
    expect(parseMountOptions("bg")).toMatchObject({ background: true, waitMs: 600_000_000 });
    expect(parseMountOptions("retry=1,bg")).toMatchObject({ background: true, waitMs: 60_000 });
    expect(parseMountOptions("bg,fg")).toMatchObject({ background: false, waitMs: null });
  });

  test("a remount starts from the flags that the mount has", () => {
    const present = flagsOfMount(["rw", "nosuid", "relatime", "idmapped"]);
    expect(present).toBe(MountFlag.NOSUID | MountFlag.RELATIME);
    expect(parseMountOptions("remount,ro", false, present)).toMatchObject({
      remount: true,
      flags: MountFlag.NOSUID | MountFlag.RELATIME | MountFlag.RDONLY,
    });
  });

  test("a remount by mount(8) names what the mount shows; nothing else may", () => {
    const shown = "relatime,user_id=0,group_id=0,default_permissions,allow_other";
    expect(parseMountOptions(`rw,${shown},remount,ro`)).toMatchObject({ remount: true, readOnly: true });
    expect(refusal(shown).message).toContain("user_id=0");
    expect(refusal("remount,user_id").message).toContain("user_id");
  });

  test("unknown ones are refused, unless sloppy", () => {
    expect(refusal("noatme")).toMatchObject({ code: "bad-option", exitStatus: 1, hint: 'Did you mean "noatime"?' });
    expect(refusal("rundir=/x").hint).toBe('Did you mean "runDir"?');
    expect(refusal("ro=1").message).toBe('mount option "ro=1" takes no value');
    expect(refusal("data=journal").hint).toContain("--help");
    expect(refusal("constructor").code).toBe("bad-option");
    expect(refusal("__proto__").code).toBe("bad-option");
    expect(parseMountOptions("data=journal,ro", true).readOnly).toBe(true);
  });
});
