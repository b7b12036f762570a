/** What is told of extended attributes, and what a list of their names says (overlay/lower/xattr-names.ts, local/attributes.ts). */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { ACCESS_ACL } from "../../../overlay/lower/linux.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import { isLasting, isNamed, saysOf, SELINUX, XATTR_NAMES_TOLD_MAX } from "../../../overlay/lower/xattr-names.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

describe("a list of names", () => {
  it("names what is in it, whole", () => {
    const list = bytes("user.a\0user.abc\0");
    expect(["user.a", "user.abc", "user.ab", "a", ""].map((name) => isNamed(list, bytes(name)))).toEqual([true, true, false, false, false]);
    expect(isNamed(Buffer.alloc(0), bytes("user.a"))).toBe(false);
  });

  it("says nothing of names that a file system, or a module of the kernel, makes up", () => {
    const listed = [
      "user.a",
      "trusted.a",
      "security.capability",
      "security.selinux",
      "system.posix_acl_access",
      "system.posix_acl_default",
    ];
    expect(listed.filter((name) => !saysOf(bytes(name)))).toEqual([]);
    const others = [
      "security.ima",
      "security.SMACK64",
      "system.nfs4_acl",
      "system.richacl",
      "os2.a",
      "user",
      "users.a",
      "user.",
      "trusted.",
    ];
    expect(others.filter((name) => saysOf(bytes(name)))).toEqual([]);
  });

  it("lasts beside changes of the data, unless it names what those take away", () => {
    expect(
      ["", "user.a\0", "user.security.a\0", "security.capability\0", "user.a\0security.selinux\0"].map((list) => isLasting(bytes(list))),
    ).toEqual([true, true, true, false, false]);
  });
});

describe("the owner tells of a file", () => {
  /** A real lower, in whose kernel the root's attribute of each of these names is answered so. */
  async function told(
    answers: Readonly<Record<string, number>>,
    prepare: (lower: LocalLower, id: LocalLower["root"]) => unknown = () => undefined,
    { cold = false, shared = false } = {},
  ): Promise<Buffer | null> {
    const place = directoryPlace();
    const native = nativeAddon();
    const getxattr: typeof native.sync.getxattr = (fd, name, value) => answers[name.toString()] ?? native.sync.getxattr(fd, name, value);
    const sync = { ...native.sync, getxattr };
    const lower = createLocalLower({ native: { ...native, sync }, rootFd: place.rootFd, shared, metadataCalls: "inline", log: silentLog });
    try {
      const { id } = await lower.mknod(lower.root, bytes("file"), 0o100644, 0, 0, { uid: 0, gid: 0, umask: 0 });
      await prepare(lower, id);
      return await lower.xattrNames(id, cold);
    } finally {
      await lower.shutdown();
      await place.release();
    }
  }

  it("which attributes it has, if they are few", async () => {
    expect(await told({})).toEqual(Buffer.alloc(0));
    expect(await told({}, (lower, id) => lower.setxattr(id, bytes("user.a"), bytes("1"), 0))).toEqual(bytes("user.a\0"));
    const long = bytes(`user.${"x".repeat(XATTR_NAMES_TOLD_MAX - 6)}`);
    expect((await told({}, (lower, id) => lower.setxattr(id, long, bytes("1"), 0)))?.length).toBe(XATTR_NAMES_TOLD_MAX);
    const longer = async (lower: LocalLower, id: LocalLower["root"]): Promise<void> => {
      await lower.setxattr(id, bytes("user.a"), bytes("1"), 0);
      await lower.setxattr(id, long, bytes("1"), 0);
    };
    expect(await told({}, longer)).toBeNull();
  });

  it("the same, without the calling thread, of one that may have to be read from the disk", async () => {
    const prepare = (lower: LocalLower, id: LocalLower["root"]): unknown => lower.setxattr(id, bytes("user.a"), bytes("1"), 0);
    expect(await told({}, prepare, { cold: true })).toEqual(bytes("user.a\0"));
  });

  it("nothing where others change it, too", async () => {
    expect(await told({}, undefined, { shared: true })).toBeNull();
  });

  it("that it has a label, on a kernel with SELinux", async () => {
    expect(await told({ "security.selinux": 12 })).toEqual(bytes("security.selinux\0"));
    expect(isNamed((await told({ "security.selinux": 12 })) ?? Buffer.alloc(0), SELINUX)).toBe(true);
  });

  it("nothing where attributes that are missing are another error", async () => {
    expect(await told({ "user.coverlay.none": -E.EOPNOTSUPP })).toBeNull();
    expect(await told({ "trusted.coverlay.none": -E.EOPNOTSUPP })).toBeNull();
    expect(await told({ [ACCESS_ACL.toString()]: -E.EOPNOTSUPP })).toBeNull();
  });

  it("nothing of what is not there", async () => {
    let found: Buffer | null = Buffer.alloc(1);
    await told({}, async (lower, { ino, generation }) => {
      found = await lower.xattrNames({ ino, generation: generation + 1 }, false);
    });
    expect(found).toBeNull();
  });
});
