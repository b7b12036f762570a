/** Extended attributes: the names that a caller is shown, and what an ACL takes away. */
import { describe, expect, it } from "vitest";
import { Workbench } from "./workbench.ts";

it("trusted names are listed for root only", async () => {
  const bench = new Workbench();
  bench.lower.listxattr = () => Buffer.from("user.a\0trusted.b\0security.c\0");
  const list = async (uid: number): Promise<string | undefined> =>
    (await bench.serve({ op: "listxattr", fuseNodeid: bench.file.fuseNodeid, size: 100, uid }))?.body.toString("latin1");
  expect(await list(0)).toBe("user.a\0trusted.b\0security.c\0");
  expect(await list(1000)).toBe("user.a\0security.c\0");
});

describe("an ACL set by an owner outside of the group", () => {
  const access = Buffer.from("system.posix_acl_access");
  const set = { op: "setxattr" as const, value: Buffer.from("acl"), flags: 0 };

  it.each([
    { mode: 0o102664, name: access, aclKillSgid: true, calls: ["setxattr", "getattr", "setattr"] },
    { mode: 0o042775, name: access, aclKillSgid: true, calls: ["setxattr", "getattr", "setattr"] },
    { mode: 0o100664, name: access, aclKillSgid: true, calls: ["setxattr", "getattr"] },
    { mode: 0o102775, name: access, aclKillSgid: false, calls: ["setxattr"] },
    { mode: 0o042775, name: Buffer.from("system.posix_acl_default"), aclKillSgid: true, calls: ["setxattr"] },
  ])("takes set-group-id away: $mode, $name, asked for: $aclKillSgid", async ({ mode, name: which, aclKillSgid, calls }) => {
    const bench = new Workbench();
    bench.lower.fileMode = mode;
    expect((await bench.serve({ ...set, fuseNodeid: bench.file.fuseNodeid, name: which, aclKillSgid }))?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(calls);
  });
});
