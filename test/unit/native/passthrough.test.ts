/** Hazard F24: what this machine's kernel leaves of a file with FUSE_PASSTHROUGH whose server has gone. `docs/kernel/README.md` says what it would need. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { errno, isRoot, native, opened, useScratch } from "./scratch.ts";

const O_RDWR = 2;
const O_EXCL = 0o200;
const IMAGE_BYTES = 64 * 1024 * 1024;
/** The probe's exit status: this kernel cannot do it. */
const CANNOT = 77;
const STEPS = ["served", "aborted", "unmounted", "dead"];
const probe = path.resolve(import.meta.dirname, "../../../docs/kernel/passthrough-probe.py");

describe.runIf(isRoot)("hazard F24: FUSE_PASSTHROUGH", () => {
  const scratch = useScratch();

  it("a handle reads, writes and maps after abort, unmount and its server's death, and holds the device until it is closed", async (context) => {
    const image = path.join(scratch.dir, "image");
    const fd = openSync(image, "w");
    ftruncateSync(fd, IMAGE_BYTES);
    closeSync(fd);
    execFileSync("mkfs.ext4", ["-q", "-F", image]);
    const number = native.loopAttach(opened(scratch, native.open(image, O_RDWR, 0)), false, false, 0);
    if (number < 0) throw new Error(`loopAttach: errno ${-number}`);
    const device = `/dev/loop${number}`;
    const loop = native.open(device, O_RDWR, 0);
    scratch.later(() => {
      native.loopDetach(loop);
      native.sync.close(loop);
    });
    const lower = path.join(scratch.dir, "lower");
    mkdirSync(lower);
    execFileSync("mount", [device, lower]);
    const unmount = (): void => void execFileSync("umount", ["-l", lower]);
    let mounted = true;
    scratch.later(() => {
      if (mounted) unmount();
    });
    const file = path.join(lower, "file");
    writeFileSync(file, Buffer.alloc(4096));

    const child = spawn("python3", [probe, file], { stdio: ["pipe", "pipe", "inherit"] });
    const ended = once(child, "close") as Promise<[number | null]>;
    scratch.later(() => {
      child.kill("SIGKILL");
    });
    const found: string[] = [];
    let exclusive = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      if (line !== "held 1") {
        found.push(line);
        continue;
      }
      unmount();
      mounted = false;
      exclusive = native.open(device, O_RDWR | O_EXCL, 0);
      child.stdin.end("\n");
    }
    const [status] = await ended;
    context.skip(status === CANNOT, "this kernel has no FUSE_PASSTHROUGH");
    expect(status).toBe(0);
    // If one of them is 0 this kernel ends such handles: read hazard F24 again.
    expect(found).toEqual(STEPS.flatMap((step) => ["read", "write", "mapped", "arrived"].map((what) => `${step}-${what} 1`)));
    expect(exclusive).toBe(-errno.EBUSY);
    opened(scratch, native.open(device, O_RDWR | O_EXCL, 0));
  });
});
