/** The client's list of file-lock requests: who asks after the connection has ended hears of it as one that waited. */
import { expect, test } from "vitest";
import { FileLockRequests } from "../../../dlmd/client/file-lock.ts";

const ask = {
  lockspaceId: 1,
  file: "a",
  op: "lock",
  ownerKind: "posix",
  owner: 7n,
  pid: 7,
  type: "write",
  start: 0n,
  end: 9n,
  wait: true,
  begun: false,
  heldMs: null,
  first: false,
} as const;

test("a request after the end of the connection fails once it has a number, and nothing of it is sent", async () => {
  const sent: string[] = [];
  const requests = new FileLockRequests(({ kind }) => sent.push(kind));
  requests.end(new Error("over"));
  const heard: string[] = [];
  const id = requests.start(
    ask,
    () => heard.push("done"),
    ({ message }) => heard.push(message),
  );
  expect([heard, id > 0, sent]).toEqual([[], true, []]);
  await Promise.resolve();
  expect(heard).toEqual(["over"]);
});
