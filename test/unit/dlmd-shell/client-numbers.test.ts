/** Numbers and names of a program that the wire cannot carry: nothing is asked for, and the connection stays. */
import { expect, test } from "vitest";
import type { DlmClient } from "../../../dlmd/client/api.ts";
import { FrameGatherer } from "../../../dlmd/wire/frame.ts";
import { localSocketLab } from "./local-socket-lab.ts";

const current = localSocketLab();
const life = { nodeid: 1, incarnation: "00000000000000ff", bootId: "", why: "w" };
const all = { lockspace: "", resource: "", nodeid: 0, waitingMs: null };
const processLife = { nodeid: 1, pid: 1, startTime: 1, device: "8:1" };

const calls: readonly [string, (client: DlmClient) => Promise<unknown>][] = [
  ["purge of node 70000", (client) => client.purge("x", 70_000, 1)],
  ["purge of pid -1", (client) => client.purge("x", 1, -1)],
  ["purge of pid 2^32", (client) => client.purge("x", 1, 2 ** 32)],
  ["fenceLife of node 70000", (client) => client.fenceLife({ ...life, nodeid: 70_000 })],
  ["inspect of 2^32 ms", (client) => client.inspect({ ...all, waitingMs: 2 ** 32 })],
  ["inspect of node 70000", (client) => client.inspect({ ...all, nodeid: 70_000 })],
  ["inspect of a long lockspace", (client) => client.inspect({ ...all, lockspace: "x".repeat(300) })],
  ["inspect of a long resource", (client) => client.inspect({ ...all, resource: "x".repeat(300) })],
  ["endKept of 2^32", (client) => client.endKept(2 ** 32)],
  ["farewell of client -1", (client) => client.farewell(-1, "g", new Uint8Array(1))],
  ["farewell of 2 MiB", (client) => client.farewell(1, "g", new Uint8Array(2 * 1024 * 1024))],
  ["askLife with a start time of -5", (client) => client.askLife({ ...processLife, startTime: -5 })],
  ["askLife of node 70000", (client) => client.askLife({ ...processLife, nodeid: 70_000 })],
  ["keepLocks for 2^32 ms", (client) => client.keepLocks(2 ** 32)],
];

test.each(calls)("%s", async (_what, call) => {
  const lab = current();
  const client = await lab.connect();
  await expect(call(client)).rejects.toMatchObject({ code: expect.stringMatching(/^(EINVAL|bad-name|bad-limit|too-large)$/) });
  await client.close();
  expect(lab.endedHere).toEqual([]);
});

test("of a message that cannot be written nothing is gathered", () => {
  const gatherer = new FrameGatherer(1000, 100, () => undefined);
  gatherer.message((writer) => void writer.u32(7));
  const before = gatherer.length;
  expect(() => {
    gatherer.message((writer) => {
      writer.u32(8);
      throw new Error("no room");
    });
  }).toThrow("no room");
  expect(gatherer.length).toBe(before);
  expect([...gatherer.take()]).toEqual([4, 0, 0, 0, 7, 0, 0, 0]);
});
