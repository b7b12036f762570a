/**
 * What a program that has the cluster's key asks a dlmd in the place of a handshake (driver/handshake.ts), inside TLS: "check your machine". The
 * dlmd runs `coverlay doctor` there, says again and again that it goes on, and then what that program has printed. A dlmd of before refuses the
 * question as one of an unknown kind. What is printed is text from another machine: the asker reads it as such.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { shortened } from "./fence-life.ts";

/** Beside the kinds of a handshake's frames, and of a look's. */
export const CheckKind = { CHECK: 6, CHECKING: 7, CHECKED: 8 } as const;
const checkVersion = 1;
/** Of what the program has printed. */
export const MAX_CHECKED_BYTES: number = 256 * 1024;
const MAX_CHECK_WORDS_BYTES = 512;
/** Of each single check. What is asked for beyond is taken for the nearest. */
export const MIN_CHECK_LIMIT_MS = 100;
export const MAX_CHECK_LIMIT_MS = 30_000;
const headBytes = 2;
/** A kind of answer, and the length of its text. */
const answerBytes: number = 1 + 4;
/** The longest frame that answers the question. */
export const MAX_CHECKED_FRAME_BYTES: number = headBytes + answerBytes + MAX_CHECKED_BYTES;

export type CheckAnswer =
  /** What the program has printed: JSON, if all went well. */
  | { readonly kind: "printed"; readonly text: string }
  /** Why there is nothing. */
  | { readonly kind: "failed"; readonly words: string };

export const checkFailed = (words: string): CheckAnswer => ({ kind: "failed", words });

/** What comes back: it goes on, or it is over. */
export type CheckNews = { readonly kind: "going" } | CheckAnswer;

/** `limitMs`: of each single check. */
export function encodeCheck(limitMs: number): Uint8Array {
  return new ByteWriter().u8(CheckKind.CHECK).u8(checkVersion).u32(limitMs).copy();
}

/** Behind the kind. The limit of a check, within its bounds. Throws WireError. */
export function readCheck(reader: ByteReader): number {
  requireVersion(reader.u8());
  const limitMs = reader.u32();
  reader.end();
  return Math.min(Math.max(limitMs, MIN_CHECK_LIMIT_MS), MAX_CHECK_LIMIT_MS);
}

export function encodeCheckNews(news: CheckNews): Uint8Array {
  const writer = new ByteWriter(256, MAX_CHECKED_FRAME_BYTES);
  if (news.kind === "going") return writer.u8(CheckKind.CHECKING).u8(checkVersion).copy();
  writer.u8(CheckKind.CHECKED).u8(checkVersion);
  const isPrinted = news.kind === "printed";
  const text = isPrinted ? news.text : shortened(news.words, MAX_CHECK_WORDS_BYTES);
  return writer.bool(isPrinted).block(new TextEncoder().encode(text)).copy();
}

/** A whole frame. Throws WireError for anything else. */
export function decodeCheckNews(bytes: Uint8Array): CheckNews {
  const reader = new ByteReader(bytes);
  const kind = reader.u8();
  if (kind !== CheckKind.CHECKING && kind !== CheckKind.CHECKED)
    throw new WireError(`a frame of kind ${kind}, ${CheckKind.CHECKED} expected`);
  requireVersion(reader.u8());
  const news: CheckNews = kind === CheckKind.CHECKING ? { kind: "going" } : readAnswer(reader);
  reader.end();
  return news;
}

function readAnswer(reader: ByteReader): CheckAnswer {
  const isPrinted = reader.bool();
  const text = new TextDecoder().decode(reader.block(isPrinted ? MAX_CHECKED_BYTES : MAX_CHECK_WORDS_BYTES));
  return isPrinted ? { kind: "printed", text } : checkFailed(text);
}

function requireVersion(version: number): void {
  if (version !== checkVersion) throw new WireError(`a check of version ${version}, ${checkVersion} expected`);
}
