/**
 * Hazard H13 must not end a healthy mount: nodes that hold one file open for writing, past the time in which an overlay has to answer a
 * blocking AST. The time is a short one here. COVERLAY_HOLD_OPEN_MS=1800000 gives the real limit, and holds the files open for half an hour.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { processRef } from "../../overlay/lab/processes.ts";
import { BAST_LIMIT_MS } from "../../overlay/serve/answer-limit.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";

const holdOpen = process.env["COVERLAY_HOLD_OPEN_MS"];
const SHORT_LIMIT_MS = 4000;
const LIMIT_MS = holdOpen === undefined ? SHORT_LIMIT_MS : BAST_LIMIT_MS;
const HOLD_MS = holdOpen === undefined ? 2.5 * SHORT_LIMIT_MS : Number(holdOpen);
const ROUND_MS = Math.min(1000, HOLD_MS / 20);

/** Each is a writer of one page-cached and of one direct file. */
const nodeids = [1, 2, 3];

describe("files held open for writing on several nodes", () => {
  let lab: TestLab;
  const programs: Actor[] = [];
  const on = (nodeid: number): Actor => programs[nodeid - 1] as Actor;
  const lives = (nodeid: number): boolean => lab.overlayPid(nodeid) !== null;

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(LIMIT_MS) } });
    programs.push(...nodeids.map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })));
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
  });

  it(
    "past the limit for blocking ASTs: nothing happens, and the writes of all are there",
    async () => {
      // The write token of a file on each node: of one that the node made, and of one that it opened.
      await on(1).run(`for node in (1, 2, 3): put("opened-%d" % node, bytes(64))`);
      for (const nodeid of nodeids) {
        await on(nodeid).run(
          `fds = {"made-%d" % me: os.open("made-%d" % me, os.O_RDWR | os.O_CREAT), "opened-%d" % me: os.open("opened-%d" % me, os.O_RDWR)}
for fd in fds.values(): os.pwrite(fd, bytes(64), 0)
def mappable(fd):
    try: libc.munmap(map_shared(fd, 4096), 4096)
    except OSError as error: return errno.errorcode[error.errno]
    return "ok"`,
          { me: nodeid },
        );
      }
      const names = nodeids.flatMap((nodeid) => [`made-${nodeid}`, `opened-${nodeid}`]);
      for (const nodeid of nodeids) {
        const mapped = await on(nodeid).run<Record<string, string>>(
          `for name in names:
    if name not in fds: fds[name] = os.open(name, os.O_RDWR)
result = {name: mappable(fds[name]) for name in names}`,
          { names },
        );
        // A shared mapping is what the token's holder alone can have: all others were refused it, so each holder was asked for it.
        const own = new Set([`made-${nodeid}`, `opened-${nodeid}`]);
        expect(mapped).toEqual(Object.fromEntries(names.map((name) => [name, own.has(name) ? "ok" : "ENODEV"])));
      }
      const began = performance.now();
      for (let round = 1; performance.now() - began < HOLD_MS; round += 1) {
        for (const nodeid of nodeids) await on(nodeid).run(`for fd in fds.values(): os.pwrite(fd, b"%07d" % round, 8 * me)`, { round });
        const expected = nodeids.map(() => String(round).padStart(7, "0"));
        for (const nodeid of nodeids) {
          const found = await on(nodeid).run<string[][]>(
            `result = [[os.pread(fd, 7, 8 * node).decode() for node in (1, 2, 3)] for fd in fds.values()]`,
          );
          expect(found).toEqual(names.map(() => expected));
        }
        await on(1).run(`time.sleep(pause)`, { pause: ROUND_MS / 1000 });
      }
      expect(performance.now() - began).toBeGreaterThan(LIMIT_MS);
      expect(nodeids.filter(lives)).toEqual(nodeids);
      for (const program of programs)
        expect(await program.run(`result = [code(os.close, fd) for fd in fds.values()]`)).toEqual(names.map(() => "ok"));
      // The tokens are given up after the last close: each node in turn gets a page cache.
      const opened = `fd = os.open("opened-1", os.O_RDWR); result = mappable(fd); os.close(fd)`;
      for (const nodeid of nodeids) await until(`node ${nodeid} may map the file`, async () => (await on(nodeid).run(opened)) === "ok");
    },
    HOLD_MS + 60_000,
  );

  it(
    "an owner that answers nothing for longer than that: nodes that wait for it can give nothing up, and are not ended for it; the owner is",
    async () => {
      const owner = await lab.owner();
      const [waiting, wanting] = nodeids.filter((nodeid) => nodeid !== owner) as [number, number];
      // Nothing of it is written behind (hazard F23).
      await on(waiting).run(`put("slow", ""); slow = os.open("slow", os.O_RDWR | os.O_DSYNC); os.pwrite(slow, b"before", 0)`);
      await on(wanting).run(`slow = os.open("slow", os.O_RDONLY); result = os.fstat(slow).st_size`);
      await on(waiting).run(`os.pwrite(slow, b"before", 0)`);
      const pid = lab.overlayPid(owner) ?? 0;
      process.kill(pid, "SIGSTOP");
      const begun = performance.now();
      // The write runs, with its lock pinned, and the other node wants that lock.
      const written = on(waiting).run(`result = os.pwrite(slow, b"during it", 0)`, {}, 10 * LIMIT_MS + 60_000);
      await untilWaiting(on(waiting));
      const seen = on(wanting).run(`result = os.fstat(slow).st_size`, {}, 10 * LIMIT_MS + 60_000);
      await untilWaiting(on(wanting));
      expect([await written, await seen]).toEqual([9, 9]);
      // The owner is asked some time after they began to wait: their limit was over before its own.
      expect(performance.now() - begun).toBeGreaterThan(LIMIT_MS);
      expect(processRef(pid)).toBeNull();
      expect([waiting, wanting].filter(lives)).toEqual([waiting, wanting]);
      on(owner).signal("SIGKILL");
      await lab.start(owner);
      programs[owner - 1] = startActor({ cwd: lab.node(owner).mount });
    },
    10 * LIMIT_MS + 120_000,
  );

  it(
    "and the limit holds: an overlay that stands still with a lock that is wanted is ended",
    async () => {
      const owner = await lab.owner();
      const stopped = nodeids.find((nodeid) => nodeid !== owner && lives(nodeid)) ?? 0;
      const writer = nodeids.find((nodeid) => nodeid !== owner && nodeid !== stopped) ?? 0;
      await on(stopped).run(`put("wanted", "old"); result = os.stat("wanted").st_size`);
      const pid = lab.overlayPid(stopped) ?? 0;
      process.kill(pid, "SIGSTOP");
      const begun = performance.now();
      const written = on(writer).run(`put("wanted", "new"); result = get("wanted")`, {}, 3 * LIMIT_MS + 60_000);
      expect(await written).toBe("new");
      // Not before: the write had to wait for the lock of the one that stands still.
      expect(performance.now() - begun).toBeGreaterThan(LIMIT_MS);
      await until("the overlay is gone", () => processRef(pid) === null);
    },
    3 * LIMIT_MS + 90_000,
  );
});
