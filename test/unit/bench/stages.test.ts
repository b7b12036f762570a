/** The table of processor time by stage: which code counts for which, and what a window of a profile holds. */
import { expect, it } from "vitest";
import { type Profile, STAGES, stageOf, stagesBetween } from "../../bench/stages.ts";

const frame = (functionName: string, url = ""): Profile["nodes"][number]["callFrame"] => ({ functionName, url });

it("knows a stage by the file, and V8's own by their names", () => {
  const of = (file: string): ReturnType<typeof stageOf> => stageOf(frame("f", `file:///somewhere/dist/${file}`));
  expect(["overlay/session/dispatch.js", "overlay/op/write.js", "overlay/inode/table.js"].map(of)).toEqual(["session", "op", "op"]);
  expect(["overlay/fuse/decode-request.js", "overlay/fuse/reply.js"].map(of)).toEqual(["decode", "encode"]);
  expect(["overlay/coherence/lock/revoke.js", "overlay/lower/remote/core.js", "dlmd/client/lock.js"].map(of)).toEqual([
    "coherence",
    "lower",
    "locks",
  ]);
  expect(stageOf(frame("writeOrBuffer", "node:internal/streams/writable"))).toBe("node");
  expect(["(program)", "(garbage collector)", "(idle)"].map((name) => stageOf(frame(name)))).toEqual(["native", "garbage", null]);
});

it("counts a sample until the next one, and only what begins within the window", () => {
  const nodes = [
    { id: 1, callFrame: frame("(idle)") },
    { id: 2, callFrame: frame("write", "file:///dist/overlay/op/write.js") },
    { id: 3, callFrame: frame("(program)") },
  ];
  // At 1010, 1030, 1060, 1100 and 1150.
  const profile: Profile = { nodes, startTime: 1000, samples: [2, 3, 1, 2, 2], timeDeltas: [10, 20, 30, 40, 50] };
  const none = Object.fromEntries(STAGES.map((stage) => [stage, 0]));
  expect(stagesBetween(profile, 0, 2000)).toEqual({ ...none, op: 20 + 50, native: 30 });
  expect(stagesBetween(profile, 1030, 1100)).toEqual({ ...none, native: 30 });
  expect(stagesBetween(profile, 1100, 1101)).toEqual({ ...none, op: 50 });
});
