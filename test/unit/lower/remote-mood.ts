/** The owner's lower, for the simulation of callers and owners (remote-model.test.ts): its calls take their time, and some fail. */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { andThen, type MaybePromise, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { ownBytes } from "../../../overlay/lower/lower.ts";
import type { Random } from "../../seeded-random.ts";
import type { World } from "./remote-world.ts";

/** Some calls take so much longer, at most. */
const LATE_MS = 8;

type Call = (...args: readonly unknown[]) => MaybePromise<unknown>;
const LATE = ["open", "opendir", "getattr", "lookup", "create", "rename", "unlink", "setattr", "write"] as const;
const ERRNOS: { readonly [K in string]?: readonly number[] } = { create: [E.ENOSPC], write: [E.ENOSPC, E.EDQUOT] };

export const words = (...given: readonly unknown[]): string =>
  given
    .map((one) =>
      Buffer.isBuffer(one) && one.length < 3
        ? one.toString()
        : one instanceof Uint8Array
          ? `${one.length} of ${one[0]}`
          : JSON.stringify(one),
    )
    .join(" ")
    .slice(0, 160);

/** The world is told of that call of the owner's. */
function saying(world: World, key: string, call: Call): Call {
  return (...args) => {
    const asked = `${key} ${words(...args)}`;
    world.say("owner", `> ${asked}`);
    return withErrors<unknown>(
      () =>
        andThen(call(...args), (made) => {
          world.say("owner", `  ${asked}: made ${words(made)}`);
          return made;
        }),
      (error) => {
        world.say("owner", `  ${asked}: ${String(error)}`);
        throw error;
      },
    );
  };
}

/** Calls take their time, and some fail before they are made. */
export function moody(local: LocalLower, random: Random, world: World): LocalLower {
  const turns = async (): Promise<void> => {
    if (random.below(6) === 0) await new Promise((resolve) => setTimeout(resolve, random.below(LATE_MS)));
    for (let count = random.below(4); count > 0; count--) await new Promise((resolve) => setImmediate(resolve));
  };
  const late = (key: (typeof LATE)[number]): Call => {
    const made = saying(world, key, local[key] as Call);
    return (...args) => {
      const gate = world.gateOf(key);
      if (gate !== null) return gate.then(() => made(...args));
      const errnos = ERRNOS[key];
      if (errnos !== undefined && random.below(40) === 0 && !world.ended) throw errnoError(errnos[random.below(errnos.length)] as number);
      return random.below(3) > 0 ? made(...args) : turns().then(() => made(...args));
    };
  };
  return {
    ...local,
    ...Object.fromEntries(LATE.map((key) => [key, late(key)])),
    get openHandles() {
      return local.openHandles;
    },
    read: (...args) => (random.below(3) > 0 ? local.read(...args) : turns().then(() => ownBytes(local.read(...args)))),
    async fsync(...args) {
      await turns();
      if (random.below(30) === 0 && !world.ended) {
        world.failedSyncs += 1;
        throw errnoError(E.EIO);
      }
      await local.fsync(...args);
    },
  };
}
