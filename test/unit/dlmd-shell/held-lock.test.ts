/** A lock as a program holds it: what is wrong is said before anything of it is sent. */
import { describe, expect, test } from "vitest";
import { takeLock } from "../../../dlmd/client/held-lock.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { localSocketLab } from "./local-socket-lab.ts";

const current = localSocketLab();

describe("a request that cannot be sent", () => {
  test.each([
    ["a block that is too long", { value: new Uint8Array(257) }, "a value block of at most 256 bytes expected, found 257"],
    ["a part of a transaction", { transaction: 1.5 }, "a transaction from 0 to 4294967294 expected, found 1.5"],
    ["a transaction below 0", { transaction: -1 }, "a transaction from 0 to 4294967294 expected, found -1"],
    ["a transaction that is too high", { transaction: 2 ** 32 - 1 }, "a transaction from 0 to 4294967294 expected, found 4294967295"],
    ["a time-out that is no number", { timeoutMs: Number.NaN }, "a time-out in milliseconds expected, found NaN"],
  ])("%s: it is refused, and the lock, its connection and the next request are as before", async (_, options, words) => {
    const lab = current();
    const client = await lab.connect();
    const space = await client.lockspace("data");
    const lock = await takeLock(space, "job", Mode.PR, { lvb: true });
    await expect(lock.convert(Mode.EX, options)).rejects.toMatchObject({ code: "EINVAL", message: `lock job: ${words}` });
    const second = "value" in options ? lock.unlock(options.value) : takeLock(space, "other", Mode.EX, options);
    await expect(second).rejects.toMatchObject({ code: "EINVAL" });
    await lock.convert(Mode.EX);
    await lock.unlock();
    expect(await client.query("nodes")).toEqual({ asked: "nodes" });
  });

  test("of a lock that is given up is refused, and takes none anew", async () => {
    const space = await (await current().connect()).lockspace("data");
    const lock = await takeLock(space, "job", Mode.EX);
    await lock.unlock();
    for (const late of [lock.convert(Mode.PR), lock.unlock()]) await expect(late).rejects.toMatchObject({ code: "ENOENT" });
    expect(lock.mode).toBe(Mode.NL);
  });
});

describe("the end of the connection", () => {
  test("a request that waits, and one after it, are refused; what is asked at once, too", async () => {
    const lab = current();
    const client = await lab.connect();
    const space = await client.lockspace("data");
    const lock = await takeLock(space, "job", Mode.EX);
    lab.onRequests = () => undefined;
    const waiting = [takeLock(space, "other", Mode.EX), lock.convert(Mode.PR, { signal: new AbortController().signal })];
    const closed = client.close();
    for (const one of waiting) await expect(one).rejects.toMatchObject({ code: "lock-over", cause: { code: "closed" } });
    await closed;
    for (const late of [takeLock(space, "late", Mode.PR), lock.unlock()]) await expect(late).rejects.toMatchObject({ code: "lock-over" });
  });

  test("by dlmd: the same, after the program was told that it is disconnected", async () => {
    const lab = current();
    const heard: string[] = [];
    const client = await lab.connect({ disconnected: () => void heard.push("disconnected") });
    const space = await client.lockspace("data");
    lab.onRequests = () => undefined;
    const waiting = takeLock(space, "job", Mode.EX).catch(({ code }: { code: string }) => heard.push(code));
    await lab.server.close("it ends");
    await waiting;
    expect(heard).toEqual(["disconnected", "lock-over"]);
  });
});

test("a program with a long path connects: people know it by its end", async () => {
  const was = process.argv[1];
  process.argv[1] = `/${"\u00e4".repeat(300)}/main.js`;
  try {
    const client = await current().connect();
    expect(await client.query("nodes")).toEqual({ asked: "nodes" });
  } finally {
    process.argv[1] = was ?? "";
  }
});
