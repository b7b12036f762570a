/** The part that a mount takes in its owner's election, and in planned moves: what happens in it when there is an owner, and when there is none. */
import type { DlmClient, Lockspace } from "../../dlmd/client/api.ts";
import type { VolumeMountGroup } from "../mount-group/mount-group.ts";
import { noQuorumWords } from "../volume/mount-checks.ts";
import { type OwnerCallbacks, VolumeOwner } from "../volume/owner.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import { claimingProcess } from "../volume/taking.ts";
import { AliveLock, mountsAlive, ownerAlive } from "./alive-lock.ts";
import type { AnswerLimit } from "./answer-limit.ts";
import { growthUnderWay } from "./grow.ts";
import { HandOvers } from "./hand-over.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import type { OwnCalls } from "./own-calls.ts";
import type { OwnerChanges } from "./owner-changes.ts";
import type { OwnerService } from "./owner-service.ts";
import { PreferredMove } from "./preferred-move.ts";
import { cannotWrite, createProofs, requireStill } from "./proofs.ts";

export interface OwnerRoleHost {
  readonly options: MountProcessOptions;
  readonly client: DlmClient;
  readonly lockspace: Lockspace;
  readonly group: VolumeMountGroup;
  /** False: this mount goes on with what another owner keeps, and is none before it has that (`VolumeOwner.mayOwn`). */
  readonly mayOwn: boolean;
  /** By its name in the configuration. */
  readonly volumeName: string;
  readonly answerLimit: AnswerLimit;
  readonly service: OwnerService;
  readonly ownCalls: OwnCalls;
  readonly ownerChanges: OwnerChanges;
  readonly why: () => string;
  /** This mount answers its callers, and nothing is waited for. */
  readonly isWell: () => boolean;
  /** There is no owner: a mount that is told to end does not wait for one. */
  readonly endWaiting: () => void;
  readonly fail: (error: Error) => void;
}

export interface OwnerRolePart {
  readonly owner: VolumeOwner;
  readonly handOvers: HandOvers;
  readonly preferredMove: PreferredMove;
  /** The first owner that there is to work with. Rejects if the role ends before. */
  readonly known: Promise<OwnerRecord>;
  /** Nobody is to wait for `known` any more. */
  readonly giveUp: (error: Error) => void;
}

/** `owner.start()` is left to the caller. */
export function createOwnerRole(host: OwnerRoleHost): OwnerRolePart {
  const { options, client, lockspace } = host;
  let resolve: (record: OwnerRecord) => void = () => {};
  let giveUp: (error: Error) => void = () => {};
  const known = new Promise<OwnerRecord>((resolved, rejected) => {
    resolve = resolved;
    giveUp = rejected;
  });
  const process = claimingProcess(options.lower.kind === "device" && options.reachesLower ? options.lower.path : null);
  const writesNothing = cannotWrite(options);
  const owner = new VolumeOwner({
    info: client.info,
    lockspace,
    process: writesNothing ? { ...process, cannotWrite: true } : process,
    reachesLower: options.reachesLower && host.mayOwn,
    log: options.log,
    callbacks: createCallbacks(host, writesNothing, () => ({ handOvers, preferredMove }), { resolve, reject: giveUp }),
  });
  const mounts = new AliveLock(mountsAlive, { lockspace, fail: host.fail });
  mounts.serve();
  host.answerLimit.begin(() => mounts.ask());
  const handOvers: HandOvers = createHandOvers(host, owner);
  const preferredMove: PreferredMove = createPreferredMove(host, owner, handOvers);
  return { owner, handOvers, preferredMove, known, giveUp };
}

function createCallbacks(
  host: OwnerRoleHost,
  writesNothing: boolean,
  moves: () => { readonly handOvers: HandOvers; readonly preferredMove: PreferredMove },
  known: { readonly resolve: (record: OwnerRecord) => void; readonly reject: (error: Error) => void },
): OwnerCallbacks {
  const { options, client, lockspace, group, volumeName, answerLimit, service, ownCalls } = host;
  const alive = new AliveLock(ownerAlive, { lockspace, fail: host.fail });
  const ownerFound = (record: OwnerRecord): void => {
    // Hazard F44. If this one is it, it has what is kept already.
    service.keepNothing();
    host.ownerChanges.found(record, performance.now(), Date.now());
    ownCalls.ownerFound(client, record);
    known.resolve(record);
    moves().handOvers.ownerFound(record);
    moves().preferredMove.look();
    options.changed();
  };
  return {
    readOwnerBlock: () => service.readBlock(),
    proveGone: createProofs({
      client,
      volume: volumeName,
      device: options.lower.path,
      disk: service.disk,
      readOwnerBlock: () => service.readBlock(),
      log: options.log,
    }),
    mountLower: (epochAbove, claim) =>
      group.claimed(async () => {
        if (writesNothing) requireStill(options);
        return service.mount(epochAbove, claim);
      }),
    releaseLower: () => {
      answerLimit.ownerLost();
      alive.stop();
      return group.released(() => service.release());
    },
    withdrawalSeen: () => service.withdrawals.seen(),
    ownerFound: (record) => {
      answerLimit.ownerFound(() => alive.ask());
      ownerFound(record);
    },
    ownerLost: (reason) => {
      options.log.warn({ reason }, "owner lost: operations wait");
      host.ownerChanges.lost(reason, performance.now());
      answerLimit.ownerLost();
      moves().handOvers.ownerLost();
      ownCalls.remote?.ownerLost();
      host.endWaiting();
      options.changed();
    },
    // A mount that was remote until now, or had withdrawn, goes on through its own server.
    becomeOwner: (record) => {
      answerLimit.ownerFound(null);
      alive.serve();
      group.serving(record.epoch);
      moves().preferredMove.becameOwner();
      ownerFound(record);
    },
    left: (error) => {
      if (error === null) return;
      known.reject(error);
      host.fail(error);
    },
  };
}

function createHandOvers({ options, client, ownCalls, service, why }: OwnerRoleHost, owner: VolumeOwner): HandOvers {
  return new HandOvers({
    nodes: client.info.nodes,
    role: () => owner.role,
    owner: () => owner.owner,
    why,
    noQuorum: () => (client.view.quorate ? null : noQuorumWords(client.view)),
    isDevice: options.lower.kind === "device",
    otherMounters: () => owner.otherMounters(),
    askOwner: ({ epoch, heir }) => {
      if (ownCalls.remote === null) return Promise.reject(new Error("this mount has no connection to it"));
      return ownCalls.remote.handOver(epoch, heir);
    },
    busy: () => growthUnderWay(service.growth) ?? service.keepsForOthers,
    keepNothingMore: () => service.keepNothingMore(),
    give: (heir) => void service.give(heir),
    nowMs: () => performance.now(),
  });
}

function createPreferredMove({ options, client, isWell }: OwnerRoleHost, owner: VolumeOwner, handOvers: HandOvers): PreferredMove {
  const { nodeid, preferredOwners } = client.info;
  return new PreferredMove({
    nodeid,
    // A directory is one node's; and a device that is read-only here would be so for all.
    preferred: options.lower.kind === "device" && !options.readOnly ? preferredOwners : [],
    situation: () => ({
      owner: owner.owner,
      viewId: client.view.viewId,
      isWell: client.view.quorate && client.view.running && owner.reachesDevice && isWell(),
    }),
    otherMounters: () => owner.otherMounters(),
    request: () => handOvers.request(nodeid),
    log: options.log,
    nowMs: () => performance.now(),
  });
}
