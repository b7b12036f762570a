/**
 * Looks at another node's ports from here: connects by TCP, asks its dlmd what it sees (dlmd/wire/look.ts), and sends empty datagrams where no
 * dlmd has the port. Nothing at the other node changes, and no view hears of it. What comes from there is not trusted: it is decoded, in TLS.
 */
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { ByteReader } from "../../dlmd/base/bytes.ts";
import { WireError } from "../../dlmd/base/error.ts";
import { type SecureConnection, secureInitiator } from "../../dlmd/tls/secure-connection.ts";
import type { Keyring } from "../../dlmd/tls/keyring.ts";
import { createFrameReader, frameHeadBytes } from "../../dlmd/wire/frame.ts";
import { LookKind, decodeSeen, encodeLook } from "../../dlmd/wire/look.ts";
import { CheckKind, MAX_CHECKED_FRAME_BYTES, decodeCheckNews, encodeCheck } from "../../dlmd/wire/self-check.ts";
import { readForeignReport } from "./foreign-report.ts";
import type { LookFact, TcpFact, UdpFact } from "./judge-nodes.ts";
import type { CheckFact } from "./judge-others.ts";

/** What a dlmd says to a program that only looks is short. */
const MAX_LOOK_FRAME_BYTES: number = 64 * 1024;
/** After a connection that was closed without a word: a dlmd gives a handshake two seconds, and a slow machine may need more for the first one. */
const AGAIN_MS = 250;
/** A dlmd that checks its machine says so each second. */
export const SILENCE_LEAST_MS = 3000;
/** Of a node's checks: its dlmd ends them before (dlmd/driver/check-process.ts). */
export const CHECK_LIMIT_MS = 75_000;
/** Datagrams may be lost, and the kernel tells of a closed port not more often than it likes. */
const PROBES = 4;

export interface PeerTarget {
  readonly address: string;
  readonly port: number;
  /** Connections come from there, as those of dlmd do; null: from where the kernel likes. */
  readonly localAddress: string | null;
}

export interface PeerLook {
  readonly tcp: TcpFact;
  readonly look: LookFact;
}

const unreachable = (code: string | undefined): TcpFact & UdpFact =>
  code === "ECONNREFUSED" ? { kind: "refused" } : { kind: "unreachable", words: code ?? "an unknown error" };

type Unanswered = Exclude<LookFact, { readonly kind: "seen" }>;

/** What is asked, and how an answer is told. */
interface Conversation<T> {
  readonly end: (answer: T | Unanswered) => void;
  /** It is at work: the time of an answer begins anew. */
  readonly heard: () => void;
}

interface Question<T> {
  /** Until it is connected. */
  readonly limitMs: number;
  /** Until it answers, or is heard. */
  readonly answerMs: number;
  readonly ask: (connection: SecureConnection, conversation: Conversation<T>) => void;
}

interface Answered<T> {
  readonly tcp: TcpFact;
  readonly answer: T | Unanswered;
  readonly isLate: boolean;
}

/**
 * Resolves within `limitMs`, or `answerMs` after it is connected. `keyring` null: there is no key to ask with. A connection that is closed without a word
 * is made again, as long as there is time.
 */
export async function lookAtPeer(
  target: PeerTarget,
  keyring: Keyring | null,
  limitMs: number,
  answerMs: number = limitMs,
): Promise<PeerLook> {
  const { tcp, answer: look } = await askPeer<LookFact>(target, keyring, { limitMs, answerMs, ask: askLook });
  return { tcp, look };
}

async function askPeer<T>(target: PeerTarget, keyring: Keyring | null, question: Question<T>): Promise<Answered<T>> {
  const untilMs = performance.now() + question.answerMs;
  let closed: Answered<T> | null = null;
  for (;;) {
    const leftMs = untilMs - performance.now();
    if (closed !== null && leftMs <= 0) return closed;
    const found: Answered<T> = await askOnce(target, keyring, question, leftMs);
    // The time of the last one ended: what is known is what was said before.
    if (closed !== null && found.isLate) return closed;
    if (found.answer !== CLOSED || performance.now() + AGAIN_MS >= untilMs) return found;
    closed = found;
    await sleep(AGAIN_MS);
  }
}

