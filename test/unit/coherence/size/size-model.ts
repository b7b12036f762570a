/**
 * A model of one file on one node, to run the rules of size/doubt.ts against under a seed: the kernel's size and attr_version with what raises
 * and sets them, one page, the truncation that a reply with another size ends with, readers with and without a GETATTR before,
 * programs that stat, appenders, and the server's turns. Everything that may happen next is a step; the seed picks which.
 * Source: fs/fuse/inode.c (fuse_change_attributes_i, fuse_reverse_inval_inode), fs/fuse/file.c (fuse_read_update_size,
 * fuse_write_update_attr, fuse_direct_write_iter), mm/filemap.c (filemap_read), mm/truncate.c (truncate_pagecache).
 *
 * Left out, because nothing can be done about it: a reader that is stopped between finding its page and looking at the size.
 */
import { Cover, sizeOf } from "../../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../../overlay/coherence/effect.ts";
import {
  doubtSize,
  judgeSize,
  judgeTold,
  mustWait,
  noteKernelLock,
  noteLateReply,
  noteThread,
  noteTold,
  sizeKnown,
} from "../../../../overlay/coherence/size/doubt.ts";
import { seeded } from "../seeded.ts";

const SENTINEL = 1_000_000;

export interface SizeModelOptions {
  readonly seed: number;
  readonly steps: number;
  readonly readers: number;
  readonly appenders: number;
  /** Looks before READs are answered; without, what must be found. */
  readonly verify: boolean;
  /** Late replies are waited for. */
  readonly waitLate: boolean;
  /** No reply tells a size that the kernel does not have. */
  readonly tellKnown: boolean;
  /** Changes and revokes wait until our own truncations are over (size/gate.ts). */
  readonly keepOut: boolean;
  /** The kernel learns of a true end that is behind the believed one (pages/append-end.ts). */
  readonly raise: boolean;
}

interface Truncation {
  readonly at: number;
  /** What is behind in the page is zeros; then the page goes. */
  zeroed: boolean;
}

interface Reader {
  readonly tid: number;
  readonly stats: boolean;
  readonly reads: boolean;
  at: "idle" | "getattr asked" | "getattr answered" | "truncating" | "reading" | "read asked";
  version: number;
  told: number;
  truncation: Truncation | null;
}

interface Appender {
  readonly tid: number;
  at: "idle" | "asked" | "begun" | "written" | "answered";
  offset: number;
  bytes: number;
  end: number;
  misplaced: boolean;
}

export class SizeModel {
  zeros: string[] = [];
  reads = 0;
  repairs = 0;
  readonly #options: SizeModelOptions;
  readonly #random: () => number;
  // The kernel.
  #size = 0;
  #version = 0;
  #versions = 0;
  #page: { end: number; uptodate: boolean } | null = null;
  #inodeLock: "free" | Appender | "own" = "free";
  // The file, and the lock on it.
  #end = 0;
  /** Of the writes that have returned; what is read must go that far. */
  #completed = 0;
  #held = true;
  // The server.
  readonly #state = new CoherenceState();
  readonly #cover = new Cover({ ino: 1, generation: 1 }, "file");
  #read: { readonly version: number; look: { end: number; seen: number; mark: number } | null } | null = null;
  #refresh: { at: "asked" | "answered" | "truncating"; version: number; told: number; truncation: Truncation | null } | null = null;
  /** A GETATTR that is being answered with care: nothing changes the size meanwhile. */
  #teller: { readonly reader: Reader; look: { size: number; seen: number; mark: number } | null } | null = null;
  #ownLock: "none" | "wanted" | "asked" | "answered" = "none";
  readonly #readers: Reader[] = [];
  readonly #appenders: Appender[] = [];

  constructor(options: SizeModelOptions) {
    this.#options = options;
    this.#random = seeded(options.seed);
    for (let at = 0; at < options.readers; at += 1) {
      // By turns one that asks and reads, one that only asks, one that only reads.
      const reader = { tid: 100 + at, stats: at % 3 !== 2, reads: at % 3 !== 1 };
      this.#readers.push({ ...reader, at: "idle", version: 0, told: 0, truncation: null });
    }
    for (let at = 0; at < options.appenders; at += 1) {
      this.#appenders.push({ tid: 200 + at, at: "idle", offset: 0, bytes: 0, end: 0, misplaced: false });
    }
  }

