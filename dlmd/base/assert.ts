/**
 * Invariants. A broken invariant means that this process no longer knows what it holds, so it must
 * stop serving: the assertion throws in production too, and the composition root takes the node out.
 */

/** A broken invariant: never caught to go on, only to report and exit. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** `message` is made for each call: what many requests ask throws an AssertionError itself, so that numbers become words only where they are read. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Ends a total switch: compiles only when every case was handled. */
export function assertNever(value: never, what: string): never {
  throw new AssertionError(`unhandled ${what}: ${JSON.stringify(value)}`);
}
