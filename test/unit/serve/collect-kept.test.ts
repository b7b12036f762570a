/** What is asked of an owner for a mount that has ended (hazard F35), over a real connection: which owner is the one, and what it is left with. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import {
  type DlmClient,
  type DlmClientHandlers,
  type Lock,
  LockFlag,
  type LockHandlers,
  type Lockspace,
  type LockStatus,
} from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { encodeOwnerRecord } from "../../../overlay/volume/owner-record.ts";
import type { connectDlm } from "../../../dlmd/client/client.ts";
import type { OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import { createLowerServer, type LowerServer } from "../../../overlay/lower/server/server.ts";
import { OTHER_OWNER } from "../../../overlay/restart/take.ts";
import { askOwnerToCollect } from "../../../overlay/serve/collect-kept.ts";
import { listenOn, ownedLower, TEST_CALLER, testServerOptions } from "../../compliance/lower-fixture.ts";
import { remoteLab } from "../lower/remote-lab.ts";

/** Who asks for the owner's record gets that. */
function recordIn({
  status,
  lvb,
  lvbValid,
}: {
  readonly status: LockStatus;
  readonly lvb: Uint8Array | null;
  readonly lvbValid: boolean;
}): Lockspace {
  const createLock = (resource: string, { ast }: LockHandlers): Lock => {
    expect(resource).toBe("owner");
    const lock = {
      lvb,
      lvbValid,
      error: null,
      request: (mode: Mode, flags: number) => {
        expect([mode, flags]).toEqual([Mode.CR, LockFlag.VALBLK | LockFlag.NOQUEUE]);
        ast(lock as unknown as Lock, status);
      },
      unlock: () => undefined,
    };
    return lock as unknown as Lock;
  };
  return { createLock } as unknown as Lockspace;
}

const lab = remoteLab();
const NO_END = new AbortController().signal;

describe("asking an owner to give up what it keeps", () => {
  const EPOCH = 1;
  const seen: string[] = [];
  const collected: string[] = [];
  /** Of the owner's election, and how its lock is answered. */
  const record = { status: "granted" as LockStatus, lvb: null as Uint8Array | null, lvbValid: true };
  let clients = 10;
  let owner: OwnerAddress;
  let server: LowerServer;
  let end: () => Promise<void>;

  beforeEach(async () => {
    seen.length = 0;
    collected.length = 0;
    Object.assign(record, { status: "granted", lvb: null, lvbValid: true });
    const lower = await ownedLower(lab.place.rootFd);
    const collect = (ticket: string): boolean => collected.push(ticket) > 0 && ticket === "t1";
    server = createLowerServer({
      ...testServerOptions(lower, EPOCH),
      custody: { deposit: () => Promise.resolve({ refused: "" }), collect },
    });
    owner = await listenOn(server);
    end = async () => {
      await server.close();
      await lower.shutdown();
    };
  });
  afterEach(() => end());

  /** A dlmd of which the owner's node is a member, and what is done with it. */
  const connectTo =
    (lifeOfOwner = owner.incarnation, began: (handlers: DlmClientHandlers) => void = () => undefined): typeof connectDlm =>
    (_, handlers) => {
      const { clusterName, keyring, nodeid, incarnation } = TEST_CALLER;
      began(handlers);
      clients += 1;
      const clientId = clients;
      const client: Pick<DlmClient, "view" | "lockspace" | "close"> & { readonly info: object } = {
        info: { clusterName, nodeid, incarnation, clientId, overlayKeys: keyring().all },
        view: {
          viewId: "1.1.i1",
          quorate: true,
          running: true,
          quorumReason: "",
          members: [owner.nodeid, nodeid],
          incarnations: [lifeOfOwner, incarnation],
        },
        lockspace: (name) => {
          seen.push(`${name}, ${server.sessions.length} session`);
          return Promise.resolve(recordIn(record));
        },
        close: () => Promise.resolve(void seen.push("closed")),
      };
      return Promise.resolve(client as DlmClient);
    };
  interface Ask {
    readonly ticket?: string;
    readonly epoch?: number;
    /** In place of the owner. */
    readonly after?: number;
    readonly connect?: typeof connectDlm;
    readonly signal?: AbortSignal;
    readonly log?: Log;
  }
  /** The answer, or what went wrong. */
  const ask = ({
    ticket = "t1",
    epoch = EPOCH,
    after,
    connect = connectTo(),
    signal = NO_END,
    log = silentLog,
  }: Ask): Promise<boolean | string> => {
    const kept = { owner: after === undefined ? { ...owner, epoch } : { after }, volumeUuid: TEST_CALLER.volumeUuid, ticket };
    return askOwnerToCollect("/nowhere", kept, log, signal, connect).catch((error: unknown) =>
      error instanceof OperatingError ? error.code : String(error),
    );
  };

  it("has a lockspace, so that the owner hears of its end, but only when the owner has its connection", async () => {
    expect(await ask({})).toBe(true);
    expect([collected, seen]).toEqual([["t1"], [`vol-${TEST_CALLER.volumeUuid}, 1 session`, "closed"]]);
    expect(await ask({ ticket: "t2" })).toBe(false);
  });

  it("finds the owner that keeps it by its record, if it was left to whoever is the next one (hazard F44)", async () => {
    const { host: address, ...life } = owner;
    const process = { bootId: "b", machineId: "m", hostName: "h", pid: 1, startTime: 1, device: "/dev/x" };
    const ready = { state: "ready" as const, address, ...life, epoch: EPOCH, heir: 0, process, claimEpoch: EPOCH };
    record.lvb = encodeOwnerRecord(ready);
    expect(await ask({ after: EPOCH - 1 })).toBe(true);
    expect(collected).toEqual(["t1"]);
    expect(await ask({ after: EPOCH })).toBe("no-owner");
    record.lvb = encodeOwnerRecord({ ...ready, state: "mounting" });
    expect(await ask({ after: EPOCH - 1 })).toBe("no-owner");
    Object.assign(record, { lvb: encodeOwnerRecord(ready), lvbValid: false });
    expect(await ask({ after: EPOCH - 1 })).toBe("no-owner");
    Object.assign(record, { lvbValid: true, status: "again" });
    expect(await ask({ after: EPOCH - 1 })).toBe("no-owner");
    expect(collected).toEqual(["t1"]);
  });

  it("asks no other owner than the one that keeps it", async () => {
    expect(await ask({ connect: connectTo("another life") })).toBe(OTHER_OWNER);
    const ending = new AbortController();
    const warnings: string[] = [];
    const log: Log = {
      ...silentLog,
      warn: (fields) => {
        warnings.push(String(fields["reason"]));
        ending.abort(new Error("late"));
      },
    };
    expect(await ask({ epoch: EPOCH + 1, signal: ending.signal, log })).toBe("Error: late");
    expect(warnings).toEqual([expect.stringContaining("another owner answers")]);
    expect([collected, seen]).toEqual([[], ["closed", "closed"]]);
  });

  it("leaves when dlmd is gone, and when it is too late", async () => {
    await server.close();
    let leave: (reason: Error, told: boolean) => void = () => undefined;
    const cut = ask({ connect: connectTo(owner.incarnation, ({ disconnected }) => (leave = disconnected)) });
    leave(new Error("dlmd is restarted"), true);
    expect(await cut).toBe("Error: dlmd is restarted");
    const ending = new AbortController();
    const late = ask({ signal: ending.signal });
    ending.abort(new Error("late"));
    expect(await late).toBe("Error: late");
    expect([collected, seen]).toEqual([[], ["closed", "closed"]]);
  });
});
