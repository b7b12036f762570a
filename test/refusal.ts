import { OperatingError } from "../dlmd/base/error.ts";

/** The error with which `work` is refused; fails if it is not, or ends with an error of another kind. */
export async function refusal(work: Promise<unknown> | (() => unknown)): Promise<OperatingError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    if (error instanceof OperatingError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}
