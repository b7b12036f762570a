/** `coverlay restart MOUNTPOINT`: the overlay of a mount is replaced by a new process of the installed program; nothing is unmounted. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { askAdmin } from "../../dlmd/client/admin.ts";
import { askOverlay, listOverlays, type OverlayEntry } from "../query/overlay-query.ts";
import { HELLO_LIMIT_MS, READY_LIMIT_MS, REST_LIMIT_MS, type RestartAnswer, SERVING_LIMIT_MS } from "../restart/give.ts";
import { askHandover, describeHandover, findMount } from "./handover.ts";
import { interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { requireRoot } from "./mount.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";
import { restartAlone, restartDlmd } from "./restart-dlmd.ts";

/** The overlay answers within its own limits: that of rest holds for file locks, and then for all else. */
const ANSWER_TIMEOUT_MS: number = HELLO_LIMIT_MS + 2 * REST_LIMIT_MS + READY_LIMIT_MS + SERVING_LIMIT_MS + 10_000;

interface RestartArguments extends NodeOptions {
  readonly mountpoint: string | undefined;
  readonly dlmd: boolean;
}

const answerShape: z.ZodType<RestartAnswer> = z.discriminatedUnion("kind", [
  z.looseObject({ kind: z.literal("refused"), why: z.string() }),
  z.looseObject({ kind: z.literal("failed"), why: z.string() }),
  z.looseObject({ kind: z.literal("lost"), why: z.string() }),
  z.looseObject({
    kind: z.literal("done"),
    pid: z.number(),
    pauseMs: z.number(),
    inodes: z.number(),
    files: z.number(),
    requests: z.number(),
  }),
]);

/** Exported for tests. */
export function askRestart(runDir: string, connection: number, signal?: AbortSignal): Promise<RestartAnswer> {
  return askOverlay(runDir, connection, { query: "restart" }, answerShape, ANSWER_TIMEOUT_MS, signal);
}

/** Words for people. Throws what it is, if it is not as it was asked for. `isMounted`: still. Exported for tests. */
export function describeRestart(answer: RestartAnswer, mountpoint: string, isMounted: boolean): string {
  switch (answer.kind) {
    case "done":
      if (!isMounted) {
        throw new OperatingError(`${mountpoint} was unmounted while it was restarted`, {
          code: "unmounted",
          hint: `Process ${answer.pid} releases the volume, and ends. Mount it again if it is to be there.`,
        });
      }
      return `process ${answer.pid} serves ${mountpoint} now; calls waited for ${answer.pauseMs} ms`;
    case "refused":
      throw new OperatingError(`${mountpoint} is not restarted: ${answer.why}`, {
        code: "not-restarted",
        hint: "Nothing was begun, and the mount goes on as before.",
      });
    case "failed":
      throw new OperatingError(`${mountpoint} is not restarted: ${answer.why}`, {
        code: "not-restarted",
        hint: "The mount goes on in its process, and no call failed. Its log says more. Try again.",
      });
    case "lost":
      throw new OperatingError(`the mount on ${mountpoint} has ended: ${answer.why}`, {
        code: "restart-lost",
        hint: `Calls there fail: umount -l ${mountpoint}, and mount it again. The log of the overlay says why.`,
      });
  }
}

/** False: this node is the owner, and stays it, for no other one could be. `say`: hears that it is handed over. */
async function handOverFirst(
  runDir: string,
  { connection, file }: OverlayEntry,
  say: (words: string) => void,
  signal: AbortSignal,
): Promise<boolean> {
  if (file.role !== "owner") return true;
  say(`this node is the owner of volume ${file.volume}: handing it over to another node first`);
  const answer = await askHandover(runDir, connection, 0, signal);
  if (answer.kind === "refused" && answer.nobodyElse) {
    say("no other node could have it: it stays, if it is mounted nowhere else");
    return false;
  }
  describeHandover(answer, file.volume, (nodeid) => `node ${nodeid}`);
  return true;
}

async function restartAll(runDir: string, json: boolean): Promise<void> {
  const goesOn = "dlmd is not restarted, or has been: the mounts of this node go on";
  const served = await longWork(
    json,
    () => interruptedError(goesOn, "coverlay status shows them."),
    async ({ say, signal }) => {
      await askAdmin(runDir, { what: "may-restart" });
      for (const one of listOverlays(runDir).filter(({ alive }) => alive)) await handOverFirst(runDir, one, say, signal);
      return restartDlmd(runDir, { say, signal });
    },
  );
  if (json) return printJson({ mounts: served });
  for (const { mountpoint, pid } of served) print(`process ${pid} serves ${mountpoint} now`);
  if (served.length === 0) print("nothing is mounted here: dlmd was restarted");
}

export const restartCommand: CommandModule<object, RestartArguments> = {
  command: "restart [mountpoint]",
  describe: "replace the process of a mount, or dlmd and all of this node, by the installed program; programs there go on",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("mountpoint", { type: "string", describe: "where it is mounted here, or the name of its volume" })
      .option("dlmd", { type: "boolean", default: false, describe: "restart dlmd of this node, and the process of each mount" })
      .example("$0 restart /shared", "after an upgrade of the package")
      .example("$0 restart /shared --json", "for programs")
      .example("$0 restart --dlmd", "all of this node: its mounts wait for some seconds")
      .epilogue(
        "Programs keep their open files, working directories and mappings. Calls wait for a moment and then go on; none fails. Without --dlmd that is not restarted. With it the owner keeps what the mounts of this node have open, written or locked, until they are back; a mount that is not in 120 s ends. dlmd keeps its process: the service manager has nothing to do. An owner hands its volume over to another node first. If no other node has the volume mounted, it unmounts the disk, and the new process mounts it again. Refused, and nothing is changed: without a quorum, an owner or a lease; if other nodes have the volume mounted, and none of them reaches the disk. Exit status: 0 a new process serves the mount; 1 it does not, with the reason; 8 interrupted.",
      ),
  handler: ({ runDir, json, mountpoint, dlmd }) =>
    runCommand(json, async () => {
      requireRoot("restart the process of a mount");
      if (dlmd !== (mountpoint === undefined))
        throw usageError("a mount point is needed, or --dlmd, and not both", "coverlay restart /shared");
      if (mountpoint === undefined) return restartAll(runDir, json);
      const found = findMount(runDir, mountpoint);
      const { file } = found;
      const answer = await longWork(
        json,
        () => interruptedError(`the restart of ${file.mountpoint} goes on if it has begun`, "coverlay status shows its process."),
        async ({ say, signal }) => {
          say(`restarting the process of ${file.mountpoint}`);
          if (!(await handOverFirst(runDir, found, say, signal))) return restartAlone(runDir, found, signal);
          return askRestart(runDir, found.connection, signal);
        },
      );
      const isMounted = mountTable().some(({ device }) => device === `0:${found.connection}`);
      const words = describeRestart(answer, file.mountpoint, isMounted);
      if (json) printJson(answer);
      else print(words);
    }),
};
