/** What a mount makes of what its lock manager knows of the last owner's node, before it asks for a fence. */
import { describe, expect, it } from "vitest";
import { cannotWrite, type HeardNode, heardLife, requireStill } from "../../../overlay/serve/proofs.ts";

const node = (state: string, heardAgoMs: number | null, incarnation: string | null = "aa"): HeardNode => ({
  nodeid: 1,
  incarnation,
  state,
  heardAgoMs,
});

describe("the node of the last owner", () => {
  it.each([
    ["heard", 10],
    ["connected", null],
    ["other-config", 10],
  ] as const)("is there, and may be about to join: %s", (state, heardAgoMs) => {
    expect(heardLife(node(state, heardAgoMs))).toEqual({ incarnation: "aa", now: true });
  });

  it.each(["silent", "left", "evicted"])("was heard, and is no more: %s", (state) => {
    expect(heardLife(node(state, 9000))).toEqual({ incarnation: "aa", now: false });
  });

  it("was not heard: it is not configured, was silent all the time, or had a connection for a moment only", () => {
    for (const one of [undefined, node("silent", null, null), node("silent", null)]) expect(heardLife(one)).toBeNull();
  });
});

describe("a life that cannot write", () => {
  const lower = { kind: "device", path: "/dev/sdb" } as const;
  const mounted = { lower, readOnly: true, reachesLower: true };

  it("mounts a read-only device read-only: no other one", () => {
    expect(cannotWrite(mounted, () => true)).toBe(true);
    // Its journal may be written back.
    expect(cannotWrite(mounted, () => false)).toBe(false);
    for (const other of [{ readOnly: false }, { reachesLower: false }, { lower: { kind: "directory", path: "/srv" } as const }])
      expect(cannotWrite({ ...mounted, ...other }, () => true)).toBe(false);
  });

  it("touches the device no more once that is writable", () => {
    requireStill(mounted, () => true);
    expect(() => requireStill(mounted, () => false)).toThrow(expect.objectContaining({ code: "device-writable" }));
  });
});
