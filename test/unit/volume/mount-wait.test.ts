/** mount -o wait: what passes when other nodes have started is waited for, and said once; anything else is an error at once. */
import { describe, expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import { MOUNT_AGAIN_MS, mountWaiting } from "../../../overlay/volume/mount-wait.ts";
import { stillOwned } from "../../../overlay/volume/owner-claim.ts";

const failure = (code: string, message = code, hint = `the hint of ${code}`): OperatingError => new OperatingError(message, { code, hint });

const life = { device: "/dev/sdb1", pid: 7, hostName: "host1" } as Life;

/** Mounts that fail with those, one after the other, and then succeed. */
async function mounts(failures: readonly Error[]): Promise<{ told: string[]; slept: number[]; result: unknown }> {
  const told: string[] = [];
  const slept: number[] = [];
  const left = [...failures];
  const mount = async (): Promise<string> => {
    const next = left.shift();
    if (next !== undefined) throw next;
    return "mounted";
  };
  const port = { tell: (why: string) => void told.push(why), sleep: async (ms: number) => void slept.push(ms) };
  const result = await mountWaiting(mount, port).catch((error: unknown) => error);
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

  it("an error that nobody foresaw is passed on", async () => {
    const error = new Error("a bug");
    expect(await mounts([error])).toMatchObject({ result: error, told: [] });
  });
});