  /** What a step of the kernel does to fi->attr_version. */
  #bump(): void {
    this.#versions += 1;
    this.#version = this.#versions;
  }

  /** Gives the truncation that is still to be done. */
  #install(size: number, version: number): Truncation | null {
    if (this.#version > version) return null;
    this.#bump();
    const old = this.#size;
    this.#size = size;
    return old === size ? null : { at: size, zeroed: false };
  }

  /** A step of it, once the page is not locked; true: that was the last. */
  #truncate(truncation: Truncation): boolean {
    if (!truncation.zeroed) {
      truncation.zeroed = true;
      if (this.#page !== null) this.#page.end = Math.min(this.#page.end, truncation.at);
      return false;
    }
    this.#page = null;
    return true;
  }

  get #pageFree(): boolean {
    return this.#page === null || this.#page.uptodate;
  }

  get #changing(): boolean {
    return this.#appenders.some(({ at }) => at === "begun" || at === "written");
  }

  #possible(): (() => void)[] {
    const steps: (() => void)[] = [];
    for (const reader of this.#readers) this.#addReader(steps, reader);
    for (const appender of this.#appenders) this.#addAppender(steps, appender);
    this.#addServer(steps);
    this.#addOwn(steps);
    return steps;
  }

  #addReader(steps: (() => void)[], reader: Reader): void {
    if (reader.at === "idle") {
      steps.push(() => {
        reader.at = reader.stats ? "getattr asked" : "reading";
        reader.version = this.#versions;
      });
    } else if (reader.at === "getattr asked" && this.#held && this.#teller === null) {
      steps.push(() => this.#serveGetattr(reader));
    } else if (reader.at === "getattr answered") {
      steps.push(() => {
        reader.truncation = this.#install(reader.told, reader.version);
        reader.at = reader.truncation === null ? "reading" : "truncating";
      });
    } else if (reader.at === "truncating" && this.#pageFree) {
      steps.push(() => {
        if (reader.truncation === null || this.#truncate(reader.truncation)) reader.at = "reading";
      });
    } else if (reader.at === "reading") {
      steps.push(() => (reader.reads ? this.#lookUp(reader) : (reader.at = "idle")));
    } else if (reader.at === "read asked" && this.#read === null) {
      // Whoever waits for the page looks it up again.
      steps.push(() => (reader.at = "reading"));
    }
  }

  #serveGetattr(reader: Reader): void {
    noteThread(this.#state, reader.tid);
    if (!this.#options.tellKnown || (sizeKnown(this.#cover) && !this.#changing)) this.#answerGetattr(reader);
    else if (!this.#changing) this.#teller = { reader, look: null };
  }

  #answerGetattr(reader: Reader): void {
    reader.told = this.#end;
    noteTold(this.#cover, reader.told);
    reader.at = "getattr answered";
  }

  #serveTeller(): void {
    const { reader, look } = this.#teller ?? {};
    if (this.#teller === null || reader === undefined) return;
    if (look === null || look === undefined) {
      this.#teller.look = { size: this.#end, seen: this.#size, mark: sizeOf(this.#cover).mark };
      return;
    }
    this.#teller = null;
    if (judgeTold(this.#cover, look.size, look.seen, look.mark)) this.#answerGetattr(reader);
    else if (mustWait(this.#cover, look.size)) this.#wantOwnLock();
    else if (sizeOf(this.#cover).doubt) this.#startRefresh();
  }

  #startRefresh(): void {
    if (this.#refresh !== null) return;
    this.repairs += 1;
    this.#refresh = { at: "asked", version: this.#versions, told: 0, truncation: null };
  }

  #wantOwnLock(): void {
    if (this.#ownLock === "none") this.#ownLock = "wanted";
  }

  #lookUp(reader: Reader): void {
    if (this.#page === null) {
      this.#page = { end: 0, uptodate: false };
      this.#read = { version: this.#versions, look: null };
      reader.at = "read asked";
    } else if (!this.#page.uptodate) {
      reader.at = "read asked";
    } else {
      this.reads += 1;
      if (this.#size < this.#completed) this.zeros.push(`size ${this.#size} after writes up to ${this.#completed}`);
      if (this.#size > this.#page.end) this.zeros.push(`size ${this.#size}, data up to ${this.#page.end}, file up to ${this.#end}`);
      reader.at = "idle";
    }
  }

  #addAppender(steps: (() => void)[], appender: Appender): void {
    if (appender.at === "idle" && this.#inodeLock === "free") {
      steps.push(() => {
        this.#inodeLock = appender;
        appender.offset = this.#size;
        appender.bytes = 1 + Math.floor(this.#random() * 5);
        appender.at = "asked";
        noteThread(this.#state, appender.tid);
        noteKernelLock(this.#cover);
      });
    } else if (appender.at === "asked" && this.#held && this.#teller === null) {
      if (this.#options.keepOut && this.#refresh !== null) return;
      steps.push(() => {
        if (this.#options.keepOut && sizeOf(this.#cover).doubt) this.#makeKnown();
        else appender.at = "begun";
      });
    } else if (appender.at === "begun") {
      steps.push(() => {
        appender.misplaced = appender.offset !== this.#end;
        this.#end += appender.bytes;
        appender.end = this.#end;
        appender.at = "written";
      });
    } else if (appender.at === "written" && this.#pageFree) {
      // The pages are dropped, and it is answered with no READ in between (pages/append-end.ts).
      steps.push(() => {
        this.#page = null;
        this.#bump();
        if (this.#options.raise && appender.offset + appender.bytes < this.#end) this.#size = Math.max(this.#size, this.#end);
        const effect = appender.misplaced ? "misplaced" : "raises";
        noteLateReply(this.#state, this.#cover, appender.tid, effect, appender.offset + appender.bytes);
        appender.at = "answered";
      });
    } else if (appender.at === "answered") {
      steps.push(() => {
        this.#bump();
        this.#size = Math.max(this.#size, appender.offset + appender.bytes);
        // What was cut off elsewhere since is not to be seen.
        this.#completed = Math.max(this.#completed, Math.min(appender.end, this.#end));
        this.#inodeLock = "free";
        appender.at = "idle";
      });
    }
  }

  /** Before a change that drops pages (size/check.ts, begin). */
  #makeKnown(): void {
    const mark = sizeOf(this.#cover).mark;
    if (judgeTold(this.#cover, this.#end, this.#size, mark) && !sizeOf(this.#cover).doubt) return;
    this.#startRefresh();
  }

  #addServer(steps: (() => void)[]): void {
    if (this.#read !== null && this.#held) steps.push(() => this.#serveRead());
    if (this.#teller !== null) steps.push(() => this.#serveTeller());
    const settled = this.#refresh === null || !this.#options.keepOut;
    // INVAL_INODE waits for the page of a READ; and none is answered before the sentinel is stored.
    if (this.#held && this.#read === null && this.#teller === null && !this.#changing && settled) steps.push(() => this.#revoke());
    if (!this.#held) {
      steps.push(() => {
        this.#end = this.#random() < 0.7 ? this.#end + 3 : Math.floor(this.#end / 2);
        this.#completed = this.#end;
      });
      steps.push(() => (this.#held = true));
    }
  }

  #revoke(): void {
    this.#page = null;
    this.#bump();
    this.#bump();
    this.#size = Math.max(this.#size, SENTINEL);
    this.#bump();
    doubtSize(this.#cover);
    this.#held = false;
  }

  #serveRead(): void {
    const read = this.#read;
    if (read === null) return;
    if (read.look === null) {
      if (!this.#options.verify) this.#answerRead(read.version, this.#end);
      else if (this.#options.waitLate && mustWait(this.#cover, this.#end)) {
        this.#wantOwnLock();
      } else {
        read.look = { end: this.#end, seen: this.#size, mark: sizeOf(this.#cover).mark };
      }
      return;
    }
    const { end, seen, mark } = read.look;
    read.look = null;
    if (!this.#options.waitLate) noteKernelLock(this.#cover);
    if (judgeSize(this.#cover, end, true, seen, mark)) this.#answerRead(read.version, end);
    else if (seen > end) this.#startRefresh();
  }

  /** A readahead: the kernel takes the reply within our write(2). */
  #answerRead(version: number, end: number): void {
    if (version >= this.#version && end < this.#size) {
      this.#bump();
      this.#size = end;
    }
    this.#page = { end, uptodate: true };
    this.#read = null;
  }

  #addOwn(steps: (() => void)[]): void {
    const refresh = this.#refresh;
    if (refresh?.at === "asked" && !(this.#options.keepOut && this.#changing)) {
      steps.push(() => {
        if (!this.#held) {
          this.#refresh = null;
          return;
        }
        refresh.told = this.#end;
        noteTold(this.#cover, refresh.told);
        refresh.at = "answered";
      });
    } else if (refresh?.at === "answered") {
      steps.push(() => {
        refresh.truncation = this.#install(refresh.told, refresh.version);
        if (refresh.truncation === null) this.#refresh = null;
        else refresh.at = "truncating";
      });
    } else if (refresh?.at === "truncating" && this.#pageFree) {
      steps.push(() => {
        if (refresh.truncation === null || this.#truncate(refresh.truncation)) this.#refresh = null;
      });
    }
    if (this.#ownLock === "wanted" && this.#inodeLock === "free") {
      steps.push(() => {
        this.#inodeLock = "own";
        this.#ownLock = "asked";
      });
    } else if (this.#ownLock === "asked") {
      steps.push(() => {
        noteKernelLock(this.#cover);
        this.#ownLock = "none";
        this.#inodeLock = "free";
      });
    }
  }

  run(): this {
    for (let step = 0; step < this.#options.steps && this.zeros.length === 0; step += 1) {
      const possible = this.#possible();
      possible[Math.floor(this.#random() * possible.length)]?.();
    }
    return this;
  }
}
