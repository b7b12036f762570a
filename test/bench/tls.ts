/**
 * What TLS costs between two overlays, beside plain TCP: the same questions and answers on the loopback device, this process and another
 * one (tls-peer.ts), with the connections that overlays make.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { connect, type OnReadOpts, type Socket } from "node:net";
import { createKeyring } from "../../dlmd/tls/keyring.ts";
import { secureInitiator } from "../../dlmd/tls/secure-connection.ts";
import { median } from "./stats.ts";

export const QUESTION_BYTES = 64;
/** Asked for by a question whose first byte is not zero. */
export const LARGE_ANSWER_BYTES: number = 2 ** 20;
export const BENCH_KEYRING: ReturnType<typeof createKeyring> = createKeyring([new Uint8Array(32).fill(1)]);
const HOST = "127.0.0.1";
const RECEIVE_BYTES = 256 * 1024;
const WARM_UP_TRIPS = 3000;
const TRIPS = 10_000;
const WARM_UP_MIB = 32;
const MIB = 256;

export interface TlsCost {
  readonly kind: "TCP" | "TLS";
  readonly roundTripUs: number;
  /** Processor time of both ends. */
  readonly roundTripCpuUs: number;
  readonly mibPerSecond: number;
  readonly mibCpuUs: number;
}

type Ask = (large: boolean) => Promise<void>;

function connected(kind: TlsCost["kind"], port: number, onread: OnReadOpts): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (kind === "TCP") {
      const socket = connect({ host: HOST, port, noDelay: true, onread });
      socket.once("error", reject).once("connect", () => resolve(socket));
    } else {
      const failed = (reason: string): void => reject(new Error(reason));
      secureInitiator({ host: HOST, port, onread }, BENCH_KEYRING, {
        secured: ({ socket }) => resolve(socket.setNoDelay(true)),
        failed,
      });
    }
  });
}

async function cpuUsOf(peer: ChildProcess): Promise<number> {
  peer.send("cpu");
  const [theirs] = (await once(peer, "message")) as [NodeJS.CpuUsage];
  const mine = process.cpuUsage();
  return mine.user + mine.system + theirs.user + theirs.system;
}

/** [milliseconds, microseconds of processor time of both] */
async function timed(peer: ChildProcess, work: () => Promise<void>): Promise<[number, number]> {
  const cpuUs = await cpuUsOf(peer);
  const start = performance.now();
  await work();
  const tookMs = performance.now() - start;
  return [tookMs, (await cpuUsOf(peer)) - cpuUs];
}

async function measure(kind: TlsCost["kind"], peer: ChildProcess, port: number): Promise<TlsCost> {
  let missing = 0;
  let answered: () => void = () => undefined;
  const callback = (bytes: number): boolean => {
    missing -= bytes;
    if (missing === 0) answered();
    return true;
  };
  const socket = await connected(kind, port, { buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES), callback });
  const questions = [Buffer.alloc(QUESTION_BYTES, 0), Buffer.alloc(QUESTION_BYTES, 1)] as const;
  const ask: Ask = (large) =>
    new Promise((resolve) => {
      answered = resolve;
      missing = large ? LARGE_ANSWER_BYTES : QUESTION_BYTES;
      socket.write(questions[large ? 1 : 0]);
    });
  const times = async (count: number, large: boolean, each: (us: number) => void): Promise<void> => {
    for (let at = 0; at < count; at++) {
      const start = performance.now();
      await ask(large);
      each((performance.now() - start) * 1000);
    }
  };
  try {
    await times(WARM_UP_TRIPS, false, () => undefined);
    await times(WARM_UP_MIB, true, () => undefined);
    const trips: number[] = [];
    const [, tripsCpuUs] = await timed(peer, () => times(TRIPS, false, (us) => trips.push(us)));
    const [largeMs, largeCpuUs] = await timed(peer, () => times(MIB, true, () => undefined));
    return {
      kind,
      roundTripUs: median(trips),
      roundTripCpuUs: tripsCpuUs / TRIPS,
      mibPerSecond: (MIB / largeMs) * 1000,
      mibCpuUs: largeCpuUs / MIB,
    };
  } finally {
    socket.destroy();
  }
}

/** `program`: the compiled tls-peer. */
export async function measureTls(program: string): Promise<TlsCost[]> {
  const peer = fork(program, [], { execArgv: [], stdio: ["ignore", "ignore", "inherit", "ipc"] });
  try {
    const [ports] = (await once(peer, "message")) as [Record<TlsCost["kind"], number>];
    return [await measure("TCP", peer, ports.TCP), await measure("TLS", peer, ports.TLS)];
  } finally {
    peer.kill("SIGKILL");
  }
}
