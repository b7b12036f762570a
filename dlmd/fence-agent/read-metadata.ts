/** Asks an agent for its metadata (FenceAgentAPI). */
import { OperatingError } from "../base/error.ts";
import { type AgentMetadata, MetadataError, parseMetadata } from "./metadata.ts";
import { runAgent } from "./run-agent.ts";

/** It asks no device. */
export const METADATA_TIMEOUT_MS = 20_000;

/** Rejects with OperatingError: it does not say it, or it is none. */
export async function readMetadata(path: string, signal: AbortSignal, timeoutMs: number): Promise<AgentMetadata> {
  const { status, isTooLate, isStuck, isTooLong, stdout } = await runAgent({
    path,
    words: ["-o", "metadata"],
    input: "",
    timeoutMs,
    signal,
  });
  const refuse = (found: string, cause?: unknown): OperatingError =>
    new OperatingError(`the fence agent ${path} says no metadata that can be read: ${found}`, {
      code: "fence-agent",
      hint: `Look at \`${path} -o metadata\`. Is it a fence agent?`,
      cause,
    });
  if (isStuck) throw refuse("it could not be killed: it waits in the kernel, as for a disk that hangs");
  if (isTooLate) throw refuse(`it did not end within ${timeoutMs} ms`);
  if (status !== 0) throw refuse(status === null ? "it was killed" : `it ended with status ${status}`);
  if (isTooLong) throw refuse("it says too much");
  try {
    return parseMetadata(stdout);
  } catch (cause) {
    if (!(cause instanceof MetadataError)) throw cause;
    throw refuse(cause.message, cause);
  }
}
