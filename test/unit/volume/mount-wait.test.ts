/** mount -o wait: what passes when other nodes have started is waited for, and said once; anything else is an error at once. */
import { describe, expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import { MOUNT_AGAIN_MS, REPEAT_LOG_MS, REPEAT_TERMINAL_MS, mountWaiting } from "../../../overlay/volume/mount-wait.ts";
import { stillOwned } from "../../../overlay/volume/owner-claim.ts";

const failure = (code: string, message = code, hint = `the hint of ${code}`): OperatingError => new OperatingError(message, { code, hint });

const life = { device: "/dev/sdb1", pid: 7, hostName: "host1" } as Life;

interface Waited {
  readonly told: string[];
  readonly slept: number[];
  readonly result: unknown;
}

/** Mounts that fail with those, one after the other, and then succeed. A try takes no time. */
async function mounts(failures: readonly Error[], limitMs = Number.POSITIVE_INFINITY, repeatMs = 60_000): Promise<Waited> {
  const told: string[] = [];
  const slept: number[] = [];
  const left = [...failures];
  const mount = async (): Promise<string> => {
    const next = left.shift();
    if (next !== undefined) throw next;
    return "mounted";
  };
  let now = 7;
  const sleep = async (ms: number): Promise<void> => {
    slept.push(ms);
    now += ms;
  };
  const port = { tell: (why: string) => void told.push(why), sleep, nowMs: () => now, repeatMs };
  const result = await mountWaiting(mount, port, limitMs).catch((error: unknown) => error);
  return { told, slept, result };
}

describe("mount -o wait", () => {
  it("waits for the lock manager, for the quorum, and for the owner before, and says each once", async () => {
    const quorum = failure("no-quorum", "1 of 3 votes");
    const { told, slept, result } = await mounts([
      failure("dlmd-not-running"),
      failure("dlmd-not-answering"),
      failure("dlmd-silent"),
      quorum,
      quorum,
      failure("still-owned", "node1 has the volume mounted"),
    ]);
    expect(result).toBe("mounted");
    expect(told).toEqual([
      "dlmd-not-running\n  the hint of dlmd-not-running",
      "dlmd-not-answering\n  the hint of dlmd-not-answering",
      "dlmd-silent\n  the hint of dlmd-silent",
      "1 of 3 votes\n  the hint of no-quorum",
      "node1 has the volume mounted\n  the hint of still-owned",
    ]);
    expect(slept).toEqual(Array.from({ length: 6 }, () => MOUNT_AGAIN_MS));
  });

  it.each(["dlmd-lost", "disconnected", "lease-lapsed", "owner-changed", "mounter-silent", "group-ended"])(
    "%s passes when nodes are back: it is waited for",
    async (code) => {
      expect(await mounts([failure(code)])).toMatchObject({ result: "mounted", slept: [MOUNT_AGAIN_MS] });
    },
  );

  it("a reason whose times run is said once, and again for another node", async () => {
    const why = (node: string, s: number): string => `nothing proves that ${node} has ended: it is tried again in ${s} s`;
    const of = (node: string, s: number): Error => stillOwned(life, 0, node, why(node, s));
    const { told, result } = await mounts([of("node1", 55.2), of("node1", 54.2), of("node2", 53.2), of("node2", 52.2), of("node1", 51.2)]);
    expect(result).toBe("mounted");
    expect(told.map((words) => /node\d has ended: it is tried again in [\d.]+ s/.exec(words)?.[0])).toEqual([
      "node1 has ended: it is tried again in 55.2 s",
      "node2 has ended: it is tried again in 53.2 s",
      "node1 has ended: it is tried again in 51.2 s",
    ]);
  });

  it.each(["wrong-cluster", "no-bit", "device-busy", "already-mounted", "bad-mount-point", "device-missing", "dlmd-refused"])(
    "%s does not pass by itself: it is an error at once",
    async (code) => {
      const error = failure(code);
      expect(await mounts([failure("no-quorum"), error])).toMatchObject({ result: error, slept: [MOUNT_AGAIN_MS] });
    },
  );

  const quorum = failure("no-quorum", "1 of 3 votes");
  const twenty = Array.from({ length: 20 }, () => quorum);

  it("a reason that lasts is said again, with the time", async () => {
    const { told } = await mounts(twenty, Number.POSITIVE_INFINITY, REPEAT_TERMINAL_MS);
    expect(told).toEqual([
      "1 of 3 votes\n  the hint of no-quorum",
      "1 of 3 votes (for 5 s)",
      "1 of 3 votes (for 10 s)",
      "1 of 3 votes (for 15 s)",
    ]);
    const hour = Array.from({ length: 121 }, () => quorum);
    expect((await mounts(hour, 600_000, REPEAT_LOG_MS)).told.slice(1)).toEqual([
      "1 of 3 votes (for 60 s of 600 s)",
      "1 of 3 votes (for 120 s of 600 s)",
    ]);
  });

  it("out of time it says for what it waited, after a last try at the very end", async () => {
    const { slept, result } = await mounts(twenty, 2500);
    expect(slept).toEqual([1000, 1000, 500]);
    expect(result).toMatchObject({ code: "mount-timeout", exitStatus: 32, hint: "the hint of no-quorum" });
    expect((result as Error).message).toBe("not mounted within 2.5 s: 1 of 3 votes");
    expect(await mounts([quorum, quorum, quorum], 2500)).toMatchObject({ result: "mounted" });
    expect(await mounts(twenty, 0)).toMatchObject({ slept: [], result: { code: "mount-timeout" } });
  });

  it("an error that nobody foresaw is passed on", async () => {
    const error = new Error("a bug");
    expect(await mounts([error])).toMatchObject({ result: error, told: [] });
  });
});
