/**
 * An owner whose dlmd has died asks its callers to keep what its own mount has (hazard F44). Each of them may be the next owner, and nobody knows which one it will be: so all
 * are asked.
 */
import { MAX_DEPOSIT } from "../limits.ts";
import type { AnswerOf, RequestOf } from "../wire/call-types.ts";
import { encodeWith } from "../wire/call-codecs.ts";
import { CALLS } from "../wire/calls.ts";
import { partsOf } from "../wire/deposit-parts.ts";
import { FrameType } from "../wire/frame.ts";
import type { ServerSession } from "./session.ts";

/** Once one caller keeps it the others are waited for so long: one that hangs is hardly the next owner. */
export const KEEPERS_WAIT_MS = 500;

export interface Keepers {
  /** Nodes, in ascending order. */
  readonly nodeids: readonly number[];
  /** Of the others that answered: why not, in words. */
  readonly refused: readonly string[];
}

interface Asked {
  readonly id: number;
  readonly answer: (answer: AnswerOf<"deposit">) => void;
}

export class AskedKeepers {
  /** One part at a time of each. */
  readonly #asked: Map<ServerSession, Asked> = new Map();
  #lastId = 0;

  /** Resolves when each has answered, KEEPERS_WAIT_MS after the first one that keeps it, or when `signal` says that there is no more time. */
  async ask(sessions: readonly ServerSession[], request: RequestOf<"deposit">, signal: AbortSignal): Promise<Keepers> {
    const [nodeids, refused]: [number[], string[]] = [[], []];
    let isOver: () => void = () => {};
    const over = new Promise<void>((resolve) => (isOver = resolve));
    signal.addEventListener("abort", isOver, { once: true });
    let timer: NodeJS.Timeout | undefined;
    const answers = sessions.map(async (session) => {
      const why = await this.#askInParts(session, request);
      if (why !== "") return void refused.push(`node ${session.id.nodeid}: ${why}`);
      nodeids.push(session.id.nodeid);
      timer ??= setTimeout(isOver, KEEPERS_WAIT_MS);
    });
    await Promise.race([Promise.all(answers), over]);
    clearTimeout(timer);
    this.#asked.clear();
    return { nodeids: [...nodeids].sort((a, b) => a - b), refused: [...refused] };
  }

  async #askInParts(session: ServerSession, request: RequestOf<"deposit">): Promise<string> {
    for (const part of partsOf(request, MAX_DEPOSIT)) {
      const { refused } = await this.#askOne(session, part);
      if (refused !== "") return refused;
    }
    return "";
  }

  #askOne(session: ServerSession, part: RequestOf<"deposit">): Promise<AnswerOf<"deposit">> {
    const id = (this.#lastId += 1);
    return new Promise((answer) => {
      this.#asked.set(session, { id, answer });
      session.say(FrameType.KEEP, id, encodeWith(CALLS.deposit.request, part));
    });
  }

  /** An answer that nobody waits for is none. */
  answered(session: ServerSession, { id, refused }: RequestOf<"kept">): void {
    const asked = this.#asked.get(session);
    if (asked?.id === id) asked.answer({ refused });
  }

  /** They need not keep it: said once, to those that are connected. */
  takeBack(sessions: readonly ServerSession[], ticket: string): void {
    for (const session of sessions) session.say(FrameType.KEEP_NOT, 0, encodeWith(CALLS.collect.request, { ticket }));
  }
}
