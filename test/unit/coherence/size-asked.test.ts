/** Hazard F5: a GETATTR whose caller believes the kernel's size is answered at once only if its reply is taken for certain. */
import { describe, expect, it } from "vitest";
import { type Cover, createCover } from "../../../overlay/coherence/cover.ts";
import { createCoherenceState } from "../../../overlay/coherence/effect.ts";
import {
  askedAt,
  certain,
  mustSettle,
  noteAsker,
  noteLooker,
  noteNoAskers,
  noteNotification,
  noteNotified,
  noteTaken,
  TOLD_THREADS_MAX,
} from "../../../overlay/coherence/size-asked.ts";
import { doubtSize } from "../../../overlay/coherence/size-doubt.ts";

function doubted(): Cover {
  const cover = createCover({ ino: 1, generation: 1 }, "1.1", "file");
  doubtSize(cover);
  return cover;
}

describe("a GETATTR in doubt", () => {
  it("is certain if the queue was found empty between the last notification and it", () => {
    const cover = doubted();
    noteNotification(cover);
    noteNotified(cover, 7);
    expect(certain(cover, askedAt(cover, 7))).toBe(false);
    expect(certain(cover, askedAt(cover, 8))).toBe(true);
  });

  it("is not while a notification is under way, though another one has ended", () => {
    const cover = doubted();
    noteNotification(cover);
    noteNotification(cover);
    noteNotified(cover, 7);
    expect(certain(cover, askedAt(cover, 8))).toBe(false);
    noteNotified(cover, 8);
    expect(certain(cover, askedAt(cover, 9))).toBe(true);
  });

  it("is not if one began, or began and ended, after it had come", () => {
    const cover = doubted();
    const asked = askedAt(cover, 1);
    expect(certain(cover, asked)).toBe(true);
    noteNotification(cover);
    expect(certain(cover, asked)).toBe(false);
    noteNotified(cover, 2);
    expect(certain(cover, asked)).toBe(false);
  });

  it("is not while a LOOKUP reply with the sentinel may still be taken", () => {
    const state = createCoherenceState();
    const cover = doubted();
    noteLooker(state, cover, 5);
    noteLooker(state, cover, 6);
    expect(certain(cover, askedAt(cover, 1))).toBe(false);
    noteTaken(state, 5);
    expect(certain(cover, askedAt(cover, 1))).toBe(false);
    noteTaken(state, 6);
    expect(certain(cover, askedAt(cover, 1))).toBe(true);
    // One whose thread is never heard of again is dropped by the kernel after the next notification.
    noteLooker(state, cover, 7);
    noteNotification(cover);
    noteNotified(cover, 1);
    expect(certain(cover, askedAt(cover, 2))).toBe(true);
  });

  it("needs nothing once the size was seen to be right", () => {
    const cover = doubted();
    noteNotification(cover);
    const asked = askedAt(cover, 9);
    noteNotified(cover, 9);
    cover.sizeDoubt = false;
    expect(certain(cover, asked)).toBe(true);
  });
});

describe("a revoke", () => {
  it("waits for every thread that was told a size it asked for, until its next request", () => {
    const state = createCoherenceState();
    const cover = doubted();
    noteAsker(state, cover, 5);
    noteAsker(state, cover, 6);
    expect(noteTaken(state, 4)).toBe(null);
    expect(noteTaken(state, 5)).toBe(null);
    expect(mustSettle(cover)).toBe(true);
    expect(noteTaken(state, 6)).toBe(cover);
    expect(mustSettle(cover)).toBe(false);
  });

  it("or until the inode's lock was free", () => {
    const cover = doubted();
    noteAsker(createCoherenceState(), cover, 5);
    noteNoAskers(cover);
    expect(mustSettle(cover)).toBe(false);
  });

  it("does not wait for one that was told the sentinel by a LOOKUP", () => {
    const state = createCoherenceState();
    const cover = doubted();
    noteLooker(state, cover, 5);
    expect(mustSettle(cover)).toBe(false);
    expect(noteTaken(state, 5)).toBe(null);
  });

  it("needs the lock's proof for threads that can not be seen, or were forgotten among many", () => {
    const state = createCoherenceState();
    const [hidden, forgotten] = [doubted(), doubted()];
    noteAsker(state, hidden, 0);
    expect(noteTaken(state, 0)).toBe(null);
    noteAsker(state, forgotten, 1);
    const others = doubted();
    for (let tid = 2; tid < 2 + TOLD_THREADS_MAX; tid += 1) noteAsker(state, others, tid);
    expect(noteTaken(state, 1)).toBe(null);
    expect([mustSettle(hidden), mustSettle(forgotten)]).toEqual([true, true]);
  });
});
