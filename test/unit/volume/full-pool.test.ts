/** Callers that sync fill the pool of syncs: the end of a file system whose disk is another's, and the look that finds it, do not wait for them. */
import { closeSync, constants, openSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { shutDownDetached } from "../../../overlay/volume/detached.ts";
import { readDeviceBlock } from "../../../overlay/volume/direct-block.ts";
import { bytes, isRoot, native, opened, useScratch } from "../native/scratch.ts";

const S_IFIFO = 0o010000;
const BLOCKED = 64;
/** preadv2 at this offset uses the current position, which a FIFO needs. */
const CURRENT = -1;

describe.runIf(isRoot)("while all threads for syncs are taken", () => {
  const scratch = useScratch();

  it("the owner's block is read, and the file system is shut down", async () => {
    expect(native.sync.mknod(scratch.fd, bytes("fifo"), S_IFIFO | 0o600, 0, 0, 0, 0, 0)).toBe(0);
    const fifo = opened(scratch, native.sync.openat2(scratch.fd, bytes("fifo"), constants.O_RDWR, 0, 0));
    const blocked = Array.from({ length: BLOCKED }, () => native.pool.sync.read(fifo, Buffer.alloc(1), 0, 1, CURRENT, 0));
    // Neither a disk nor a file system: what matters is that they answer.
    const none = openSync("/dev/null", constants.O_RDONLY);
    try {
      await expect(shutDownDetached({ mountFd: none, rootFd: none, number: "7:1" }, "/dev/x")).rejects.toMatchObject({
        code: "not-shut-down",
      });
      await expect(readDeviceBlock("/dev/does-not-exist", 0, 4096)).rejects.toMatchObject({ code: "device-io" });
    } finally {
      closeSync(none);
      expect(native.sync.write(fifo, Buffer.alloc(BLOCKED), 0, BLOCKED, CURRENT, 0)).toBe(BLOCKED);
      await Promise.all(blocked);
    }
  });
});
