/** How a life of a node gets its connection to corosync, and what it does where there is none. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { connectCorosync } from "../../../dlmd/driver/corosync/connection.ts";
import { CorosyncLink } from "../../../dlmd/driver/corosync/link.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

const error = (code: string): OperatingError => new OperatingError(`error ${code}`, { code, hint: "do something" });

function setUp(
  outcomes: (OperatingError | null)[],
  programs: readonly string[] = [],
): {
  link: CorosyncLink;
  tried: { group: string }[];
  warned: unknown[];
  fatal: Error[];
  sent: number[];
  closed: () => number;
  shutdown: () => string | null | undefined;
} {
  const tried: Parameters<typeof connectCorosync>[0][] = [];
  const warned: unknown[] = [];
  const fatal: Error[] = [];
  const sent: number[] = [];
  let closed = 0;
  const connect: typeof connectCorosync = async (options) => {
    tried.push(options);
    const outcome = outcomes.shift() ?? null;
    if (outcome !== null) throw outcome;
    return { send: (data) => void sent.push(data[0] ?? -1), close: () => void closed++ };
  };
  const warn = (_: unknown, message: string): void => void warned.push(message);
  const log = { warn, info: warn } as never;
  const link = new CorosyncLink({
    cluster: "c",
    nodeid: 1,
    nodes: [],
    event: () => {},
    programs: () => programs,
    log,
    fatal: (reason) => void fatal.push(reason),
    connect,
  });
  return { link, tried, warned, fatal, sent, closed: () => closed, shutdown: () => tried[0]?.shutdown?.() };
}

it("joins the group of its cluster, and sends over that connection", async () => {
  const { link, tried, sent, closed } = setUp([]);
  await link.open();
  link.send(new Uint8Array([7]));
  await link.close();
  expect([tried.map(({ group }) => group), sent, closed()]).toEqual([["coverlay:c"], [7], 1]);
});

it("tries every half second where corosync does not run, says so once in 10 s, and sends nothing meanwhile", async () => {
  const { link, tried, warned, sent } = setUp(Array.from({ length: 30 }, () => error("corosync-failed")));
  await link.open();
  link.send(new Uint8Array([7]));
  await vi.advanceTimersByTimeAsync(499);
  expect([tried.length, warned]).toEqual([1, ["waiting for corosync"]]);
  await vi.advanceTimersByTimeAsync(1);
  expect(tried.length).toBe(2);
  await vi.advanceTimersByTimeAsync(9000);
  expect([tried.length, warned.length]).toEqual([20, 1]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(warned.length).toBe(2);
  await vi.advanceTimersByTimeAsync(10_000);
  expect([tried.length, sent]).toEqual([31, []]);
  link.send(new Uint8Array([8]));
  expect(sent).toEqual([8]);
  await link.close();
});

it("what does not fit cluster.yaml is an error of the start; later, it ends dlmd", async () => {
  await expect(setUp([error("bad-corosync")]).link.open()).rejects.toThrow("error bad-corosync");
  const later = setUp([error("corosync-failed"), error("bad-corosync")]);
  await later.link.open();
  await vi.advanceTimersByTimeAsync(500);
  expect(later.fatal.map(({ message }) => message)).toEqual(["error bad-corosync"]);
});

it("tries no more after it was closed", async () => {
  const { link, tried } = setUp([error("corosync-failed")]);
  await link.open();
  await link.close();
  await vi.advanceTimersByTimeAsync(5000);
  expect(tried.length).toBe(1);
});

it("corosync may end on this node while nothing is open here, and says so", async () => {
  const { link, warned, shutdown } = setUp([]);
  await link.open();
  expect([shutdown(), warned]).toEqual([null, ["corosync is asked to end on this node: nothing is open here, so it may"]]);
});

it("corosync may not end on this node while programs have lockspaces open here, and these are named", async () => {
  const { link, warned, shutdown } = setUp([], ["node (process 7)", "postgres (process 9)"]);
  await link.open();
  const words = "corosync is asked to end on this node: refused, lockspaces are open here";
  expect([shutdown(), warned]).toEqual(["node (process 7), postgres (process 9)", [words]]);
});
