/** The shell around corosync's libraries, with libraries of the test: no corosync is needed. */
import { describe, expect, it, vi } from "vitest";
import { connectCorosync, type CorosyncConnection, type CorosyncOptions } from "../../../dlmd/driver/corosync/connection.ts";
import type { CorosyncLibraries, NativeFunction } from "../../../dlmd/driver/corosync/libraries.ts";
import type { CorosyncEvent } from "../../../dlmd/engine/corosync/corosync-api.ts";

const CS_OK = 1;
const CS_ERR_LIBRARY = 2;
const CS_ERR_TRY_AGAIN = 6;
const CS_ERR_EXIST = 14;
const cpgFd = 40;

function native(call: (...args: never[]) => number): NativeFunction {
  const plain = (...args: unknown[]): number => call(...(args as never[]));
  return Object.assign(plain, {
    async: (...args: unknown[]) => {
      const done = args.pop() as (error: Error | null, result: number) => void;
      setImmediate(() => done(null, plain(...args)));
    },
  });
}

type Callback = (...args: unknown[]) => void;

class FakeCorosync {
  localNodeid = 1;
  votes = { node_votes: 1, highest_expected: 3, flags: 2 };
  quorumType = 1;
  joins: number[] = [];
  readonly callbacks = new Map<string, Callback>();
  /** What each dispatch of CPG does; then "try again". */
  pending: (() => number)[] = [];
  /** How cpg_mcast_joined answers. */
  takes: () => number = () => CS_OK;
  readonly taken: number[] = [];
  finalized = 0;
  /** Times that libcfg was asked to tell of a shutdown. */
  tracked = 0;
  /** Its questions: 0 is a request, anything else is no question. */
  shutdowns: number[] = [];
  readonly replies: number[] = [];
  waits = 0;
  readonly waitsMs: number[] = [];
  #wake: (() => void) | null = null;

  /** As the kernel does when the descriptor is readable. */
  readable(): void {
    this.#wake?.();
  }

  get libraries(): CorosyncLibraries {
    const ok = native(() => CS_OK);
    const wait = Object.assign(() => 0, {
      async: (...args: unknown[]) => {
        this.waitsMs.push(args[3] as number);
        const done = args.at(-1) as (error: Error | null, result: number) => void;
        this.#wake = () => {
          this.#wake = null;
          setImmediate(() => done(null, 1));
        };
      },
    });
    return {
      koffi: {
        register: (callback: Callback, type: string) => {
          this.callbacks.set(type, callback);
          return callback;
        },
        unregister: () => {},
        decode: (pointer: unknown) => pointer,
        view: (pointer: unknown) => (pointer as Uint8Array).buffer,
      } as unknown as CorosyncLibraries["koffi"],
      cpg: {
        initialize: ok,
        fdGet: native((_: never, fd: number[]) => {
          fd[0] = cpgFd;
          return CS_OK;
        }),
        localGet: native((_: never, nodeid: number[]) => {
          nodeid[0] = this.localNodeid;
          return CS_OK;
        }),
        join: native(() => this.joins.shift() ?? CS_OK),
        multicast: native((_: never, __: never, parts: { base: Uint8Array }[]) => {
          const result = this.takes();
          if (result === CS_OK) this.taken.push(parts[0]?.base[0] ?? -1);
          return result;
        }),
        dispatch: native(() => this.pending.shift()?.() ?? CS_ERR_TRY_AGAIN),
        finalize: native(() => {
          this.finalized++;
          return CS_OK;
        }),
      },
      quorum: {
        initialize: native((_: never, __: never, ___: never, type: number[]) => {
          type[0] = this.quorumType;
          return CS_OK;
        }),
        fdGet: native((_: never, fd: number[]) => {
          fd[0] = cpgFd + 1;
          return CS_OK;
        }),
        track: ok,
        dispatch: native(() => CS_ERR_TRY_AGAIN),
        finalize: ok,
      },
      votequorum: {
        initialize: ok,
        getInfo: native((_: never, __: never, info: object[]) => {
          info[0] = this.votes;
          return CS_OK;
        }),
        finalize: ok,
      },
      cfg: {
        initialize: ok,
        fdGet: native((_: never, fd: number[]) => {
          fd[0] = cpgFd + 2;
          return CS_OK;
        }),
        track: native(() => {
          this.tracked++;
          return CS_OK;
        }),
        dispatch: native(() => {
          const how = this.shutdowns.shift();
          if (how === undefined) return CS_ERR_TRY_AGAIN;
          this.callbacks.get("cfg_shutdown *")?.(0n, how);
          return CS_OK;
        }),
        replyToShutdown: native((_: never, reply: number) => {
          this.replies.push(reply);
          return CS_OK;
        }),
        finalize: ok,
      },
      epoll: {
        create: native(() => 50),
        control: native(() => 0),
        wait,
        eventfd: native(() => 51),
        write: native(() => {
          this.#wake?.();
          return 8;
        }),
        close: native(() => 0),
      },
    };
  }
}

