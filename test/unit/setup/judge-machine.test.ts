/** What a machine must have, and how findings add up. */
import { describe, expect, it } from "vitest";
import {
  type Finding,
  type NodeFinding,
  crossedLimit,
  describeFindings,
  exitStatusOf,
  judge,
  worstFirst,
} from "../../../overlay/setup/finding.ts";
import {
  type MachineFacts,
  judgeConfigFile,
  judgeKeyFile,
  judgeMachine,
  judgeName,
  judgeSelf,
} from "../../../overlay/setup/judge-machine.ts";

const machine: MachineFacts = {
  kernelRelease: "6.18.4-amd64",
  nodeVersion: "v20.19.0",
  fuse: "character device 10:229",
  memoryBytes: 2 ** 30,
  memoryLimitBytes: null,
  descriptors: null,
};
const wrong = (change: Partial<MachineFacts>): string[] =>
  judgeMachine({ ...machine, ...change }).flatMap(({ check, status }) => (status === "ok" ? [] : [`${check} ${status}`]));

describe("this machine", () => {
  it("is well with the least that is needed", () => expect(wrong({})).toEqual([]));

  it.each<[Partial<MachineFacts>, string]>([
    [{ kernelRelease: "5.3.18" }, "kernel fail"],
    [{ nodeVersion: "v20.18.3" }, "node-version fail"],
    [{ nodeVersion: "v18.20.0" }, "node-version fail"],
    [{ fuse: "it is not there" }, "fuse fail"],
    [{ memoryBytes: 2 ** 29 - 1 }, "memory warn"],
    [{ memoryLimitBytes: 2 ** 28 }, "memory warn"],
    [{ descriptors: 1024 }, "memory warn"],
  ])("%j", (change, expected) => expect(wrong(change)).toEqual([expected]));

  it.each(["5.4.0", "6.1.0-28-amd64", "10.0"])("kernel %s will do", (kernelRelease) => expect(wrong({ kernelRelease })).toEqual([]));
});

describe("files and names", () => {
  const file = { path: "/k", mode: 0o600, uid: 0, isFile: true };
  const keys = { ids: ["0a0b0c0d"], problem: null };
  it("a key that others read, or own, is a failure", () => {
    expect(judgeKeyFile("/k", file, keys, []).status).toBe("ok");
    expect(judgeKeyFile("/k", null, keys, []).status).toBe("fail");
    expect(judgeKeyFile("/k", { ...file, mode: 0o640 }, keys, [])).toMatchObject({ status: "fail", found: "mode 0640, user id 0" });
    expect(judgeKeyFile("/k", { ...file, uid: 1000 }, keys, []).status).toBe("fail");
    expect(judgeKeyFile("/k", file, { ids: [], problem: { message: "no key", hint: "make one" } }, []).status).toBe("fail");
  });
  it("a configuration that others can change is a failure", () => {
    expect(judgeConfigFile("/c", null, { ...file, mode: 0o644 }, "well").status).toBe("ok");
    expect(judgeConfigFile("/c", null, { ...file, mode: 0o664 }, "well").status).toBe("fail");
    expect(judgeConfigFile("/c", { message: "bad", hint: "mend" }, null, "").status).toBe("fail");
  });
  it("so is one of another user, or in a folder where another user can replace it", () => {
    const folder = { path: "/etc/c d", mode: 0o755, uid: 0, isFile: false };
    const both = (change: Partial<typeof folder>): string[] => {
      const folders = [{ ...folder, ...change }];
      return [judgeConfigFile("/c", null, file, "well", folders), judgeKeyFile("/k", file, keys, folders)].map(
        ({ status, action }) => status + action,
      );
    };
    expect(judgeConfigFile("/c", null, { ...file, mode: 0o644, uid: 1000 }, "well").status).toBe("fail");
    expect(both({})).toEqual(["ok", "ok"]);
    expect(both({ mode: 0o777 })).toEqual(["failchmod go-w '/etc/c d'", "failchmod go-w '/etc/c d'"]);
    expect(both({ mode: 0o1777 })).toEqual(["ok", "ok"]);
    expect(both({ uid: 1000 })).toEqual(["failchown root '/etc/c d'", "failchown root '/etc/c d'"]);
  });
  it("an address that each machine has is a warning, also beside the right one", () => {
    for (const resolved of [["127.0.1.1"], ["127.0.1.1", "10.0.0.2"], ["10.0.0.2", "127.0.0.1"]]) {
      expect(judgeName("node2", "10.0.0.2", resolved)).toMatchObject({
        status: "warn",
        action: expect.stringContaining("127.0.") as unknown,
      });
    }
    expect(judgeName("node2", "127.0.0.2", ["127.0.0.2"]).status).toBe("ok");
  });
  it("a machine is one node", () => {
    expect(judgeSelf(null, ["node1"], ["10.0.0.1"]).status).toBe("ok");
    expect(judgeSelf("node2", ["node1", "node2"], []).status).toBe("ok");
    expect(judgeSelf(null, ["node1", "node2"], []).status).toBe("fail");
    expect(judgeSelf("node1", [], ["10.0.0.9"]).status).toBe("fail");
  });
  it("a name that leads elsewhere is a warning; none is needed", () => {
    expect(judgeName("node2", "10.0.0.2", null).status).toBe("ok");
    expect(judgeName("node2", "10.0.0.2", ["10.0.0.9", "10.0.0.2"]).status).toBe("ok");
    expect(judgeName("node2", "10.0.0.2", ["10.0.0.9"])).toMatchObject({ status: "warn" });
  });
});

describe("findings", () => {
  const one = judge("key", "k", "e");
  const onNode = (findings: readonly Finding[], node: string | null): NodeFinding[] => findings.map((finding) => ({ ...finding, node }));
  const all = [one.ok("o"), one.unknown("u", "do u"), one.warn("w", "do w"), one.fail("f", "do f")] as const;
  it("have the exit status of the worst", () => {
    expect([[], [all[0]], [all[0], all[1]], [all[2]], all].map((findings) => exitStatusOf(findings))).toEqual([0, 0, 1, 1, 2]);
  });
  it("are told the worst first, with what to do", () => {
    expect(worstFirst(all).map(({ status }) => status)).toEqual(["fail", "warn", "unknown", "ok"]);
    const text = describeFindings(onNode(worstFirst(all), "node1"), "node1");
    expect(text).toContain("fail     key: k\n           expected: e\n           found:    f\n           do:       do f\n");
    expect(text).toContain("ok       key: k: o\n");
    expect(text.endsWith("1 failed, 1 warnings, 1 not known, 1 well")).toBe(true);
  });
  it("a name with an end of line makes no line of its own", () => {
    const forged = judge("key", "k\nok       key: k: well", "e").fail("f\nok", "do\nf");
    expect(describeFindings(onNode([forged], null), null).split("\n")).toHaveLength(5);
  });
  it("a check that crosses its limit says so", () => {
    expect(crossedLimit("device", "/dev/sdb", 4000)).toMatchObject({
      status: "unknown",
      found: expect.stringContaining("given up after 4 s") as unknown,
    });
  });
});
