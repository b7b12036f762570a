/** The line of a process that goes on after a crash: when its keeper has ended, its number may be another file's, and nothing is written there. */
import { EventEmitter } from "node:events";
import { afterEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { Keeper } from "../../../overlay/crash/keeper.ts";

const { lines, written } = vi.hoisted(() => ({ lines: [] as { emit(name: "close"): boolean }[], written: [] as string[] }));
vi.mock("node:net", () => ({
  Socket: class extends EventEmitter {
    unref(): void {
      lines.push(this);
    }
    resume(): void {
      // Nothing comes.
    }
  },
}));
vi.mock("node:fs", async (original) => ({
  ...(await original<typeof import("node:fs")>()),
  writeSync: (fd: number, word: Buffer) => written.push(`${word.toString()} to ${fd}`),
}));
afterEach(() => {
  lines.length = written.length = 0;
});

it("says what it has to say while its keeper is there", () => {
  const keeper = Keeper.inherited(silentLog, () => undefined);
  keeper.serves();
  keeper.cannotGoOn();
  keeper.farewell();
  expect(written).toEqual(["s to 3", "f to 3", "b to 3"]);
});

it("says nothing more when that has ended", () => {
  const gone: string[] = [];
  const keeper = Keeper.inherited(silentLog, () => void gone.push("gone"));
  for (const line of lines) line.emit("close");
  keeper.serves();
  keeper.cannotGoOn();
  keeper.farewell();
  expect([gone, written]).toEqual([["gone"], []]);
});
