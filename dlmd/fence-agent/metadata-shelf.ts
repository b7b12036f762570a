/** What each agent says of itself, read once for each state of its file: an agent in Python takes a third of a second to say it. */
import type { AgentMetadata } from "./metadata.ts";
import { METADATA_TIMEOUT_MS, readMetadata } from "./read-metadata.ts";
import { findAgent } from "./run-agent.ts";

export class MetadataShelf {
  readonly #timeoutMs: number;
  readonly #known = new Map<string, { readonly state: string; readonly metadata: AgentMetadata }>();

  constructor(timeoutMs: number = METADATA_TIMEOUT_MS) {
    this.#timeoutMs = timeoutMs;
  }

  /** With the agent's path. Rejects with OperatingError: no agent there, or none that says what it is. */
  async read(agent: string, signal: AbortSignal): Promise<{ readonly path: string; readonly metadata: AgentMetadata }> {
    const { path, state } = await findAgent(agent);
    const known = this.#known.get(path);
    if (known?.state === state) return { path, metadata: known.metadata };
    const metadata = await readMetadata(path, signal, this.#timeoutMs);
    this.#known.set(path, { state, metadata });
    return { path, metadata };
  }
}
