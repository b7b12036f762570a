/** What the home of a client keeps while its master is silent, or refuses (dlmd/plock/home.ts). */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { newClient } from "../../../dlmd/clients/client.ts";
import type { PlockMessage, PlockOp, PlockRequestMessage } from "../../../dlmd/wire/peer-plock.ts";
import { PlockHome } from "../../../dlmd/plock/home.ts";
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import type { PlockClientRequest } from "../../../dlmd/wire/local-plock.ts";
import { mostAdded } from "../../../dlmd/plock/owned.ts";

type Plock = Extract<PlockClientRequest, { kind: "plock" }>;

const LIMIT = 10;

interface Lone {
  readonly home: PlockHome;
  readonly ask: (op: PlockOp, change?: Partial<Plock>) => number;
  readonly told: number[];
  readonly sent: PlockMessage[];
  readonly time: { nowMs: number };
}

function lone(): Lone {
  const told: number[] = [];
  const sent: PlockMessage[] = [];
  const time = { nowMs: 0 };
  const port = {
    nodeid: 1,
    nowMs: () => time.nowMs,
    masterOf: () => 2,
    send: (_: number, message: PlockMessage) => void sent.push(message),
    toClient: (_: unknown, event: { readonly kind: string }) => void told.push((event as { errno?: number }).errno as number),
  };
  const home = new PlockHome(port, { fileLocksPerFile: LIMIT, fileLocksPerClient: LIMIT });
  const client = newClient(1);
  client.lockspaces.set(7, { name: "test", resources: new Map(), opens: 1, blocked: false });
  let requestId = 0;
  const names = {
    kind: "plock",
    lockspaceId: 7,
    file: "f",
    ownerKind: "posix",
    owner: 1n,
    begun: false,
    heldMs: null,
    first: false,
    pid: 1,
  } as const;
  const ask = (op: PlockOp, change: Partial<Plock> = {}): number => {
    home.request(client, { ...names, requestId: ++requestId, op, wait: false, type: "write", start: 0n, end: 9n, ...change });
    return (sent.at(-1) as PlockRequestMessage | undefined)?.requestId ?? 0;
  };
  return { home, ask, told, sent, time };
}
const heldOf = (home: PlockHome): number => [...home.held()].reduce((sum, { ranges }) => sum + ranges.size, 0);

it("an unlock that was refused has unlocked nothing", () => {
  const { home, ask, told } = lone();
  home.answer({ requestId: ask("lock"), status: "ok", conflict: null }, false);
  home.answer({ requestId: ask("unlock"), status: "limit", conflict: null }, false);
  expect([heldOf(home), told]).toEqual([1, [0, E.ENOLCK]]);
  home.answer({ requestId: ask("unlock"), status: "ok", conflict: null }, false);
  expect(heldOf(home)).toBe(0);
});

it("tests without an answer count: at the limit one more is refused; an unlock is not", () => {
  const { ask, told } = lone();
  for (let i = 0; i < LIMIT; i++) ask("test");
  expect(told).toEqual([]);
  ask("test");
  expect(told).toEqual([E.ENOLCK]);
  ask("unlock");
  expect(told).toEqual([E.ENOLCK]);
});

it("locks that are held do not keep a client from testing", () => {
  const { home, ask, told } = lone();
  home.answer({ requestId: ask("lock"), status: "ok", conflict: null }, false);
  for (let i = 0; i < LIMIT - 1 - mostAdded; i++) ask("lock");
  ask("test");
  expect(told).toEqual([0]);
});

it("requests that are named in many turns are taken in the order in which they were asked", () => {
  const { home, ask, sent, time } = lone();
  const lock = ask("lock");
  time.nowMs = 5;
  const unlock = ask("unlock");
  const answered: number[] = [];
  const port = {
    nodeid: 2,
    nowMs: () => time.nowMs,
    send: (_: number, message: PlockMessage) => void (message.kind === "plock-answer" && answered.push(message.requestId)),
    blocks: () => false,
    protest: (_: number, message: string) => expect.fail(message),
    blocked: () => {},
  };
  const master = new PlockMaster(port, { fileLocksPerFile: LIMIT, fileLocksPerClient: LIMIT });
  sent.length = 0;
  // Each turn 50 ms after the one before.
  for (const _ of home.rebuild()) time.nowMs += 50;
  for (const message of sent) if (message.kind === "plock-again") master.again(1, message);
  for (const _ of master.settle());
  expect([answered, master.files.size]).toEqual([[lock, unlock], 0]);
});

it("a flock conversion that has lost what it converts says so to the next master, which then takes nothing away again", () => {
  const { home, ask, sent } = lone();
  const flock = { ownerKind: "flock", start: 0n, end: maxOffset } as const;
  home.answer({ requestId: ask("lock", { ...flock, type: "read" }), status: "ok", conflict: null }, false);
  const conversion = ask("lock", { ...flock, wait: true });
  const begun = (): unknown[] => {
    sent.length = 0;
    for (const _ of home.rebuild());
    return sent.flatMap((message) => (message.kind === "plock-again" ? [[message.requestId, message.begun]] : []));
  };
  expect([heldOf(home), begun()]).toEqual([1, [[conversion, false]]]);
  home.answer({ requestId: conversion, status: "removed", conflict: null }, false);
  expect([heldOf(home), begun()]).toEqual([0, [[conversion, true]]]);
});