const CLOSED: Unanswered = { kind: "other", words: "it closed the connection" };

/**
 * Calls `late` after that time, unless it is called off. It is not late while this process was busy: what has come meanwhile is read first, or a slow machine
 * would take its own slowness for a firewall.
 */
function whenLate(limitMs: number, late: () => void): () => void {
  let afterReading: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    afterReading = setImmediate(late);
  }, limitMs);
  return () => {
    clearTimeout(timer);
    clearImmediate(afterReading);
  };
}

/** `leftMs`: for the connection, and for the first that is heard. */
function askOnce<T>(target: PeerTarget, keyring: Keyring | null, question: Question<T>, leftMs: number): Promise<Answered<T>> {
  const { limitMs, answerMs, ask } = question;
  return new Promise((resolve) => {
    const { address: host, port, localAddress } = target;
    let tcp: TcpFact = { kind: "silent" };
    let isOver = false;
    const socket = connect({ host, port, ...(localAddress === null ? {} : { localAddress }) });
    const end = (answer: T | Unanswered, isLate = false): void => {
      isOver = true;
      callOff();
      resolve({ tcp, answer, isLate });
      socket.destroy();
    };
    let callOff = whenLate(Math.min(limitMs, leftMs), () => end({ kind: "none" }, true));
    const allow = (silenceMs: number): void => {
      // One read may have words behind the answer.
      if (isOver) return;
      callOff();
      callOff = whenLate(silenceMs, () => end({ kind: "other", words: `no answer within ${Math.round(silenceMs)} ms` }, true));
    };
    // After it has connected, TLS tells what goes wrong.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (tcp.kind === "answers") return;
      tcp = error.code === "ETIMEDOUT" ? { kind: "silent" } : unreachable(error.code);
      end({ kind: "none" });
    });
    socket.once("connect", () => {
      tcp = { kind: "answers" };
      if (keyring === null) return end({ kind: "none" });
      allow(leftMs);
      secureInitiator(socket, keyring, {
        secured: (connection) => ask(connection, { end, heard: () => allow(answerMs) }),
        failed: (reason, noCommonKey) => end(noCommonKey ? { kind: "wrong-key", words: reason } : { kind: "other", words: reason }),
      });
    });
  });
}

/** Sends one frame, and hands on each that comes. What cannot be read ends it, and a refusal, whose words `refused` explains. */
function converse<T>(
  { socket }: SecureConnection,
  question: Uint8Array,
  maxBytes: number,
  receive: (body: Uint8Array) => void,
  end: (answer: T | Unanswered) => void,
  refused: (reason: string) => T | Unanswered,
): void {
  const head = Buffer.alloc(frameHeadBytes(false));
  head.writeUInt32LE(question.byteLength);
  const frames = createFrameReader({ maxBytes, crc32: null });
  const onFrame = (body: Uint8Array): void => {
    if (body[0] === REFUSED) end(refused(new ByteReader(body, 1).string(MAX_LOOK_FRAME_BYTES)));
    else receive(body);
  };
  socket.on("data", (chunk: Buffer) => {
    try {
      frames.push(chunk, onFrame);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      end({ kind: "other", words: `its answer cannot be read: ${error.message}` });
    }
  });
  socket.write(Buffer.concat([head, question]));
}

function askLook(connection: SecureConnection, { end }: Conversation<LookFact>): void {
  const askedMs = performance.now();
  const askedWallMs = Date.now();
  const receive = (body: Uint8Array): void => {
    // Its HELLO comes first, as to every peer.
    if (body[0] !== LookKind.SEEN) return;
    const doubtMs = (performance.now() - askedMs) / 2;
    const seen = decodeSeen(body);
    end({ kind: "seen", seen, offsetMs: seen.wallMs - (askedWallMs + doubtMs), doubtMs });
  };
  connection.socket.on("close", () => end(CLOSED));
  converse(connection, encodeLook(), MAX_LOOK_FRAME_BYTES, receive, end, (reason) => ({ kind: "other", words: refusalOf(reason) }));
}

