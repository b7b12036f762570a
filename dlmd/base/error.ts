/**
 * Operating errors: things that go wrong in a healthy program. Each says what was expected, what was
 * found and what to do about it, because an administrator reads it at three in the morning.
 */
export interface OperatingErrorOptions {
  /** Stable word for programs: "wrong-cluster", "no-quorum" ... */
  readonly code: string;
  /** What to do about it; a full sentence, shown on its own line. */
  readonly hint: string;
  readonly cause?: unknown;
  /** The exit status of the command that ends with this error. */
  readonly exitStatus?: number;
}

export class OperatingError extends Error {
  override readonly name = "OperatingError";
  readonly code: string;
  readonly hint: string;
  readonly exitStatus: number;

  constructor(message: string, options: OperatingErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = options.code;
    this.hint = options.hint;
    this.exitStatus = options.exitStatus ?? 1;
  }
}

/** A message from outside that does not decode: damaged, truncated, or not ours. Drop, count, log. */
export class WireError extends Error {
  override readonly name = "WireError";
}
