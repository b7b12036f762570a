/** Hazard F4: a LOOKUP does not wait for ever for its directory's lock, since a thread that takes a listing may wait for it, and a revoke for that thread. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { LOOK_WAIT_MS } from "../../../overlay/op/lookup.ts";
import { Workbench } from "./workbench.ts";

const REQUEST = { op: "lookup", fuseNodeid: 1, name: Buffer.from("name") } as const;
const ENTRY_VALID_AT = 16;
const ATTR_VALID_AT = 24;

let bench: Workbench;
beforeEach(() => {
  bench = new Workbench();
  bench.coherence.locks = "never";
  bench.coherence.looksUnpinned = true;
  bench.coherence.untilBirthsKnown = () => undefined;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => {
  vi.useRealTimers();
  const { violations, held } = bench.coherence;
  if (violations.length > 0 || held > 0) throw new Error(`${held} pins are left; ${violations.join("; ")}`);
});

describe("a LOOKUP whose directory's lock does not come", () => {
  it("waits for it, and then is answered without it: the name has no validity, and the attributes are the child's", async () => {
    const served = bench.serve(REQUEST);
    await vi.advanceTimersByTimeAsync(LOOK_WAIT_MS - 1);
    expect(bench.replies).toEqual([]);
    expect(bench.lower.calls).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    const reply = await served;
    expect(reply?.errno).toBe(0);
    expect(reply?.body.readBigUInt64LE(ENTRY_VALID_AT)).toBe(0n);
    expect(reply?.body.readBigUInt64LE(ATTR_VALID_AT)).toBeGreaterThan(0n);
    expect(bench.coherence.events.filter((event) => event.startsWith("pin"))).toEqual(["pin 20.1 PR"]);
  });

  it("says of a name that is not there what has no validity", async () => {
    bench.lower.errors.set("lookup", [E.ENOENT]);
    const served = bench.serve(REQUEST);
    await vi.advanceTimersByTimeAsync(LOOK_WAIT_MS);
    expect((await served)?.errno).toBe(E.ENOENT);
    expect(bench.coherence.told.size).toBe(0);
  });

  it("waits until what others have made is known", async () => {
    let known = (): void => undefined;
    bench.coherence.untilBirthsKnown = () => new Promise((resolve) => (known = resolve));
    const served = bench.serve(REQUEST);
    await vi.advanceTimersByTimeAsync(LOOK_WAIT_MS);
    expect(bench.lower.calls).toEqual(["lookup"]);
    expect(bench.replies).toEqual([]);
    known();
    expect((await served)?.errno).toBe(0);
  });

  it("ends when its caller is killed, and looks at nothing", async () => {
    const call = bench.call("lookup");
    const served = bench.serve(REQUEST, call);
    call.interrupt();
    await vi.advanceTimersByTimeAsync(LOOK_WAIT_MS);
    expect((await served)?.errno).toBe(E.EINTR);
    expect(bench.lower.calls).toEqual([]);
  });

  it("ends with what ends the wait", async () => {
    const call = bench.call("lookup");
    const served = bench.serve(REQUEST, call);
    // As where the lock manager has died (hazard F42).
    call.onInterrupt?.();
    expect((await served)?.errno).toBe(E.EINTR);
    expect(bench.lower.calls).toEqual([]);
  });

  it("is answered under it, if it comes in time", async () => {
    bench.coherence.locks = "away";
    const reply = await bench.serve(REQUEST);
    expect(reply?.body.readBigUInt64LE(ENTRY_VALID_AT)).toBeGreaterThan(0n);
    expect(vi.getTimerCount()).toBe(0);
  });
});
