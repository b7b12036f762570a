/** A program of a caller, for the simulation of callers and owners (remote-model.test.ts): what it is told is compared with a model of its own files. */
import fs from "node:fs";
import { E, Errno } from "../../../dlmd/base/errno.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import type { Random } from "../../seeded-random.ts";
import { caller, name, RDWR } from "./remote-lab.ts";
import type { Muster, World } from "./remote-world.ts";

const O_EXCL = 0o200;
const NAMES = ["a", "b", "c", "d"];

type Sure = "no" | "must" | "may";

interface ModelFile {
  readonly id: FileId;
  content: Buffer;
  mode: number;
  /** What it is, is to be looked up: a change had no known end. */
  unsure: boolean;
  /** Changed and not synced. */
  dirty: Sure;
  behind: Promise<void>[];
  readonly names: Set<string>;
}

interface ModelHandle {
  readonly handle: LowerHandle;
  readonly file: ModelFile;
  /** Something was lost of which it has not heard. */
  lost: Sure;
}

const says = ({ handle, file, lost }: ModelHandle): string => `${handle}/${file.id.ino}${file.unsure ? "?" : ""} ${lost} ${file.dirty}`;

/** One program: what it does is in order, in a directory of its own. */
export class Program {
  readonly #called: string;
  readonly #lower: RemoteLower;
  readonly #random: Random;
  readonly #world: World;
  readonly #dir: FileId;
  readonly #path: string;
  readonly #files = new Map<string, ModelFile>();
  readonly #nameless: ModelFile[] = [];
  #handles: ModelHandle[] = [];
  #seenDeaths = 0;
  #seenEpoch = 1;
  /** The owner may have changed during the last call. */
  #changed = false;

  constructor(called: string, lower: RemoteLower, random: Random, world: World, dir: FileId, path: string) {
    this.#called = called;
    this.#lower = lower;
    this.#random = random;
    this.#world = world;
    this.#dir = dir;
    this.#path = path;
    this.#seenDeaths = world.deaths;
    this.#seenEpoch = world.epoch;
  }

  get #all(): ModelFile[] {
    return [...new Set([...this.#files.values(), ...this.#nameless, ...this.#handles.map(({ file }) => file)])];
  }

  /** Owners went while nothing of this program was under way. */
  #notice(): void {
    const lost = this.#world.deaths > this.#seenDeaths;
    const ended = this.#world.epoch - this.#seenEpoch;
    if (ended === 0) return;
    // Where all was on the disk, a caller that has missed the one owner that knew it may say EIO all the same.
    const certain = lost && ended === 1;
    for (const file of this.#all) {
      if (file.dirty === "no" && file.behind.length === 0) continue;
      const now = certain && file.behind.length === 0 ? file.dirty : "may";
      for (const one of this.#handles) if (one.file === file && one.lost !== "must") one.lost = now;
      file.dirty = certain && file.behind.length === 0 ? "no" : "may";
    }
    this.#seenDeaths = this.#world.deaths;
    this.#seenEpoch = this.#world.epoch;
  }

  /** Asked later, whether this caller may have changed its owner since: null: it is about to. */
  get #ownersSeen(): number | null {
    return this.#isThere ? this.#world.epoch : null;
  }

  #changedSince(before: number | null): boolean {
    return before === null || before !== this.#ownersSeen;
  }

