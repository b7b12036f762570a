/** An answer that came too late for the lease (hazard C4): kept as it was, and what becomes of it. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { KeptAnswer } from "../../../overlay/lease/lease.ts";
import { Call, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";

interface Scene {
  readonly call: Call;
  readonly kept: KeptAnswer[];
  readonly hurried: KeptAnswer[];
  /** "errno body" of what left. */
  readonly left: string[];
  readonly buffer: Buffer;
  holds: boolean;
}

function scene(): Scene {
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const kept: KeptAnswer[] = [];
  const hurried: KeptAnswer[] = [];
  const left: string[] = [];
  const write = (bytes: number, body = ""): number => left.push(`${Math.abs(buffer.readInt32LE(4))} ${bytes} ${body}`);
  const at = { holds: false };
  const call = new Call(
    { unique: 7, op: "read", fuseNodeid: 1, uid: 0, gid: 0, pid: 1 },
    {
      buffer,
      write: (bytes) => write(bytes),
      writeWithBody: (headBytes, body, from, bytes) => write(headBytes, Buffer.from(body.subarray(from, from + bytes)).toString()),
      log: silentLog,
      lease: {
        holds: () => at.holds,
        again: () => Promise.resolve(),
        keep: (answer) => void kept.push(answer),
        hurried: (answer) => void hurried.push(answer),
      },
    },
  );
  return Object.assign(at, { call, kept, hurried, left, buffer });
}

it("one that is given in the turn in which the request came leaves at once: the lease was looked at then", () => {
  const { call, left, kept } = scene();
  expect(call.data(Buffer.from("now"))).toBe(true);
  expect([left, kept]).toEqual([["0 16 now"], []]);
});

it("a later one is kept, whatever becomes of the buffers, and leaves as it was", () => {
  const { call, left, kept, buffer } = scene();
  let answered = 0;
  call.onAnswered = (): void => void answered++;
  call.late = true;
  const body = Buffer.from("then");
  expect(call.data(body)).toBe(true);
  expect([left, kept, answered, call.answered, call.kept]).toEqual([[], [call], 0, true, true]);
  body.fill(0);
  buffer.fill(0xff);
  call.release();
  expect([left, answered, call.kept]).toEqual([["0 16 then"], 1, false]);
  call.release();
  expect(left).toHaveLength(1);
  // The kernel's size goes by the call for as long as the inode is known: it is not to keep the request with it.
  expect(call.onAnswered).toBe(null);
});

it("while the lease holds a later one leaves at once", () => {
  const one = scene();
  one.holds = true;
  one.call.late = true;
  one.call.empty();
  expect([one.left, one.kept]).toEqual([["0 16 "], []]);
});

it("a caller that is killed gets it, since what it gives is counted as given, and the lease is told", () => {
  const { call, left, hurried } = scene();
  call.late = true;
  call.empty();
  call.interrupt();
  expect([left, hurried]).toEqual([["0 16 "], [call]]);
});

it("when the mount is taken out its caller gets EIO, not what may be old", () => {
  const { call, left } = scene();
  call.late = true;
  call.data(Buffer.from("old"));
  call.giveUp();
  expect(left).toEqual([`${E.EIO} 16 `]);
});

it("one who is killed while he waits gets EINTR at once, whatever the lease", () => {
  const { call, left, kept } = scene();
  call.late = true;
  call.interrupt();
  expect([left, kept, call.interrupted]).toEqual([[`${E.EINTR} 16 `], [], true]);
});
