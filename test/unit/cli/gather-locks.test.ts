/** Of which files an overlay is asked to bring the locks together, before they are shown. */
import { expect, it } from "vitest";
import { gatherQuestions, MAX_GATHERED_FILES } from "../../../overlay/query/gather-locks.ts";
import { volumeLockspace } from "../../../overlay/volume/owner.ts";

const lockspace = volumeLockspace("a");
const row = (resource: string, granted: string, space = lockspace) => ({
  lockspace: space,
  resource,
  masterNodeid: 1,
  lvb: null,
  fromMaster: true,
  convertQueue: [],
  waitQueue: [],
  grantQueue: [
    {
      nodeid: 1,
      clientId: 1,
      lockId: 1,
      granted,
      requested: null,
      waitingMs: null,
      orphan: false,
      asked: null,
      askedMs: null,
      mayKeep: false,
    },
  ],
});

it("of those whose locks one node keeps to itself, in each volume", () => {
  const other = volumeLockspace("b");
  const resources = [
    row("f7.1", "EX"),
    row("f8.1", "CW"),
    row("i7.1", "EX"),
    row("f9.2", "EX", other),
    row("f9.2", "EX", "somebody's own"),
  ];
  expect(gatherQuestions({ resources })).toEqual([
    { query: "gather", lockspace, files: ["f7.1"] },
    { query: "gather", lockspace: other, files: ["f9.2"] },
  ]);
});

it("of MAX_GATHERED_FILES at most, in questions that an overlay takes", () => {
  const resources = Array.from({ length: MAX_GATHERED_FILES + 1 }, (_, at) => row(`f${4_000_000_000 + at}.4294967295`, "EX"));
  const questions = gatherQuestions({ resources });
  expect(questions.flatMap(({ files }) => files)).toHaveLength(MAX_GATHERED_FILES);
  for (const question of questions) expect(JSON.stringify(question).length).toBeLessThan(4096);
});
