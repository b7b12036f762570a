/** SETLK: FLUSH of a file comes here as soon as one of its closes may have a lock to give up (native/src/device.cc). */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { type FileLocking, forgetLocks, lockFile } from "../../../overlay/file-lock/api.ts";
import type { GetlkRequest, ReleaseRequest, SetlkRequest } from "../../../overlay/fuse/request.ts";
import type { Call } from "../../../overlay/op/call.ts";
import { getlk, setlk } from "../../../overlay/op/lock.ts";
import { release } from "../../../overlay/op/open.ts";
import { Workbench } from "./workbench.ts";

const request = { op: "setlk", owner: 5n, start: 0n, end: 9n, lockPid: 42, wait: false } as const;

function lockBench(): { events: string[]; serve: (what: { type: "read" | "write" | "unlock"; flock: boolean }) => Promise<void> } {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const events: string[] = [];
  const fileLocks = {
    lock: () => {
      events.push("lock");
      return { done: "granted", cancel: () => undefined };
    },
    unlock: () => {
      events.push("unlock");
      return "granted";
    },
  } as unknown as FileLocking;
  const mount = { ...bench.mount, fileLocks, askFlush: (inode: unknown) => events.push(inode === bench.file ? "ask" : "ask of another") };
  return {
    events,
    serve: (what) => setlk(mount, bench.call("setlk"), { ...request, ...what, fh } as unknown as SetlkRequest),
  };
}

it("a POSIX or OFD lock is asked for only when its FLUSH would come", async () => {
  const { events, serve } = lockBench();
  await serve({ type: "read", flock: false });
  await serve({ type: "write", flock: false });
  expect(events).toEqual(["ask", "lock", "ask", "lock"]);
});

it("flock(2), which no FLUSH gives up, and an unlock ask for none", async () => {
  const { events, serve } = lockBench();
  await serve({ type: "write", flock: true });
  await serve({ type: "unlock", flock: false });
  expect(events).toEqual(["lock", "unlock"]);
});

it.each([true, false])("RELEASE gives up what was locked through that open file, if anything is locked: %s", (inUse) => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const told: unknown[][] = [];
  const fileLocks = { inUse, released: (...what: unknown[]) => told.push(what) } as unknown as FileLocking;
  const of = { fuseNodeid: bench.file.fuseNodeid, pid: 42, unique: 2 };
  release({ ...bench.mount, fileLocks }, bench.call("release"), {
    ...of,
    op: "release",
    fh,
    flags: 0,
    lockOwner: 0n,
  } as unknown as ReleaseRequest);
  expect(told).toEqual(inUse ? [[lockFile(bench.file), fh]] : []);
});

it.each([true, false])("what the kernel forgets has no locks any more, if anything is locked: %s", (inUse) => {
  const { file } = new Workbench();
  const told: string[] = [];
  forgetLocks({ inUse, forgotten: (what: string) => told.push(what) } as unknown as FileLocking, file);
  forgetLocks(null, file);
  expect(told).toEqual(inUse ? [lockFile(file)] : []);
});

it("who is killed while he waits hears EINTR at once, and what he is given later is given up", async () => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const did: string[] = [];
  const done = new Promise<string>(() => undefined);
  const fileLocks = {
    lock: () => ({ done, cancel: () => did.push("cancel"), abandon: () => did.push("abandon") }),
  } as unknown as FileLocking;
  const call = bench.call("setlk");
  call.error = (errno) => did.push(`error ${errno}`) > 0;
  const ends = setlk({ ...bench.mount, fileLocks }, call, {
    ...request,
    type: "write",
    flock: true,
    wait: true,
    fh,
  } as unknown as SetlkRequest);
  call.onInterrupt?.();
  await ends;
  expect(did).toEqual(["abandon", `error ${E.EINTR}`]);
});

describe("a wait that ends so that another process can begin it again (hazard F45)", () => {
  /** What became of it, when its lock is told so. */
  const waiting = async (
    what: (call: Call, end: (status: string) => void) => void,
  ): Promise<{ errors: number[]; yielded: boolean; cancels: number }> => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    let cancels = 0;
    let end: (status: string) => void = () => undefined;
    const done = new Promise<string>((resolve) => (end = resolve));
    const fileLocks = { lock: () => ({ done, cancel: () => void (cancels += 1) }) } as unknown as FileLocking;
    const mount = { ...bench.mount, fileLocks, askFlush: () => undefined };
    const call = bench.call("setlk");
    const errors: number[] = [];
    call.error = (errno) => errors.push(errno) > 0;
    call.empty = () => errors.push(0) > 0;
    const ends = setlk(mount, call, { ...request, type: "write", flock: false, wait: true, fh } as unknown as SetlkRequest);
    what(call, end);
    await ends;
    return { errors, yielded: call.yielded, cancels };
  };

  it("has no answer, and says so", async () => {
    const ended = await waiting((call, end) => {
      call.onYield?.();
      end("canceled");
    });
    expect(ended).toEqual({ errors: [], yielded: true, cancels: 1 });
  });

  it("is granted, if that was faster", async () => {
    const ended = await waiting((call, end) => {
      call.onYield?.();
      end("granted");
    });
    expect(ended).toEqual({ errors: [0], yielded: false, cancels: 1 });
  });

  it("ends with EINTR, if a signal comes meanwhile", async () => {
    const ended = await waiting((call, end) => {
      call.onYield?.();
      call.onSignal?.();
      end("canceled");
    });
    expect(ended).toEqual({ errors: [E.EINTR], yielded: false, cancels: 2 });
  });
});

it("a question for a lock that has no answer, because its caller is killed or dlmd has died, is EINTR and not 'no lock' (hazard F42)", async () => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const fileLocks = { test: () => new Promise(() => undefined) } as unknown as FileLocking;
  const call = bench.call("getlk");
  const ends = getlk({ ...bench.mount, fileLocks }, call, { ...request, op: "getlk", type: "read", fh } as unknown as GetlkRequest);
  const errors: number[] = [];
  call.error = (errno) => errors.push(errno) > 0;
  call.onInterrupt?.();
  await ends;
  expect(errors).toEqual([E.EINTR]);
});

it("a question for the locks that the open file itself has is EINVAL, as on older kernels, and no damaged request", async () => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const question = { ...request, op: "getlk", type: "unlock", fh } as unknown as GetlkRequest;
  await expect(getlk({ ...bench.mount, fileLocks: {} as FileLocking }, bench.call("getlk"), question)).rejects.toMatchObject({
    errno: E.EINVAL,
  });
});
