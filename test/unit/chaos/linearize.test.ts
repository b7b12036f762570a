import { describe, expect, it } from "vitest";
import { linearize, MAX_OPEN_OPERATIONS, type Timed } from "../../chaos/linearize.ts";
import { type RegisterOperation, registerModel, type RegisterState } from "../../chaos/register-model.ts";
import { Random } from "../../sim/random.ts";

const zero: RegisterState = { value: 0, unstable: [], lossesLeft: 0 };
const never = Number.POSITIVE_INFINITY;

function write(value: number, begin: number, end: number): Timed<RegisterOperation> {
  return { operation: { kind: "write", value }, begin, end };
}
function read(value: number, begin: number, end: number): Timed<RegisterOperation> {
  return { operation: { kind: "read", value }, begin, end };
}
function sync(begin: number, end: number): Timed<RegisterOperation> {
  return { operation: { kind: "sync" }, begin, end };
}
function lose(begin: number, end: number): Timed<RegisterOperation> {
  return { operation: { kind: "lose" }, begin, end };
}
function kind(history: readonly Timed<RegisterOperation>[], initial: RegisterState = zero): string {
  return linearize(registerModel, initial, history).kind;
}

describe("a register", () => {
  it("is read as it was written", () => expect(kind([write(1, 0, 1), read(1, 2, 3)])).toBe("linearizable"));

  it("a stale read is refused, and the read is named", () => {
    const verdict = linearize(registerModel, zero, [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]);
    expect(verdict).toEqual({ kind: "violation", operation: read(1, 4, 5), states: ["2 () 0"] });
  });

  it("a read beside a write may give either value", () => {
    expect([kind([write(1, 0, 10), read(1, 2, 3)]), kind([write(1, 0, 10), read(0, 2, 3)])]).toEqual(["linearizable", "linearizable"]);
  });

  it("two reads beside a write may not go back", () => {
    expect(kind([write(1, 0, 10), read(1, 2, 3), read(0, 4, 5)])).toBe("violation");
    // If they overlap they have no order.
    expect(kind([write(1, 0, 10), read(1, 2, 5), read(0, 3, 6)])).toBe("linearizable");
  });

  it("what touches overlaps", () => expect(kind([write(1, 0, 1), write(2, 1, 2), read(1, 3, 4)])).toBe("linearizable"));

  it("a write without an answer has its effect at any later time, or never", () => {
    expect(kind([write(1, 0, never), read(0, 2, 3), read(1, 4, 5), read(1, 6, 7)])).toBe("linearizable");
    expect(kind([write(1, 0, never), read(0, 2, 3)])).toBe("linearizable");
    // But once.
    expect(kind([write(1, 0, never), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)])).toBe("violation");
  });

  it("needs an order that four writes and their readers agree on", () => {
    const writes = [1, 2, 3, 4].map((value) => write(value, 0, 10));
    expect(kind([...writes, read(3, 11, 12), read(3, 13, 14)])).toBe("linearizable");
    expect(kind([...writes, read(3, 11, 12), read(4, 13, 14)])).toBe("violation");
  });
});

describe("a register on a disk that loses", () => {
  const one = { ...zero, lossesLeft: 1 };

  it("may go back to what was there since the last sync", () => {
    const history = [write(1, 0, 1), sync(2, 3), write(2, 4, 5), write(3, 6, 7), lose(8, 9)];
    for (const value of [1, 2, 3]) expect([value, kind([...history, read(value, 10, 11)], one)]).toEqual([value, "linearizable"]);
  });

  it("never loses what was synced", () => {
    expect(kind([write(1, 0, 1), sync(2, 3), lose(4, 5), read(0, 6, 7)], one)).toBe("violation");
    // A sync that overlaps the loss may have come too late.
    expect(kind([write(1, 0, 1), sync(2, 5), lose(4, 6), read(0, 7, 8)], one)).toBe("linearizable");
  });

  it("settles on one value", () => {
    expect(kind([write(1, 0, 1), lose(2, 3), read(0, 4, 5), read(1, 6, 7)], one)).toBe("violation");
  });

  it("loses nothing outside of the loss", () => {
    expect(kind([write(1, 0, 1), read(0, 2, 3), lose(4, 5)], one)).toBe("violation");
    expect(kind([lose(0, 1), write(1, 2, 3), read(0, 4, 5)], one)).toBe("violation");
  });
});

describe("limits", () => {
  it("gives up beyond the configurations that it may have", () => {
    const writes = Array.from({ length: 8 }, (_, at) => write(at + 1, 0, 10));
    expect(linearize(registerModel, zero, writes, 10_000).kind).toBe("linearizable");
    expect(linearize(registerModel, zero, writes, 500)).toEqual({ kind: "undecided", why: "more than 500 configurations at 10" });
  });

  it(`gives up beyond ${MAX_OPEN_OPERATIONS} open operations`, () => {
    const open = (count: number): Timed<RegisterOperation>[] => Array.from({ length: count }, (_, at) => read(0, at, never));
    expect(kind(open(MAX_OPEN_OPERATIONS))).toBe("linearizable");
    expect(kind(open(MAX_OPEN_OPERATIONS + 1))).toBe("undecided");
  });
});

/** The definition itself: some order of all operations, each after those that had ended before it began. For short histories. */
function byDefinition(history: readonly Timed<RegisterOperation>[], state: RegisterState): boolean {
  if (history.every(({ end }) => end === never)) return true;
  const firstEnd = Math.min(...history.map(({ end }) => end));
  return history.some(
    (one, at) =>
      one.begin <= firstEnd &&
      registerModel.step(state, one.operation).some((next) =>
        byDefinition(
          history.filter((_, other) => other !== at),
          next,
        ),
      ),
  );
}

it("agrees with the definition on random histories", () => {
  const random = new Random(1);
  const counts = { linearizable: 0, violation: 0 };
  for (let round = 0; round < 3000; round++) {
    const history = Array.from({ length: 1 + random.int(6) }, (_, at): Timed<RegisterOperation> => {
      const begin = random.int(12);
      const end = random.chance(0.1) ? never : begin + random.int(6);
      const drawn = random.int(10);
      if (drawn < 4) return write(at + 1, begin, end);
      return drawn < 9 ? read(random.int(5), begin, begin + random.int(6)) : sync(begin, begin + random.int(3));
    });
    const withLoss = random.chance(0.5);
    const whole = withLoss ? [...history, lose(random.int(8), 8 + random.int(5))] : history;
    const initial = { ...zero, lossesLeft: withLoss ? 1 : 0 };
    const verdict = kind(whole, initial);
    expect([whole, verdict]).toEqual([whole, byDefinition(whole, initial) ? "linearizable" : "violation"]);
    counts[verdict as keyof typeof counts] += 1;
  }
  expect(Math.min(counts.linearizable, counts.violation)).toBeGreaterThan(300);
});