const nodes = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));

async function connected(
  corosync: FakeCorosync,
  more: Partial<CorosyncOptions> = {},
): Promise<{ connection: CorosyncConnection; events: CorosyncEvent[]; turns: number[] }> {
  const events: CorosyncEvent[] = [];
  const turns: number[] = [];
  const options = {
    group: "g",
    nodeid: 1,
    nodes,
    event: (event: CorosyncEvent) => void events.push(event),
    dispatched: () => void turns.push(events.length),
  };
  return { connection: await connectCorosync({ ...options, ...more }, corosync.libraries), events, turns };
}
const refusal = (corosync: FakeCorosync): Promise<string> =>
  connected(corosync).then(
    () => "",
    (error: Error) => error.message,
  );

describe("the connection to corosync", () => {
  it.each<[string, (corosync: FakeCorosync) => void, string]>([
    ["another nodeid", (c) => void (c.localNodeid = 7), "this node is 1 in cluster.yaml and 7 in corosync.conf"],
    ["no quorum provider", (c) => void (c.quorumType = 0), "no quorum provider"],
    ["other votes", (c) => void (c.votes = { ...c.votes, highest_expected: 5 }), "gives this node 1 of 3 votes, and corosync.conf 1 of 5"],
    ["two_node", (c) => void (c.votes = { ...c.votes, flags: 1 }), "corosync.conf has two_node"],
    ["last_man_standing", (c) => void (c.votes = { ...c.votes, flags: 8 }), "corosync.conf has last_man_standing"],
  ])("refuses %s, with words", async (_, set, words) => {
    const corosync = new FakeCorosync();
    set(corosync);
    expect(await refusal(corosync)).toContain(words);
    expect(corosync.finalized).toBe(1);
  });

  it("joins again while the connection before is still in the group", async () => {
    const corosync = new FakeCorosync();
    corosync.joins = [CS_ERR_EXIST, CS_ERR_TRY_AGAIN];
    const { connection } = await connected(corosync);
    expect(corosync.joins).toEqual([]);
    connection.close();
  });

  it("gives it up after 5 s of that", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout"] });
    try {
      const corosync = new FakeCorosync();
      corosync.joins = Array.from({ length: 1000 }, () => CS_ERR_EXIST);
      const refused = connected(corosync, { blocking: true }).catch((error: Error) => error.message);
      await vi.advanceTimersByTimeAsync(6000);
      expect(await refused).toContain("cpg_join(3) of corosync failed: CS_ERR_EXIST");
      expect(corosync.joins.length).toBe(1000 - 251);
    } finally {
      vi.useRealTimers();
    }
  });

  it("notes callbacks, and tells them after the library has returned, in order", async () => {
    const corosync = new FakeCorosync();
    const { connection, events } = await connected(corosync);
    const seen: number[] = [];
    corosync.pending = [
      () => {
        corosync.callbacks.get("cpg_confchg *")?.(0, null, [{ nodeid: 1, pid: 9, reason: 1 }], 1);
        seen.push(events.length);
        return CS_OK;
      },
      () => {
        corosync.callbacks.get("cpg_totem_confchg *")?.(0, { nodeid: 1, seq: 12n });
        return CS_OK;
      },
      () => {
        corosync.callbacks.get("cpg_deliver *")?.(0, null, 2, 8, new Uint8Array([7]), 1);
        return CS_OK;
      },
    ];
    corosync.readable();
    await vi.waitFor(() => expect(events).toHaveLength(3));
    expect([seen, events]).toEqual([
      [0],
      [
        { kind: "seats", seats: [{ nodeid: 1, pid: 9 }] },
        { kind: "ring", ring: { nodeid: 1, seq: 12 } },
        { kind: "message", from: { nodeid: 2, pid: 8 }, data: new Uint8Array([7]) },
      ],
    ]);
    connection.close();
  });

  it("dispatches 256 callbacks at once; the rest when others had their turn", async () => {
    const corosync = new FakeCorosync();
    const { connection, events, turns } = await connected(corosync);
    corosync.pending = Array.from({ length: 300 }, () => () => {
      corosync.callbacks.get("cpg_totem_confchg *")?.(0, { nodeid: 1, seq: 12 });
      return CS_OK;
    });
    corosync.readable();
    await vi.waitFor(() => expect(events.length).toBe(300));
    expect(turns.slice(0, 2)).toEqual([256, 300]);
    connection.close();
  });

  it("keeps the order while corosync says try again, and tries after 2 ms", async () => {
    const corosync = new FakeCorosync();
    const { connection } = await connected(corosync);
    let refusals = 2;
    corosync.takes = () => (refusals-- > 0 ? CS_ERR_TRY_AGAIN : CS_OK);
    for (const byte of [1, 2, 3]) connection.send(new Uint8Array([byte]));
    expect(corosync.taken).toEqual([]);
    await vi.waitFor(() => expect(corosync.taken).toEqual([1, 2, 3]));
    connection.close();
  });

  it("a corosync that takes nothing of 1024 messages counts as lost", async () => {
    const corosync = new FakeCorosync();
    const { connection, events } = await connected(corosync);
    corosync.takes = () => CS_ERR_TRY_AGAIN;
    for (let n = 0; n < 1024; n++) connection.send(new Uint8Array([1]));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(events).toEqual([]);
    connection.send(new Uint8Array([1]));
    await vi.waitFor(() => expect(events).toEqual([{ kind: "lost", reason: "corosync has not taken 1025 messages" }]));
    expect(corosync.finalized).toBe(1);
  });

  it("says what was dispatched, then that corosync has ended; nothing after it", async () => {
    const corosync = new FakeCorosync();
    const { connection, events } = await connected(corosync);
    corosync.pending = [
      () => {
        corosync.callbacks.get("cpg_totem_confchg *")?.(0, { nodeid: 1, seq: 12 });
        return CS_OK;
      },
      () => CS_ERR_LIBRARY,
    ];
    corosync.readable();
    await vi.waitFor(() => expect(events).toHaveLength(2));
    expect(events[1]).toEqual({
      kind: "lost",
      reason: "cpg_dispatch(3) of corosync failed: CS_ERR_LIBRARY: it is not running, or has ended",
    });
    connection.send(new Uint8Array([1]));
    expect(corosync.taken).toEqual([]);
  });

  it.each<[string, string | null, number]>([
    ["no", "a program (process 7)", 0],
    ["yes", null, 1],
  ])("answers a request to end corosync: %s", async (_, why, reply) => {
    const corosync = new FakeCorosync();
    const { connection } = await connected(corosync, { shutdown: () => why });
    expect(corosync.tracked).toBe(1);
    corosync.shutdowns = [0];
    corosync.readable();
    await vi.waitFor(() => expect(corosync.replies).toEqual([reply]));
    // --force: it ends whatever is said, and waits for the answer.
    corosync.shutdowns = [1];
    corosync.readable();
    await vi.waitFor(() => expect(corosync.replies).toEqual([reply, 1]));
    connection.close();
  });

  it("waits for half a second at most, so that the process can exit", async () => {
    const corosync = new FakeCorosync();
    const { connection } = await connected(corosync);
    expect(corosync.waitsMs).toEqual([500]);
    connection.close();
  });
});
