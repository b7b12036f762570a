/** Asks an owner to give up what it keeps for a mount that is no more (restart/collect.ts, hazard F35): a client of dlmd without a mount. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import { keyringOf } from "../../dlmd/tls/keyring.ts";
import { createRemoteLower } from "../lower/remote/remote.ts";
import { dlmdSocketPath } from "../query/dlmd-query.ts";
import type { Kept } from "../restart/collect.ts";
import { OTHER_OWNER } from "../restart/take.ts";
import type { OwnerAddress } from "../lower/remote/connection.ts";
import { volumeLockspace } from "../volume/owner.ts";
import { presentOwner } from "../volume/present-owner.ts";
import { addressOf } from "./own-calls.ts";

/** Whether it kept something. Rejects if it cannot be asked; with OTHER_OWNER if the node of that owner is gone. Another server at its address is not asked: it is connected to again. */
export async function askOwnerToCollect(
  runDir: string,
  kept: Kept,
  log: Log,
  signal: AbortSignal,
  connect: typeof connectDlm = connectDlm,
): Promise<boolean> {
  let end: (reason: Error) => void = () => {};
  const ended = new Promise<never>((_, reject) => (end = reject));
  // It may come when nothing is awaited.
  ended.catch(() => undefined);
  signal.addEventListener("abort", () => end(signal.reason as Error), { once: true });
  const client = await connect(dlmdSocketPath(runDir), {
    view: () => {},
    // It has no lock, and serves nobody.
    gone: () => Promise.resolve(),
    disconnected: (reason) => end(reason),
  });
  try {
    signal.throwIfAborted();
    return await askThrough(client, kept, log, ended);
  } finally {
    await client.close();
  }
}

async function ownerAfter(client: DlmClient, volumeUuid: string, after: number): Promise<OwnerAddress & { readonly epoch: number }> {
  const record = await presentOwner(await client.lockspace(volumeLockspace(volumeUuid)), after);
  return { ...addressOf(record), epoch: record.epoch };
}

async function askThrough(client: DlmClient, kept: Kept, log: Log, ended: Promise<never>): Promise<boolean> {
  const { volumeUuid, ticket } = kept;
  const { clusterName, nodeid, incarnation, clientId } = client.info;
  const owner = "after" in kept.owner ? await Promise.race([ended, ownerAfter(client, volumeUuid, kept.owner.after)]) : kept.owner;
  const { quorate, members, incarnations } = client.view;
  if (quorate && incarnations[members.indexOf(owner.nodeid)] !== owner.incarnation)
    throw new OperatingError("the node of that owner is gone", { code: OTHER_OWNER, hint: "What it kept is given up." });
  const keyring = (): ReturnType<typeof keyringOf> => keyringOf(client.info.overlayKeys);
  const remote = createRemoteLower({ keyring, clusterName, volumeUuid, nodeid, incarnation, clientId, log });
  const ask = async (): Promise<boolean> => {
    await remote.connect(owner, owner.epoch);
    // So the owner hears when this client goes, and ends its session. Not before: dlmd does not restart beneath a client that has a lockspace.
    await client.lockspace(volumeLockspace(volumeUuid));
    return remote.collect(ticket);
  };
  try {
    return await Promise.race([ended, ask()]);
  } finally {
    remote.shutdown();
  }
}
