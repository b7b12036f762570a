/** What heirs ask of dlmd (api.ts: keepLocks, inherited, endKept; hazard C12), and what its refusals mean. */
import { OperatingError } from "../base/error.ts";
import type { HeirClientRequest, HeirEvent, HeirResult, InheritedLock } from "../wire/local-heir.ts";
import type { InheritedClient } from "./api.ts";

type Answer = Extract<HeirEvent, { kind: "inherited" }>;

/** What happened, what to do. */
const refusals: Readonly<Record<Exclude<HeirResult, "done">, readonly [string, string]>> = {
  "no-owner": ["this connection declared no owner key, so nobody could be its heir", "Connect with an owner key."],
  "too-long": ["nothing is kept for an heir for so long", "The limits are in dlmd/LIMITS.md."],
  "not-kept": ["that client is not kept for this program", "Ask what it has inherited."],
  busy: ["dlmd has as many questions of heirs under way as it may", "Ask again later."],
};

export function heirRefusal(result: Exclude<HeirResult, "done">): OperatingError {
  const [what, hint] = refusals[result];
  return new OperatingError(what, { code: result, hint });
}

/** Asks until all is told: dlmd answers with as much at a time as a frame takes. */
export async function askForAll(
  lockspace: string,
  ask: (request: Omit<Extract<HeirClientRequest, { kind: "inherit" }>, "requestId">) => Promise<Answer>,
): Promise<InheritedClient[]> {
  const found = new Map<number, InheritedLock[]>();
  for (let next: Answer["next"] = { fromClientId: 0, skip: 0 }; next !== null; ) {
    const answer: Answer = await ask({ kind: "inherit", lockspace, ...next });
    for (const { clientId, locks } of answer.clients) {
      const known = found.get(clientId);
      if (known === undefined) found.set(clientId, [...locks]);
      else for (const lock of locks) known.push(lock);
    }
    next = answer.next;
  }
  return [...found].map(([clientId, locks]) => ({ clientId, locks }));
}