  get #isThere(): boolean {
    return this.#lower.openedAt?.epoch === this.#world.epoch;
  }

  #fail(text: string): never {
    throw new Error(`${this.#called}: ${text}`);
  }

  #say(text: string): void {
    this.#world.say(this.#called, text);
  }

  /** "done", or the errno; EIO only where an owner ended meanwhile, or `mayFail`. */
  async #call(what: string, call: () => unknown, files: readonly ModelFile[], mayFail = false): Promise<number> {
    this.#notice();
    const before = this.#ownersSeen;
    this.#say(`> ${what}`);
    let errno = 0;
    try {
      await call();
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      ({ errno } = error);
    }
    const owners = this.#changedSince(before);
    this.#changed = owners;
    this.#say(`  ${what}: ${errno}${owners ? ", and the owner has changed" : ""}`);
    this.#world.count(`${what.split(" ")[0]} ${errno}`);
    if (owners) this.#doubt(files);
    if (errno === E.EIO && !owners && !mayFail) this.#fail(`${what}: EIO, and no owner has ended`);
    return errno;
  }

  /** The owner may have changed while something of these was under way. */
  #doubt(files: readonly ModelFile[]): void {
    for (const file of files) file.dirty = "may";
    for (const one of this.#handles) if (one.lost !== "must" && (files.includes(one.file) || one.file.dirty !== "no")) one.lost = "may";
    for (const file of this.#all) if (file.dirty === "must") file.dirty = "may";
    this.#seenDeaths = this.#world.deaths;
    this.#seenEpoch = this.#world.epoch;
  }

  #unexpected(what: string, errno: number): never {
    this.#fail(`${what}: errno ${errno}`);
  }

  #any<T>(some: readonly T[]): T | undefined {
    return some[this.#random.below(Math.max(1, some.length))];
  }

  async #settled(file: ModelFile): Promise<void> {
    if (file.behind.length === 0) return;
    this.#notice();
    const before = this.#ownersSeen;
    while (file.behind.length > 0) await Promise.all(file.behind);
    // The next one may have made what the last one had not answered: then that is not lost.
    if (this.#changedSince(before)) this.#doubt([file]);
  }

  /** What the disk has, once nothing is under way. */
  async #adopt(file: ModelFile, handle: LowerHandle): Promise<void> {
    await this.#settled(file);
    let data: Uint8Array = new Uint8Array(0);
    const errno = await this.#call("read again", async () => (data = Uint8Array.from(await this.#lower.read(handle, 0, 300_000))), []);
    if (errno !== 0) this.#unexpected("read again", errno);
    file.content = Buffer.from(data);
    file.unsure = false;
  }

  #applied(content: Buffer, data: Buffer, offset: number): Buffer {
    const after = Buffer.alloc(Math.max(content.length, offset + data.length));
    content.copy(after);
    data.copy(after, offset);
    return after;
  }

  #dirtied(file: ModelFile): void {
    if (file.dirty !== "may") file.dirty = "must";
  }

  readonly #steps: readonly (() => Promise<void>)[] = [
    () => this.#create(),
    () => this.#create(),
    () => this.#open(),
    () => this.#write(),
    () => this.#write(),
    () => this.#write(),
    () => this.#append(),
    () => this.#append(),
    () => this.#writeBehind(),
    () => this.#writeBehind(),
    () => this.#writeBehind(),
    () => this.#read(),
    () => this.#read(),
    () => this.#fsync(),
    () => this.#fsync(),
    () => this.#close(),
    () => this.#rename(),
    () => this.#rename(),
    () => this.#unlink(),
    () => this.#look(),
    () => this.#look(),
    () => this.#attributes(),
    () => this.#truncate(),
    () => this.#overwrite(),
    () => this.#overwrite(),
    () => this.#tell(),
    () => this.#killed(),
    () => this.#list(),
  ];

  async step(): Promise<void> {
    if (this.#world.muster !== null) await this.#burst(this.#world.muster);
    await (this.#any(this.#steps) as () => Promise<void>)();
  }

  async #create(): Promise<void> {
    const free = this.#any(NAMES.filter((one) => !this.#files.has(one)));
    if (free === undefined || this.#handles.length > 6) return;
    let made: { id: FileId; handle: LowerHandle } | null = null;
    const errno = await this.#call(`create ${free}`, async () => {
      const { entry, handle } = await this.#lower.create(this.#dir, name(free), RDWR | O_EXCL, 0o644, caller);
      this.#lower.made(entry.id, entry.attr);
      this.#lower.madeFile(handle, entry.attr);
      made = { id: entry.id, handle };
    }, []);
    if (errno === 0 && made !== null) {
      const { id, handle } = made as { id: FileId; handle: LowerHandle };
      const file: ModelFile = { id, content: Buffer.alloc(0), mode: 0o644, unsure: false, dirty: "no", behind: [], names: new Set([free]) };
      this.#files.set(free, file);
      this.#handles.push({ handle, file, lost: "no" });
      this.#say(`  ${handle} is of ${id.ino}`);
      return;
    }
    if (errno !== E.EIO && errno !== E.ENOSPC) this.#unexpected("create", errno);
    const stat = fs.lstatSync(`${this.#path}/${free}`, { throwIfNoEntry: false });
    if (stat === undefined) return;
    // A file system says EEXIST before ENOSPC.
    if (errno !== E.EIO && !this.#changed) this.#fail(`create failed with ${errno}, and made the file`);
    const { id } = await this.#lower.lookup(this.#dir, name(free));
    if (id.ino !== stat.ino) this.#fail(`${free}: inode ${stat.ino}, found ${id.ino}`);
    this.#files.set(free, { id, content: Buffer.alloc(0), mode: 0o644, unsure: false, dirty: "may", behind: [], names: new Set([free]) });
  }

  async #open(): Promise<void> {
    const file = this.#any([...this.#files.values()]);
    if (file === undefined || this.#handles.length > 6) return;
    let handle: LowerHandle | null = null;
    const flags = this.#random.below(3) === 0 ? RDWR : 0;
    const errno = await this.#call(
      `open ${[...file.names].join()} ${flags}`,
      async () => (handle = await this.#lower.open(file.id, flags)),
      [],
    );
    if (errno !== 0 || handle === null) this.#unexpected("open", errno);
    this.#say(`  ${handle as LowerHandle} is of ${file.id.ino}`);
    if (flags === 0 && this.#random.below(2) === 0) {
      // As the kernel does: it is read through, and closed.
      const closing = handle as LowerHandle;
      if (this.#random.below(2) === 0) await this.#call("read once", async () => await this.#lower.read(closing, 0, 100), []);
      this.#lower.close(closing);
      return;
    }
    const one: ModelHandle = { handle, file, lost: "may" };
    this.#handles.push(one);
    if (flags !== 0) return;
    await this.#sync("fsync of a reader", one);
    this.#handles.pop();
    this.#lower.close(handle);
  }

  #data(): Buffer {
    return Buffer.alloc(1 + this.#random.below(this.#random.below(4) === 0 ? 20_000 : 200), 97 + this.#random.below(26));
  }

  async #write(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one !== undefined) await this.#writeTo(one);
  }

  async #writeTo(one: ModelHandle): Promise<void> {
    const { file, handle } = one;
    const data = this.#data();
    const offset = this.#random.below(file.content.length + 10);
    let bytes = 0;
    const errno = await this.#call(
      `write ${says(one)} at ${offset} ${data.length} of ${data[0]}`,
      async () => ({ bytes } = await this.#lower.write(handle, data, offset, false)),
      [file],
    );
    if (errno === 0) {
      if (bytes !== data.length) this.#fail(`short write ${bytes}`);
      file.content = this.#applied(file.content, data, offset);
      this.#dirtied(file);
    } else this.#notWritten(file, errno);
  }

  /** The owner before may have made it, where the next one had no room. */
  #notWritten(file: ModelFile, errno: number): void {
    if (errno !== E.EIO && errno !== E.ENOSPC && errno !== E.EDQUOT) this.#unexpected("write", errno);
    if (errno === E.EIO || this.#changed) file.unsure = true;
  }

  async #append(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one === undefined) return;
    const { file, handle } = one;
    await this.#settled(file);
    if (file.unsure) await this.#adopt(file, handle);
    const data = this.#data();
    let at = 0;
    const errno = await this.#call(
      `append ${says(one)} ${data.length} of ${data[0]}`,
      async () => ({ offset: at } = await this.#lower.write(handle, data, 0, true)),
      [file],
    );
    if (errno === 0) {
      if (at !== file.content.length) this.#fail(`appended at ${at}, expected ${file.content.length}`);
      file.content = this.#applied(file.content, data, at);
      this.#dirtied(file);
    } else this.#notWritten(file, errno);
  }

  async #writeBehind(): Promise<void> {
    const one = this.#any(this.#handles);
    const places = (): number => this.#random.below(3);
    if (one !== undefined) await this.#writesBehind(one, ({ length }) => (places() > 0 ? length : this.#random.below(length + 10)));
  }

  /** It writes behind once the others are about to, in one place. */
  async #burst(muster: Muster): Promise<void> {
    const one = this.#any(this.#handles);
    if (one === undefined || one.file.unsure || one.file.content.length === 0) return;
    await this.#writeTo(one);
    muster.ready += 1;
    await muster.all;
    await this.#writesBehind(one, () => this.#random.below(8));
  }

  async #writesBehind(one: ModelHandle, placeIn: (content: Buffer) => number): Promise<void> {
    const { file, handle } = one;
    for (let count = 1 + this.#random.below(6); count > 0; count--) {
      const data = this.#data();
      const offset = placeIn(file.content);
      if (!this.#lower.mayWriteBehind(handle, offset, data.length)) return;
      this.#notice();
      this.#say(`> behind ${says(one)} at ${offset} ${data.length} of ${data[0]}`);
      this.#world.count("behind");
      const before = this.#ownersSeen;
      const made = this.#lower.writeBehind(handle, data, offset).then(
        () => this.#say(`  behind ${offset}: made`),
        (error: unknown) => {
          if (!(error instanceof Errno)) throw error;
          this.#say(`  behind ${offset}: ${error.code}`);
          this.#world.count(`behind ${error.errno}`);
          if (error.errno === E.EIO && !this.#changedSince(before)) this.#fail("a write behind: EIO, and no owner has ended");
          if (error.errno !== E.EIO && error.errno !== E.ENOSPC && error.errno !== E.EDQUOT) this.#unexpected("behind", error.errno);
          file.unsure = true;
          for (const other of this.#handles) if (other.file === file) other.lost = "must";
        },
      );
      file.behind.push(made);
      void made.finally(() => file.behind.splice(file.behind.indexOf(made), 1)).catch(() => undefined);
      file.content = this.#applied(file.content, data, offset);
      this.#dirtied(file);
      await Promise.resolve();
    }
  }

  async #read(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one === undefined) return;
    const { file, handle } = one;
    let data: Uint8Array = new Uint8Array(0);
    const expected = file.content;
    const { cuts } = this.#world;
    const errno = await this.#call(
      `read ${says(one)}`,
      async () => (data = Uint8Array.from(await this.#lower.read(handle, 0, 300_000))),
      [],
    );
    if (errno !== 0) this.#unexpected("read", errno);
    await new Promise((resolve) => setImmediate(resolve));
    // Over another connection it may be answered before them: what was made already is asked for again there.
    if (file.behind.length > 0 && cuts === this.#world.cuts)
      this.#fail("a read was answered before a write that its program did not wait for");
    await this.#settled(file);
    if (file.unsure) return await this.#adopt(file, handle);
    if (Buffer.compare(expected, data) !== 0) {
      const at = expected.findIndex((byte, index) => byte !== data[index]);
      this.#fail(`read ${data.length} bytes, ${expected.length} expected; at ${at}: ${data[at]}, and not ${expected[at]}`);
    }
  }

  async #fsync(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one !== undefined) await this.#sync(`fsync ${says(one)}`, one);
  }

  /** Through whichever handle: what the file has is on the disk then. */
  async #sync(what: string, one: ModelHandle): Promise<void> {
    const { file, handle } = one;
    this.#notice();
    const { failedSyncs } = this.#world;
    const before = this.#ownersSeen;
    const errno = await this.#call(what, async () => await this.#lower.fsync(handle, false), [file], true);
    await this.#settled(file);
    const mayBeInjected = this.#world.failedSyncs > failedSyncs;
    if (errno !== 0 && errno !== E.EIO) this.#unexpected("fsync", errno);
    if (this.#changedSince(before)) {
      one.lost = "may";
      return;
    }
    if (errno === 0 && one.lost === "must") this.#fail("fsync says 0, and something was lost");
    if (errno === E.EIO && one.lost === "no" && !mayBeInjected) this.#fail("fsync says EIO, and nothing was lost, or it was told");
    if (errno === E.EIO && mayBeInjected) {
      // Another program's may be the one that was made to fail: then this one was made, and told of what was lost.
      if (one.lost !== "no" && file.dirty === "must") file.dirty = "may";
      if (one.lost === "must") one.lost = "may";
      return;
    }
    one.lost = "no";
    file.dirty = "no";
  }

  async #close(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one === undefined) return;
    if (one.file.unsure) {
      await this.#adopt(one.file, one.handle);
    }
    this.#handles = this.#handles.filter((other) => other !== one);
    this.#say(`> close ${one.handle}`);
    this.#lower.close(one.handle);
  }

  async #rename(): Promise<void> {
    const from = this.#any([...this.#files.keys()]);
    const to = this.#any(NAMES);
    if (from === undefined || to === undefined || from === to) return;
    const file = this.#files.get(from) as ModelFile;
    const other = this.#files.get(to) ?? null;
    const errno = await this.#call(
      `rename ${from} ${to}`,
      async () => await this.#lower.rename(this.#dir, name(from), this.#dir, name(to), 0, file.id, other?.id ?? null),
      [file],
      true,
    );
    if (errno !== 0 && errno !== E.EIO) this.#unexpected("rename", errno);
    const found = fs.lstatSync(`${this.#path}/${to}`, { throwIfNoEntry: false })?.ino;
    if (errno === 0 && found !== file.id.ino) this.#fail(`rename said 0, and the name is of ${found}`);
    if (found !== file.id.ino) return;
    if (other !== null) {
      other.names.delete(to);
      this.#nameless.push(other);
    }
    this.#files.delete(from);
    this.#files.set(to, file);
    this.#say(`  ${to} is ${file.id.ino}`);
    file.names.clear();
    file.names.add(to);
    // fsync tells of a name that may be lost, too.
    file.dirty = "may";
    for (const one of this.#handles) if (one.file === file && one.lost === "no") one.lost = errno === 0 ? one.lost : "may";
  }

  async #unlink(): Promise<void> {
    const gone = this.#any([...this.#files.keys()]);
    if (gone === undefined) return;
    const file = this.#files.get(gone) as ModelFile;
    const errno = await this.#call(`unlink ${gone}`, async () => await this.#lower.unlink(this.#dir, name(gone), file.id), [file]);
    if (errno !== 0 && errno !== E.EIO) this.#unexpected("unlink", errno);
    const there = fs.existsSync(`${this.#path}/${gone}`);
    if (errno === 0 && there) this.#fail("unlink said 0, and the name is there");
    if (there) return;
    this.#files.delete(gone);
    file.names.clear();
    this.#nameless.push(file);
  }

  async #look(): Promise<void> {
    const looked = this.#any(NAMES);
    if (looked === undefined) return;
    const file = this.#files.get(looked);
    let found: FileId | null = null;
    const errno = await this.#call(`lookup ${looked}`, async () => (found = (await this.#lower.lookup(this.#dir, name(looked))).id), []);
    if (file === undefined && errno !== E.ENOENT) this.#fail(`lookup of ${looked}, which is not there: ${errno}`);
    if (file !== undefined && (errno !== 0 || (found as FileId | null)?.ino !== file.id.ino)) this.#fail(`lookup of ${looked}: ${errno}`);
    if (file === undefined) return;
    await this.#settled(file);
    let size = -1;
    const second = await this.#call("getattr", async () => ({ size } = await this.#lower.getattr(file.id)), []);
    if (second !== 0) this.#unexpected("getattr", second);
    if (!file.unsure && size !== file.content.length) this.#fail(`getattr of ${looked}: ${size} bytes, ${file.content.length} expected`);
  }

  async #attributes(): Promise<void> {
    const file = this.#any([...this.#files.values()]);
    if (file === undefined) return;
    const mode = this.#random.below(0o1000);
    this.#notice();
    const behind = this.#random.below(2) === 0 ? this.#lower.setattrBehind(file.id, { mode }) : null;
    if (behind !== null) {
      this.#world.count("setattr behind");
      const made = behind.make().then(
        () => undefined,
        () => {
          file.mode = -1;
          for (const one of this.#handles) if (one.file === file) one.lost = "must";
        },
      );
      file.behind.push(made);
      void made.finally(() => file.behind.splice(file.behind.indexOf(made), 1));
      file.mode = mode;
      this.#dirtied(file);
      return;
    }
    const errno = await this.#call("chmod", async () => await this.#lower.setattr(file.id, { mode }, null), [file]);
    if (errno !== 0 && errno !== E.EIO) this.#unexpected("chmod", errno);
    file.mode = errno === 0 ? mode : -1;
    if (errno === 0) this.#dirtied(file);
  }

  async #truncate(): Promise<void> {
    const one = this.#any(this.#handles);
    if (one === undefined) return;
    await this.#cut(one, this.#random.below(300), true);
  }

  async #cut(one: ModelHandle, size: number, byHandle: boolean): Promise<void> {
    const { file } = one;
    const errno = await this.#call(
      `truncate ${says(one)} to ${size}`,
      async () => await this.#lower.setattr(file.id, { size }, byHandle ? one.handle : null),
      [file],
    );
    if (errno !== 0 && errno !== E.EIO) this.#unexpected("truncate", errno);
    if (errno === E.EIO) file.unsure = true;
    else {
      file.content = Buffer.concat([file.content, Buffer.alloc(size)]).subarray(0, size);
      this.#dirtied(file);
    }
  }

  /** As `>` of a shell. */
  async #overwrite(): Promise<void> {
    const file = this.#any([...this.#files.values()]);
    if (file === undefined || this.#handles.length > 6) return;
    let handle: LowerHandle | null = null;
    const open = async (): Promise<void> => {
      const opened = this.#lower.open(file.id, RDWR);
      if (!(opened instanceof Promise)) this.#world.count("opened without the owner");
      handle = await opened;
    };
    const errno = await this.#call(`open ${[...file.names].join()} to overwrite`, open, []);
    if (errno !== 0 || handle === null) this.#unexpected("open", errno);
    const one: ModelHandle = { handle, file, lost: "may" };
    this.#say(`  ${one.handle} is of ${file.id.ino}`);
    this.#handles.push(one);
    const shortest = this.#random.below(3) === 0 ? this.#random.below(300) : 0;
    if (this.#random.below(4) > 0) await this.#cut(one, shortest, this.#random.below(2) === 0);
    if (this.#random.below(2) === 0) await this.#writesBehind(one, ({ length }) => length);
    else await this.#writeTo(one);
    if (this.#random.below(4) === 0) return;
    if (file.unsure) await this.#adopt(file, one.handle);
    this.#handles = this.#handles.filter((other) => other !== one);
    this.#say(`> close ${one.handle}`);
    this.#lower.close(one.handle);
  }

  /** Its file is closed while the WRITE, or the SETATTR, of a program that was killed is under way. */
  async #killed(): Promise<void> {
    const file = this.#any([...this.#files.values()]);
    if (file === undefined || file.unsure || this.#handles.length > 6) return;
    let handle: LowerHandle | null = null;
    const errno = await this.#call(
      `open ${[...file.names].join()} to be killed`,
      async () => (handle = await this.#lower.open(file.id, RDWR)),
      [],
    );
    if (errno !== 0 || handle === null) this.#unexpected("open", errno);
    const open = handle as LowerHandle;
    const data = this.#data();
    const cuts = this.#random.below(3) === 0;
    await this.#settled(file);
    let bytes = 0;
    const made = await this.#call(`killed ${open}/${file.id.ino} ${cuts ? "cuts" : `writes ${data.length} of ${data[0]}`}`, async () => {
      const asked = cuts ? this.#lower.setattr(file.id, { size: 3 }, open) : this.#lower.write(open, data, 0, false);
      this.#lower.close(open);
      const answer = await asked;
      bytes = "bytes" in answer ? answer.bytes : data.length;
    }, [file]);
    if (made === 0 && !cuts) {
      if (bytes !== data.length) this.#fail(`short write ${bytes}`);
      file.content = this.#applied(file.content, data, 0);
      this.#dirtied(file);
    } else if (made === 0) {
      file.content = Buffer.concat([file.content, Buffer.alloc(3)]).subarray(0, 3);
      this.#dirtied(file);
    } else if (made === E.EBADF) {
      // It was closed before the owner, whose calls take their time here, had begun it; or before it was to be sent again.
      file.unsure = true;
    } else this.#notWritten(file, made);
  }

  /** As before a lock leaves, which stays. */
  async #tell(): Promise<void> {
    const file = this.#any(this.#all);
    if (file === undefined) return;
    const errno = await this.#call("tell", async () => await this.#lower.tellOpens(file.id), []);
    if (errno !== 0) this.#unexpected("tell", errno);
  }

  async #list(): Promise<void> {
    const found: string[] = [];
    const errno = await this.#call("list", async () => {
      const handle = await this.#lower.opendir(this.#dir);
      try {
        for (let cookie = 0n; ; ) {
          const page = await this.#lower.readdir(handle, cookie, 4096, "entries");
          found.push(...page.entries.map((entry) => entry.name.toString()));
          if (page.end) return;
          cookie = page.entries.at(-1)?.cookie ?? cookie;
        }
      } finally {
        this.#lower.close(handle);
      }
    }, []);
    if (errno !== 0) this.#unexpected("list", errno);
    const expected = [".", "..", ...this.#files.keys()].sort();
    const sorted = found.sort();
    if (sorted.join() !== expected.join()) this.#fail(`listed ${sorted.join()}, expected ${expected.join()}`);
  }

  async end(): Promise<void> {
    for (const file of this.#all) await this.#settled(file);
    for (const one of this.#handles) {
      if (one.file.unsure) await this.#adopt(one.file, one.handle);
      const data = Buffer.from(await this.#lower.read(one.handle, 0, 300_000));
      if (!data.equals(one.file.content)) this.#fail(`in the end: ${data.length} bytes, ${one.file.content.length} expected, or others`);
    }
    for (const { handle } of this.#handles.splice(0)) this.#lower.close(handle);
    const names = fs.readdirSync(this.#path).sort();
    if (names.join() !== [...this.#files.keys()].sort().join()) this.#fail(`in the end the directory has ${names.join()}`);
    for (const [at, file] of this.#files) {
      const stat = fs.statSync(`${this.#path}/${at}`);
      const { size, mode } = await this.#lower.getattr(file.id);
      if (stat.ino !== file.id.ino || size !== stat.size || mode !== stat.mode)
        this.#fail(`${at}: known ${size} ${mode}, is ${stat.size} ${stat.mode}`);
      if (!file.unsure && !fs.readFileSync(`${this.#path}/${at}`).equals(file.content)) this.#fail(`${at} has other content`);
      if (file.mode >= 0 && (stat.mode & 0o7777) !== file.mode) this.#fail(`${at}: mode ${stat.mode}, expected ${file.mode}`);
    }
  }
}
