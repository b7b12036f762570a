/** `coverlay collect`: has an owner give up what it keeps for a mount that has ended while it was paused (restart/collect.ts). Not for people. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { createPinoLog } from "../../dlmd/base/pino-log.ts";
import { type CollectOrder, collectKept } from "../restart/collect.ts";
import { askOwnerToCollect } from "../serve/collect-kept.ts";
import { dlmdThere } from "../query/dlmd-query.ts";
import { runCommand } from "./output.ts";

interface CollectArguments {
  readonly runDir: string;
  readonly order: string;
}

const orderShape: z.ZodType<CollectOrder> = z.looseObject({
  owner: z.union([
    z.looseObject({
      host: z.string(),
      port: z.number(),
      nodeid: z.number(),
      incarnation: z.string(),
      clientId: z.number(),
      epoch: z.number(),
    }),
    z.looseObject({ after: z.number() }),
  ]),
  volumeUuid: z.string(),
  ticket: z.string(),
  incarnation: z.string().nullable(),
  waitedMs: z.number(),
});

export const collectCommand: CommandModule<object, CollectArguments> = {
  command: "collect",
  describe: false,
  builder: {
    "run-dir": { type: "string", demandOption: true },
    order: { type: "string", demandOption: true, describe: "of the process that had the mount, as JSON" },
  },
  handler: ({ runDir, order }) =>
    runCommand(false, async () => {
      const log = createPinoLog("info", null);
      const wanted = orderShape.parse(JSON.parse(order));
      const ask = (signal: AbortSignal): Promise<boolean> => askOwnerToCollect(runDir, wanted, log, signal);
      const end = await collectKept(wanted, { log, dlmd: () => dlmdThere(runDir), ask });
      log.info({ end }, "what the owner kept for a mount that has ended while it was paused");
    }),
};
