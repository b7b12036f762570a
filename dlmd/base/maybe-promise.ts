/**
 * Working with `MaybePromise<T>`: an answer at once, or a promise of it. Code written with `andThen` runs to its end
 * without giving up the thread wherever nothing has to wait.
 */
import { errnoError } from "./errno.ts";

/** An answer at once, or a promise of it. */
export type MaybePromise<T> = T | Promise<T>;

/** `use` of the answer: now if it is there, else when it comes. */
export function andThen<T, U>(value: MaybePromise<T>, use: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return value instanceof Promise ? value.then(use) : use(value);
}

/** A promise of what `work` answers; a rejection, whether it fails now or later. */
export async function promised<T>(work: () => MaybePromise<T>): Promise<T> {
  return await work();
}

/** The result of a system call: a negative one is thrown as its Errno. */
export function checked(result: number): number {
  if (result < 0) throw errnoError(-result);
  return result;
}

/** `checked` for a result that may still be on its way. */
export function checkedMaybe(result: MaybePromise<number>): MaybePromise<number> {
  return result instanceof Promise ? result.then(checked) : checked(result);
}

/** True: the work ended within that time; what it fails with until then is thrown. False: it goes on. */
export async function inTime(work: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs `last` once `work` has ended, whether well or not, now or later. */
export function finallyDo<T>(work: () => MaybePromise<T>, last: () => void): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = work();
  } catch (error) {
    last();
    throw error;
  }
  if (result instanceof Promise) return result.finally(last);
  last();
  return result;
}

/** What `work` fails with, now or later, goes to `handle`. */
export function withErrors<T>(work: () => MaybePromise<T>, handle: (error: unknown) => T): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = work();
  } catch (error) {
    return handle(error);
  }
  return result instanceof Promise ? result.catch(handle) : result;
}

/** One system call after the other; the first error ends it. */
export function inOrder(steps: readonly (() => MaybePromise<number>)[], from = 0): MaybePromise<void> {
  for (let at = from; at < steps.length; at += 1) {
    const result = steps[at]?.() ?? 0;
    if (result instanceof Promise) {
      return result.then((value) => {
        checked(value);
        return inOrder(steps, at + 1);
      });
    }
    checked(result);
  }
}
