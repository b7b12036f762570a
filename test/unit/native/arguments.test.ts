/** Wrong arguments throw, from every call of the table, and never reach the kernel or end the process. */
import { describe, expect, it } from "vitest";
import { STAT } from "../../../native/index.ts";
import { bytes, native } from "./scratch.ts";

/** The addon as it is without types. */
type Untyped = Record<string, (...args: unknown[]) => unknown>;

const wrong: readonly unknown[] = [undefined, null, {}, [], "a", Symbol("s"), 1n];

describe("arguments", () => {
  const sync = native.sync as unknown as Untyped;
  const pool = native.pool.metadata as unknown as Untyped;

  it("missing: TypeError from every call, sync and pool", () => {
    for (const calls of [sync, pool]) {
      for (const [name, call] of Object.entries(calls)) {
        expect(() => call()).toThrow(TypeError);
        expect(() => call()).toThrow(`native.${name}: argument 1: expected`);
      }
    }
    expect(Object.keys(sync)).toEqual(Object.keys(pool));
    expect(Object.keys(sync)).toHaveLength(52);
  });

  it("of the wrong type: TypeError", () => {
    const stat = new Float64Array(STAT.FIELDS);
    for (const value of wrong) {
      expect(() => sync["stat"]?.(value, stat)).toThrow(TypeError);
      expect(() => sync["stat"]?.(0, value)).toThrow(TypeError);
      expect(() => sync["unlink"]?.(0, value, 0)).toThrow(TypeError);
      expect(() => sync["fsync"]?.(0, value)).toThrow(TypeError);
    }
    expect(() => sync["stat"]?.(Number.NaN, stat)).toThrow(TypeError);
    expect(() => sync["stat"]?.(0, new Float32Array(64))).toThrow(TypeError);
    expect(() => sync["stat"]?.(0, new ArrayBuffer(160))).toThrow(TypeError);
  });

  it("too short: RangeError", () => {
    expect(() => sync["stat"]?.(0, new Float64Array(STAT.FIELDS - 1))).toThrow(RangeError);
    expect(() => sync["handleOf"]?.(0, Buffer.alloc(135))).toThrow(RangeError);
    expect(() => native.deviceWrite(0, Buffer.alloc(4), 5)).toThrow(RangeError);
    expect(() => native.deviceWrite2(0, Buffer.alloc(4), 4, Buffer.alloc(4), 2, 3)).toThrow(RangeError);
  });

  it("of the other functions: TypeError", () => {
    const untyped = native as unknown as Untyped;
    const names = ["deviceStart", "deviceSetBuffer", "deviceStop", "deviceWrite", "deviceWrite2", "notify", "mount", "umount"];
    const more = [
      "mountDetached",
      "mountDetachedInPool",
      "open",
      "loopAttach",
      "loopDetach",
      "loopSetWindow",
      "blockDeviceBytes",
      "setMaxDescriptors",
      "trimMemory",
      "freeArrayBuffer",
      "mapShared",
      "memfdCreate",
      "mapJournal",
      "duplicateFd",
      "tapOpen",
      "framesOpen",
      "relayFrames",
    ];
    for (const name of [...names, ...more, "setPoolThreads"]) {
      expect(() => untyped[name]?.()).toThrow(TypeError);
      expect(() => untyped[name]?.({}, {}, {}, {}, {}, {})).toThrow(TypeError);
    }
    expect(() => untyped["notify"]?.(0, [bytes("a"), 1])).toThrow(TypeError);
    expect(() => native.open("a\0b", 0, 0)).toThrow(RangeError);
  });

  it("a gate is no batch, nor a batch a gate: TypeError", () => {
    const untyped = native as unknown as Untyped;
    const [gate, batch] = [native.createGate(), native.createNotifyBatch(bytes("ab"), 1)];
    expect(() => untyped["notify"]?.(-1, [], batch, 0)).toThrow(TypeError);
    for (const name of ["shutGate", "gateThread"]) expect(() => untyped[name]?.(batch)).toThrow(TypeError);
    for (const name of ["notifyBatchBegun", "notifyBatchRefused"]) expect(() => untyped[name]?.(gate)).toThrow(TypeError);
    expect(() => untyped["writeNotifyBatch"]?.(-1, gate)).toThrow(TypeError);
    expect([native.shutGate(gate), native.notifyBatchBegun(batch)]).toEqual([true, 0]);
  });
});
