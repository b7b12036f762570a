/**
 * The four knobs of a mount, files of one line each in a directory of its volume: `block`, `mounted`, `jid`, `recover`. The mount writes them, whole
 * or not at all. An operator may write 1 or 0 to `block` (overlay/mount-group/README.md says whose write wins).
 *
 * The directory is made anew by each mount, and reached by a descriptor: an earlier mount of the volume that has not ended (umount -l) neither reads
 * nor writes what belongs to the later one.
 */
import {
  closeSync,
  constants,
  type FSWatcher,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import type { Log } from "../../dlmd/base/log.ts";

/** A shell truncates first and writes then: an order is read when the file has been left alone for so long. */
export const KNOB_SETTLE_MS = 50;

export interface KnobValues {
  readonly block: boolean;
  readonly mounted: boolean;
  /** null: none yet. */
  readonly jid: number | null;
  /** The jid that is being put in order, "all" of them, or none. */
  readonly recover: number | "all" | null;
}
type Knob = keyof KnobValues;

const KNOBS = ["block", "mounted", "jid", "recover"] as const;

const REMOVE_RETRIES = 3;

/** What stands in the file for nothing, as in the lock modules of GFS. */
const NONE = "-1";

export function knobsDirectory(runDir: string, volume: string): string {
  return path.join(runDir, `volume-${encodeURIComponent(volume)}`);
}

function textOf(values: KnobValues, knob: Knob): string {
  const value = values[knob];
  if (typeof value === "boolean") return value ? "1" : "0";
  return value === null ? NONE : String(value);
}

interface BlockFile {
  readonly stamp: string;
  readonly text: string;
}

export interface KnobsOptions {
  readonly dir: string;
  readonly log: Log;
  /** An operator wrote 1 (true) or 0 to `block`. */
  readonly blockOrdered: (blocked: boolean) => void;
  /** A later mount of the volume has its knobs there now: no operator is heard any more, and what one ordered holds no longer. */
  readonly lost: () => void;
}

export class Knobs {
  readonly #options: KnobsOptions;
  readonly #shown: Map<Knob, string> = new Map();
  #watcher: FSWatcher | null = null;
  #timer: NodeJS.Timeout | null = null;
  /** `block` as this mount knows it: which file, when it was changed, and its text. */
  #own: BlockFile = { stamp: "", text: "" };
  /** The directory: while it is open its inode number is no other one's. -1: before `start`, and at the end. */
  #fd = -1;
  #hasEnded = false;

  constructor(options: KnobsOptions) {
    this.#options = options;
  }

  /** An operator is heard from now on. What an earlier mount left there is replaced. */
  start(values: KnobValues): void {
    const { dir, log } = this.#options;
    // With retries: an earlier mount may write to it meanwhile.
    rmSync(dir, { recursive: true, force: true, maxRetries: REMOVE_RETRIES });
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    this.#fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
    this.show(values);
    const soon = (): void => {
      if (this.#timer !== null) clearTimeout(this.#timer);
      this.#timer = this.#hasEnded ? null : setTimeout(() => this.#look(true), KNOB_SETTLE_MS);
    };
    // The directory: a file that is replaced again and again is lost by who watches the file (chokidar 5, seen).
    this.#watcher = watch(this.#path(), { persistent: false }, (_, name) => {
      if (name === "block") soon();
    });
    this.#watcher.on("error", (error) =>
      log.error({ dir, error: error.message }, "the knob block is not watched: writes to it do nothing"),
    );
    // What was written before the watch was on.
    soon();
  }

  /** Files that say something else now are replaced. */
  show(values: KnobValues): void {
    if (this.#hasEnded || this.#isLost()) return;
    for (const knob of KNOBS) {
      const text = textOf(values, knob);
      if (this.#shown.get(knob) === text) continue;
      this.#shown.set(knob, text);
      this.#write(knob);
    }
  }

  end(): void {
    if (this.#hasEnded) return;
    if (this.#isThere()) rmSync(this.#options.dir, { recursive: true, force: true });
    this.#close();
  }

  #close(): void {
    this.#hasEnded = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#watcher?.close();
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** In this mount's own directory, whatever has its name now. */
  #path(name = ""): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  /** What has the directory's name is this mount's. */
  #isThere(): boolean {
    if (this.#fd < 0) return false;
    const own = fstatSync(this.#fd, { bigint: true });
    const found = statSync(this.#options.dir, { bigint: true, throwIfNoEntry: false });
    return found?.ino === own.ino && found.dev === own.dev;
  }

  #isLost(): boolean {
    if (this.#isThere()) return false;
    this.#close();
    const { dir, log, lost } = this.#options;
    log.warn({ dir }, "the knobs are those of a later mount, or were taken away: this mount hears no operator any more");
    lost();
    return true;
  }

  #write(knob: Knob): void {
    // An order that is there and was not read yet is not written over.
    if (knob === "block") this.#look(false);
    // That look may have found that the directory is lost.
    if (this.#hasEnded) return;
    const file = this.#path(knob);
    const text = this.#shown.get(knob) ?? NONE;
    try {
      writeFileSync(`${file}.new`, `${text}\n`, { mode: 0o600 });
      renameSync(`${file}.new`, file);
      // This stamp may be that of an operator's write already, so the text counts too.
      if (knob === "block") this.#own = { stamp: this.#stamp(), text };
    } catch (error) {
      // Nothing depends on them: what they show is in the status too.
      this.#options.log.error({ dir: this.#options.dir, knob, error: String(error) }, "a knob could not be written");
    }
  }

  /** Of the last write to `block`. Two writes of one tick of the kernel's clock have one stamp before Linux 6.13. */
  #stamp(): string {
    const found = statSync(this.#path("block"), { bigint: true, throwIfNoEntry: false });
    return found === undefined ? "" : `${found.ino} ${found.mtimeNs} ${found.ctimeNs}`;
  }

  /** `isSettled`: else what is no order may become one. */
  #look(isSettled: boolean): void {
    if (this.#hasEnded || this.#isLost()) return;
    const stamp = this.#stamp();
    const text = this.#read();
    if (stamp === this.#own.stamp && text === this.#own.text) return;
    const isOrder = text === "0" || text === "1";
    if (!isOrder && !isSettled) return;
    this.#own = { stamp, text };
    if (isOrder) this.#options.blockOrdered(text === "1");
    else
      this.#options.log.error(
        { expected: "0 or 1", found: text.slice(0, 40) },
        "what was written to the knob block is no order: it is set back",
      );
    // The file is this mount's again, and says what holds.
    this.#write("block");
  }

  #read(): string {
    try {
      return readFileSync(this.#path("block"), "latin1").trim();
    } catch {
      // It was taken away meanwhile: no order.
      return "";
    }
  }
}
