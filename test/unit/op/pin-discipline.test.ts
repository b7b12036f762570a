/** For every operation, in every outcome: one reply, given under the pins; pins and tokens balanced; nothing held while waiting. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { operationRows, prepare } from "./operation-rows.ts";
import type { Workbench } from "./workbench.ts";

/** Closes what the operation or its preparation opened, and checks that nothing else is left. */
function settle(bench: Workbench): void {
  const { coherence, inodes, mount } = bench;
  expect(coherence.violations).toEqual([]);
  expect(coherence.held).toBe(0);
  expect(coherence.tokens).toBe(mount.handles.takeAll().filter((file) => file.writeToken).length);
  expect(inodes.root.useCount).toBe(0);
  expect(bench.file.useCount).toBe(0);
}

describe.each(operationRows)("$op ($lower)", (row) => {
  describe.each([false, true])("lower answers later: %s", (later) => {
    it("success", async () => {
      const { bench, request } = prepare(row);
      bench.lower.later = later;
      await bench.serve(request);
      expect(bench.replies).toHaveLength(1);
      expect(bench.replies[0]?.errno).toBe(0);
      expect(bench.replies[0]?.held).toBe(row.pins.length);
      expect(bench.lower.madeForRequests).toEqual(row.isMadeFor === true ? [`${row.lower} ${bench.replies[0]?.unique}`] : []);
      const pins = bench.coherence.events.filter((event) => event.startsWith("pin "));
      expect(pins).toEqual(row.pins);
      const told = bench.coherence.events.filter((event) => event.startsWith("outdated") || event === "reply");
      expect(told).toEqual([...(row.outdates ?? []), "reply"]);
      expect(bench.coherence.events.findIndex((event) => event.startsWith("unpin"))).toBeGreaterThanOrEqual(
        row.pins.length === 0 ? -1 : bench.coherence.events.indexOf("reply"),
      );
      settle(bench);
    });

    it("the lower fails", async () => {
      const { bench, request } = prepare(row);
      bench.lower.later = later;
      bench.lower.errors.set(row.lower, [E.EIO]);
      await bench.serve(request);
      expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EIO]);
      settle(bench);
    });

    it("the lock comes later", async () => {
      const { bench, request } = prepare(row);
      bench.lower.later = later;
      bench.coherence.locks = "away";
      await bench.serve(request);
      expect(bench.replies.map(({ errno }) => errno)).toEqual([0]);
      settle(bench);
    });

    it("the kernel does not take the reply", async () => {
      const { bench, request } = prepare(row);
      bench.lower.later = later;
      bench.writeResult = -E.ENOENT;
      const handles = bench.mount.handles.size;
      const { nlookup } = bench.file;
      await bench.serve(request);
      expect(bench.replies).toHaveLength(1);
      expect(bench.mount.handles.size).toBe(handles);
      expect(bench.file.nlookup).toBe(nlookup);
      expect(bench.inodes.size).toBe(2);
      settle(bench);
    });
  });

  // An operation that pins nothing waits for no lock.
  if (row.pins.length === 0) return;
  it("the caller is killed while it waits", async () => {
    const { bench, request } = prepare(row);
    bench.coherence.locks = "never";
    const call = bench.call(row.op);
    const served = bench.serve(request, call);
    await new Promise((resolve) => setImmediate(resolve));
    expect(bench.replies).toEqual([]);
    call.interrupt();
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR]);
    await served;
    expect(bench.replies).toHaveLength(1);
    expect(bench.lower.calls).toEqual([]);
    settle(bench);
  });

  it("the caller is killed while the lower works: the late reply is dropped and gives nothing", async () => {
    const { bench, request } = prepare(row);
    bench.lower.later = true;
    const handles = bench.mount.handles.size;
    const { nlookup } = bench.file;
    const call = bench.call(row.op);
    const served = bench.serve(request, call);
    call.interrupt();
    await served;
    expect(bench.replies.map(({ errno }) => errno)).toEqual([E.EINTR]);
    expect(bench.mount.handles.size).toBe(handles);
    expect(bench.file.nlookup).toBe(nlookup);
    settle(bench);
  });
});
