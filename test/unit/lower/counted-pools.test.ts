/** A lower that is shut down closes no descriptor whose number a call in a pool still carries: the call would be made with another's. */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Native, nativeAddon } from "../../../native/index.ts";
import { createLocalLower } from "../../../overlay/lower/local/local.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";

it("the root is closed when the last call that was queued with it has been made", async () => {
  const native = nativeAddon();
  const place = directoryPlace();
  const how = { rootFd: place.rootFd, metadataCalls: "inline", log: silentLog } as const;
  writeFileSync(path.join(`/proc/self/fd/${place.rootFd}`, "file"), "four");
  const first = createLocalLower({ native, ...how });
  const { id } = await first.lookup(first.root, Buffer.from("file"));
  await first.shutdown();

  // All threads of the pool wait for the disk: what is asked for is queued behind them.
  const queued: { readonly fd: number; readonly make: () => void }[] = [];
  const statHandle: Native["pool"]["metadata"]["statHandle"] = (fd, handle, stat) =>
    new Promise((resolve) => {
      queued.push({ fd, make: () => void native.pool.metadata.statHandle(fd, handle, stat).then(resolve) });
    });
  const closed: number[] = [];
  const close = (fd: number): number => {
    closed.push(fd);
    return native.sync.close(fd);
  };
  const pool = { ...native.pool, metadata: { ...native.pool.metadata, statHandle } };
  const lower = createLocalLower({ native: { ...native, pool, sync: { ...native.sync, close } }, ...how });
  const asked = [lower.getattr(id), lower.getattr(id)];
  expect(queued).toHaveLength(asked.length);

  const shutdown = lower.shutdown();
  for (const [no, { fd, make }] of queued.entries()) {
    for (let turn = 0; turn < 20; turn += 1) await nextTurn();
    expect(closed).not.toContain(fd);
    make();
    expect((await asked[no])?.size).toBe(4);
  }
  await shutdown;
  expect(closed).toContain(queued[0]?.fd);
  await place.release();
});