/**
 * Asks a dlmd to check its machine, with `limitMs` for each check; `node` is its name. Resolves `limitMs` after nothing was heard of it any more, but
 * SILENCE_LEAST_MS at least, and in the end after CHECK_LIMIT_MS, or `wholeMs`.
 */
export async function askPeerToCheck(
  target: PeerTarget & { readonly node: string },
  keyring: Keyring | null,
  limitMs: number,
  wholeMs: number = CHECK_LIMIT_MS,
): Promise<CheckFact> {
  const answerMs = Math.max(limitMs, SILENCE_LEAST_MS);
  const ask = (connection: SecureConnection, { end, heard }: Conversation<CheckFact>): void => {
    let isAtWork = false;
    const whole = setTimeout(() => end({ kind: "other", words: `no end of its checks within ${wholeMs / 1000} s` }), wholeMs);
    const receive = (body: Uint8Array): void => {
      if (body[0] !== CheckKind.CHECKING && body[0] !== CheckKind.CHECKED) return;
      const news = decodeCheckNews(body);
      if (news.kind === "going") {
        isAtWork = true;
        heard();
      } else if (news.kind === "failed") {
        end({ kind: "other", words: news.words });
      } else {
        const report = readForeignReport(news.text, target.node);
        end(typeof report === "string" ? { kind: "other", words: report } : { kind: "checked", findings: report });
      }
    };
    connection.socket.on("close", () => {
      clearTimeout(whole);
      end(isAtWork ? { kind: "other", words: "it closed the connection before its checks had ended" } : CLOSED);
    });
    converse(connection, encodeCheck(Math.round(limitMs)), MAX_CHECKED_FRAME_BYTES, receive, end, checkRefusal);
  };
  const { tcp, answer } = await askPeer<CheckFact>(target, keyring, { limitMs, answerMs, ask });
  // It was there before.
  return answer.kind === "none" && tcp.kind !== "answers" ? { kind: "other", words: `it answers no more: ${wordsOf(tcp)}` } : answer;
}

/** A REFUSE of the handshake (dlmd/driver/handshake.ts). */
const REFUSED = 3;

const wordsOf = (tcp: TcpFact): string => (tcp.kind === "unreachable" ? tcp.words : tcp.kind);

function checkRefusal(reason: string): CheckFact {
  const isEarlier = reason.includes(`frame of kind ${CheckKind.CHECK}`) || reason.includes("a check of version");
  return isEarlier ? { kind: "earlier", words: reason } : { kind: "other", words: `its dlmd refuses to answer: ${reason}` };
}

/** A dlmd from before the look says that it does not know this kind of frame. */
function refusalOf(reason: string): string {
  const isEarlier = reason.includes(`frame of kind ${LookKind.LOOK}`);
  return isEarlier
    ? `its dlmd does not know this question, and is of an earlier version: ${reason}`
    : `its dlmd refuses to answer: ${reason}`;
}

/** Resolves within `limitMs`. Only for a port that no dlmd has: an empty datagram would be one more line in its log. */
export function probeUdp({ address, port, localAddress }: PeerTarget, limitMs: number): Promise<UdpFact> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    let callOff = (): void => undefined;
    const end = (fact: UdpFact): void => {
      callOff();
      resolve(fact);
      if (isOpen) socket.close();
      isOpen = false;
    };
    let isOpen = true;
    socket.on("error", (error: NodeJS.ErrnoException) => end(unreachable(error.code)));
    const probe = (left: number): void => {
      if (!isOpen) return;
      if (left === 0) return end({ kind: "silent" });
      socket.send(new Uint8Array(), (error) => (error === null ? undefined : end(unreachable((error as NodeJS.ErrnoException).code))));
      callOff = whenLate(limitMs / PROBES, () => probe(left - 1));
    };
    const begin = (): void => {
      // With a callback the socket tells an error of connect(2) to nobody else.
      socket.connect(port, address, (error?: NodeJS.ErrnoException) =>
        error === undefined ? probe(PROBES) : end(unreachable(error.code)),
      );
    };
    if (localAddress === null) begin();
    else socket.bind(0, localAddress, begin);
  });
}
