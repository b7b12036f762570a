/**
 * Working with `Maybe<T>`: an answer at once, or a promise of it. Code written with `chain` runs to its end
 * without giving up the thread wherever nothing has to wait.
 */
import { errnoError } from "../../dlmd/base/errno.ts";
import type { Maybe } from "./lower.ts";

/** `use` of the answer: now if it is there, else when it comes. */
export function chain<T, U>(value: Maybe<T>, use: (value: T) => Maybe<U>): Maybe<U> {
  return value instanceof Promise ? value.then(use) : use(value);
}

/** The result of a system call: a negative one is thrown as its Errno. */
export function checked(result: number): number {
  if (result < 0) throw errnoError(-result);
  return result;
}

/** `checked` for a result that may still be on its way. */
export function checkedMaybe(result: Maybe<number>): Maybe<number> {
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
export function lastly<T>(work: () => Maybe<T>, last: () => void): Maybe<T> {
  let result: Maybe<T>;
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
export function withErrors<T>(work: () => Maybe<T>, handle: (error: unknown) => T): Maybe<T> {
  let result: Maybe<T>;
  try {
    result = work();
  } catch (error) {
    return handle(error);
  }
  return result instanceof Promise ? result.catch(handle) : result;
}

/** One system call after the other; the first error ends it. */
export function inOrder(steps: readonly (() => Maybe<number>)[], from = 0): Maybe<void> {
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
