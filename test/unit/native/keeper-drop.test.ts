/**
 * What a program still sees of a mount whose keeper lets go (overlay/HAZARDS.md, F7), or whose lease ends while no process serves: pages that are open and
 * mapped, of a real mount.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { encodeLeasePage } from "../../../dlmd/wire/lease-page.ts";
import { isRoot, native, opened, type Scratch, useScratch } from "./scratch.ts";
import { type Keeper, type KeeperOptions, startKeeper, wakes } from "./keeper-lab.ts";
import { connectionOf, drops, holdReads, makeJournal, NO_NODEID, nodeidsBehind, session, UNSEEN } from "./keeper-mount.ts";
import { abort, FILE_NODEID, serveTinyFuse, type TinyFuse } from "./tiny-fuse.ts";

const STAYS = "echo here >&2; read -r word <&3";
const LAPSED = "the lease of this node ended: what the kernel caches is dropped";
const NOT_DROPPED = "not all that the kernel caches is dropped";
const HOLDS_AGAIN = "the lease of this node holds again";

const [major, minor] = native.kernelVersion();
const hasResend = major > 6 || (major === 6 && minor >= 9);

interface Reader {
  readonly pid: number;
  read(): Promise<string>;
  /** What is in its mapping; or the signal that has ended it. */
  map(): Promise<string>;
  /** Kibibytes of the file that its mapping has. */
  mappedKib(): number;
}

async function startReader(scratch: Scratch, file: string): Promise<Reader> {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, "page-reader.mjs"), file], { stdio: ["pipe", "pipe", "inherit"] });
  scratch.later(() => child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout });
  const next = async (): Promise<string> => {
    const [said] = (await Promise.race([once(lines, "line"), once(child, "exit").then(([, signal]) => [signal])])) as [string];
    return said;
  };
  const ask = (word: string): Promise<string> => {
    child.stdin.write(`${word}\n`);
    return next();
  };
  await next();
  const pid = child.pid ?? 0;
  const mappedKib = (): number => {
    const [, of = ""] = readFileSync(`/proc/${pid}/smaps`, "utf8").split(`${file}\n`);
    return Number(/^Rss:\s+(\d+) kB$/m.exec(of)?.[1]);
  };
  return { pid, read: () => ask("read"), map: () => ask("map"), mappedKib };
}

