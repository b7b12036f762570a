/**
 * A cache that is never stale: the values are files in a directory that all nodes see; every program keeps what it has read
 * for as long as nobody changes it, and asks nobody while it does.
 *
 *     node dist/examples/reader-writer-cache.js /run/coverlay/dlmd.sock /shared/values
 *     get colour                   prints "colour = (nothing), read" the first time, "..., cached" after that
 *     set colour blue              prints "colour set"
 *
 * PR on a key covers a cached value; whoever changes it takes EX, so that all others are told (the blocking AST), drop what
 * they have and only then give PR up. This is what coverlay does with every inode.
 */
import { readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Lockspace } from "../dlmd/client/api.ts";
import { connectDlm } from "../dlmd/client/client.ts";
import { type HeldLock, takeLock } from "../dlmd/client/held-lock.ts";
import { Mode } from "../dlmd/wire/mode.ts";

class Cache {
  readonly #space: Lockspace;
  readonly #dir: string;
  readonly #kept: Map<string, { value: string; lock: HeldLock }> = new Map();

  constructor(space: Lockspace, dir: string) {
    this.#space = space;
    this.#dir = dir;
  }

  async get(key: string): Promise<string> {
    const kept = this.#kept.get(key);
    if (kept !== undefined) return `${key} = ${kept.value}, cached`;
    let wanted = false;
    const onBast = (): void => {
      wanted = true;
      void this.#drop(key);
    };
    const lock = await takeLock(this.#space, key, Mode.PR, { onBast });
    const value = await readFile(path.join(this.#dir, key), "utf8").catch(() => "(nothing)");
    // Asked for while it was being read: true now, but nothing to keep.
    if (wanted) await lock.unlock();
    else this.#kept.set(key, { value, lock });
    return `${key} = ${value}, read`;
  }

  async set(key: string, value: string): Promise<string> {
    await this.#drop(key);
    const lock = await takeLock(this.#space, key, Mode.EX);
    const file = path.join(this.#dir, key);
    await writeFile(`${file}.new`, value);
    await rename(`${file}.new`, file);
    await lock.unlock();
    return `${key} set`;
  }

  /** First the value, then the lock: in between nobody may be answered from it. */
  async #drop(key: string): Promise<void> {
    const kept = this.#kept.get(key);
    this.#kept.delete(key);
    await kept?.lock.unlock();
  }
}

const [socketPath = "/run/coverlay/dlmd.sock", dir = "."] = process.argv.slice(2);
const client = await connectDlm(socketPath, {
  view() {},
  gone: async () => {},
  disconnected(reason) {
    // Nobody keeps our locks any more: what is cached may be stale from now on.
    console.error(reason.message);
    process.exit(1);
  },
});
const cache = new Cache(await client.lockspace("values"), dir);
for await (const line of createInterface({ input: process.stdin })) {
  const [what, key = "", ...rest] = line.split(" ");
  if (!/^[\w.-]+$/.test(key)) console.log("expected: get KEY, or set KEY VALUE");
  else console.log(what === "set" ? await cache.set(key, rest.join(" ")) : await cache.get(key));
}
await client.close();