describe.runIf(isRoot && hasResend)("a mount that ends after a crash", () => {
  const scratch = useScratch();

  interface Lab {
    readonly fuse: TinyFuse;
    readonly keeper: Keeper;
    readonly reader: Reader;
    readonly connection: number;
  }

  /** A reader has a page of "f"; the journal has that inode in the row behind `before`. */
  async function start(
    options: KeeperOptions & { readonly before?: readonly number[]; readonly open?: readonly number[]; readonly unknown?: boolean } = {},
  ): Promise<Lab> {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    const connection = connectionOf(fuse.mountPoint);
    const reader = await startReader(scratch, path.join(fuse.mountPoint, "f"));
    expect([await reader.read(), await reader.map(), reader.mappedKib()]).toEqual(["hello", "hello", 4]);
    const journal = makeJournal(scratch, {
      connection: options.unknown === true ? 0 : connection,
      nodeids: [...(options.before ?? []), FILE_NODEID],
      open: options.open ?? [],
    });
    return { fuse, keeper: await startKeeper(scratch, { resumable: 0, ...options, fuse: fuse.fd, journal }), reader, connection };
  }

  /** Nobody answers from now on. */
  function crash({ fuse, keeper }: Lab): void {
    fuse.leave();
    keeper.line.destroy();
  }

  it("shows pages still when its connection is only ended, and no more when its keeper has let go", async () => {
    const lab = await start();
    abort(lab.fuse.mountPoint);
    expect(await lab.fuse.ended).toBeGreaterThan(0);
    expect([await lab.reader.read(), await lab.reader.map(), lab.reader.mappedKib()]).toEqual(["hello", "hello", 4]);
    lab.keeper.child.kill("SIGSTOP");
    crash(lab);
    lab.keeper.child.kill("SIGCONT");
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[0, null], 0]);
    expect([await lab.reader.read(), await lab.reader.map()]).toEqual(["ENOTCONN", "SIGBUS"]);
  });

  it("shows no page any more when dlmd sees that the keeper is gone", async () => {
    const lab = await start({ before: [0, NO_NODEID, 0] });
    lab.keeper.dlmd.resume();
    crash(lab);
    await once(lab.keeper.dlmd, "end");
    expect(lab.reader.mappedKib()).toBe(0);
    await expect(stat(lab.fuse.mountPoint)).rejects.toMatchObject({ code: "ENOTCONN" });
    expect([await lab.reader.read(), await lab.reader.map()]).toEqual(["ENOTCONN", "SIGBUS"]);
    expect([await lab.keeper.ended, lab.keeper.logged.map(({ level }) => level)]).toEqual([
      [1, null],
      ["warn", "error"],
    ]);
  });

  it.each([
    ["f", "says that no process can go on", { program: "unused" }],
    ["", "was started in vain", { resumable: 1, tries: 1, program: "exit 7" }],
    ["", "has said that it cannot go on", { resumable: 1, program: "printf f >&3; read -r word <&3" }],
    ["", "is late", { resumable: 1, limitMs: 300, program: STAYS }],
  ])("the same where its process (%s) %s", async (said, _what, options) => {
    const lab = await start(options);
    if (said === "") crash(lab);
    else lab.keeper.line.write(said);
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[1, null], 0]);
    expect([await lab.reader.read(), await lab.reader.map()]).toEqual(["ENOTCONN", "SIGBUS"]);
  });

  it("keeps its pages at a farewell and at SIGTERM: what ends in good order has dropped them", async () => {
    const lab = await start();
    lab.keeper.line.write("b");
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[0, null], 4]);
    const other = await startKeeper(scratch, { fuse: lab.fuse.fd });
    other.child.kill("SIGTERM");
    expect([await other.ended, lab.reader.mappedKib(), await lab.reader.read()]).toEqual([[0, null], 4, "hello"]);
  });

  it("drops all at SIGTERM while no process serves: dlmd gives the locks away when it is gone", async () => {
    const lab = await start({ resumable: 1, program: STAYS });
    lab.keeper.line.destroy();
    await lab.keeper.heard("here");
    expect(lab.reader.mappedKib()).toBe(4);
    lab.keeper.child.kill("SIGTERM");
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[0, null], 0]);
  });

  // 300 are more than all children together.
  it.each([1, 20, 300])("drops what is there behind %i inodes that wait for pages", async (count) => {
    const lab = await start({ before: nodeidsBehind(count) });
    const readers = await holdReads(scratch, lab.fuse, count);
    crash(lab);
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[1, null], 0]);
    expect(lab.keeper.logged.map(({ level }) => level)).toEqual(["warn", "error"]);
    expect(drops(lab.keeper.pid)).toBe(0);
    await readers.ended;
  });

  it("ends the connection also where the files for that are mounted nowhere", async () => {
    const hidden = 'umount /sys/fs/fuse/connections; exec "$0" "$@"';
    const lab = await start({ before: nodeidsBehind(3), through: ["unshare", "--mount", "/bin/sh", "-c", hidden] });
    const own = readFileSync(`/proc/${lab.keeper.pid}/mountinfo`, "utf8");
    expect([own.includes("fusectl"), own.includes("tiny")]).toEqual([false, true]);
    const readers = await holdReads(scratch, lab.fuse, 3);
    crash(lab);
    expect([await lab.keeper.ended, lab.reader.mappedKib(), drops(lab.keeper.pid)]).toEqual([[1, null], 0, 0]);
    await readers.ended;
  });

  it("leaves what waits behind where it does not know the connection", async () => {
    const lab = await start({ before: nodeidsBehind(3), unknown: true });
    const readers = await holdReads(scratch, lab.fuse, 3);
    crash(lab);
    expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[1, null], 0]);
    expect(drops(lab.keeper.pid)).toBe(3);
    abort(lab.fuse.mountPoint);
    await readers.ended;
    await expect.poll(() => drops(lab.keeper.pid), UNSEEN).toBe(0);
  });

  it("drops first what is open: more than it has children for waits before the rest", async () => {
    const lab = await start({ before: nodeidsBehind(300), open: [0, FILE_NODEID, 0], unknown: true });
    const readers = await holdReads(scratch, lab.fuse, 300);
    crash(lab);
    expect([await lab.keeper.ended, lab.reader.mappedKib(), drops(lab.keeper.pid)]).toEqual([[1, null], 0, 256]);
    expect(lab.keeper.logged.some(({ msg }) => msg === NOT_DROPPED)).toBe(true);
    abort(lab.fuse.mountPoint);
    await readers.ended;
    await expect.poll(() => drops(lab.keeper.pid), UNSEEN).toBe(0);
  });

  describe("where no child can be made", () => {
    // The first process of a new namespace of process ids has ended: fork(2) gives ENOMEM.
    const childless = ["unshare", "--pid", "/bin/sh", "-c", '/bin/true; exec "$0" "$@"'];

    it("ends the connection, and drops all by itself", async () => {
      const lab = await start({ before: nodeidsBehind(3), through: childless });
      const readers = await holdReads(scratch, lab.fuse, 3);
      crash(lab);
      expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[1, null], 0]);
      expect(lab.keeper.logged.map(({ level }) => level)).toEqual(["warn", "error"]);
      await readers.ended;
    });

    it("so it does at SIGTERM while no process serves", async () => {
      const lab = await start({ resumable: 1, through: childless });
      lab.keeper.line.destroy();
      await lab.keeper.heard("no new process of the mount can be made");
      expect(lab.reader.mappedKib()).toBe(4);
      lab.keeper.child.kill("SIGTERM");
      expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[0, null], 0]);
    });
  });

  describe("with a lease", () => {
    const file = (): string => path.join(scratch.dir, "lease");

    function setLease(leftMs: number): void {
      writeFileSync(file(), encodeLeasePage({ incarnation: "0123456789abcdef", endMs: native.bootTimeMs() + leftMs, marginMs: 1000 }), {
        flag: "r+",
      });
    }

    async function startLeased(options: Parameters<typeof start>[0] = {}): Promise<Lab> {
      writeFileSync(file(), Buffer.alloc(48));
      setLease(600_000);
      const lease = opened(scratch, native.open(file(), 0, 0));
      return start({ resumable: 1, program: STAYS, ...options, lease });
    }

    it("drops all once each time when the lease ends, and leaves the new process alone", async () => {
      const lab = await startLeased();
      lab.keeper.line.destroy();
      await lab.keeper.heard("here");
      expect(lab.reader.mappedKib()).toBe(4);
      setLease(-1);
      await lab.keeper.heard(LAPSED);
      expect(lab.reader.mappedKib()).toBe(0);
      // Here the test still answers.
      expect([await lab.reader.map(), lab.reader.mappedKib()]).toEqual(["hello", 4]);
      setLease(600_000);
      await lab.keeper.heard(HOLDS_AGAIN);
      expect([lab.reader.mappedKib(), lab.keeper.logged.filter(({ msg }) => msg === LAPSED)]).toEqual([4, [expect.anything()]]);
      // It ends by itself.
      setLease(50);
      await expect.poll(() => lab.keeper.logged.filter(({ msg }) => msg === LAPSED), UNSEEN).toHaveLength(2);
      expect([lab.reader.mappedKib(), lab.keeper.logged.at(-1)]).toEqual([0, expect.objectContaining({ level: "warn", inodes: 1 })]);
      expect(session(lab.keeper.pid).map(({ name }) => name)).toEqual(["coverlay-keeper"]);
      expect(lab.keeper.child.exitCode).toBeNull();
      lab.keeper.child.kill("SIGTERM");
      expect(await lab.keeper.ended).toEqual([0, null]);
    });

    it("drops all once each time while a process serves, too: it may stand still, and not do that itself", async () => {
      const lab = await startLeased({ resumable: 0 });
      const beside = `${LAPSED} beside the process that serves`;
      for (const times of [1, 2]) {
        expect([await lab.reader.map(), lab.reader.mappedKib()]).toEqual(["hello", 4]);
        setLease(-1);
        await expect.poll(() => lab.keeper.logged.filter(({ msg }) => msg === beside), UNSEEN).toHaveLength(times);
        expect(lab.reader.mappedKib()).toBe(0);
        // It looks once a second, and drops no more.
        expect(await lab.reader.map()).toBe("hello");
        const before = wakes(lab.keeper.pid);
        await expect.poll(() => wakes(lab.keeper.pid) - before, UNSEEN).toBeGreaterThan(1);
        expect([lab.reader.mappedKib(), lab.keeper.logged]).toEqual([4, Array.from({ length: times }, () => expect.anything())]);
        setLease(600_000);
        const held = wakes(lab.keeper.pid);
        await expect.poll(() => wakes(lab.keeper.pid) - held, UNSEEN).toBeGreaterThan(1);
      }
      lab.keeper.line.write("b");
      expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[0, null], 4]);
    });

    it("drops all at the first look after a crash, though a lapse of an earlier crash was met", async () => {
      const [first, serve, die] = ["first", "serve", "die"].map((name) => path.join(scratch.dir, name)) as [string, string, string];
      const serves = `echo first >&2; until [ -e ${serve} ]; do sleep 0.05; done; printf s >&3; until [ -e ${die} ]; do sleep 0.05; done; exit 9`;
      const lab = await startLeased({ program: `if mkdir ${first}; then ${serves}; fi; echo second >&2; read -r word <&3` });
      lab.keeper.line.destroy();
      await lab.keeper.heard("first");
      setLease(-1);
      await lab.keeper.heard(LAPSED);
      expect(lab.reader.mappedKib()).toBe(0);
      writeFileSync(serve, "");
      await lab.keeper.heard("a new process serves the mount");
      setLease(600_000);
      expect([await lab.reader.map(), lab.reader.mappedKib()]).toEqual(["hello", 4]);
      const before = wakes(lab.keeper.pid);
      await expect.poll(() => wakes(lab.keeper.pid) - before, UNSEEN).toBeGreaterThan(1);
      // It ends with its process, before that could drop anything.
      setLease(-1);
      writeFileSync(die, "");
      await lab.keeper.heard("second");
      await expect.poll(() => lab.reader.mappedKib(), UNSEEN).toBe(0);
      lab.keeper.child.kill("SIGTERM");
      await lab.keeper.ended;
    });

    it("what waits for a page does not keep it from the rest", async () => {
      const lab = await startLeased({ before: nodeidsBehind(5) });
      const readers = await holdReads(scratch, lab.fuse, 5);
      lab.keeper.line.destroy();
      await lab.keeper.heard("here");
      setLease(-1);
      await lab.keeper.heard(LAPSED);
      expect([lab.reader.mappedKib(), drops(lab.keeper.pid)]).toEqual([0, 5]);
      lab.fuse.release();
      await readers.ended;
      // The keeper has taken their statuses.
      await expect.poll(() => session(lab.keeper.pid).map(({ name }) => name), UNSEEN).toEqual(["coverlay-keeper"]);
      lab.keeper.child.kill("SIGTERM");
    });

    it("lets go where more wait than it has children, and drops all then", async () => {
      const lab = await startLeased({ before: nodeidsBehind(300) });
      const readers = await holdReads(scratch, lab.fuse, 300);
      lab.keeper.line.destroy();
      await lab.keeper.heard("here");
      setLease(-1);
      expect([await lab.keeper.ended, lab.reader.mappedKib()]).toEqual([[1, null], 0]);
      expect(lab.keeper.logged.at(-1)?.["msg"]).toBe("what the kernel caches cannot be dropped: the mount ends");
      await readers.ended;
    });
  });
});
