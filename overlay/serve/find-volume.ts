/** The volume of a device in the cluster's configuration. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { DlmClient, VolumeConfig } from "../../dlmd/client/api.ts";
import type { Bit } from "../volume/bit.ts";

/** Throws OperatingError if the cluster has no such volume, or the device says that it is another cluster's. */
export function findVolume(client: DlmClient, bit: Bit): VolumeConfig {
  const volume = client.info.volumes.find((one) => one.uuid === bit.uuid);
  if (volume !== undefined && bit.cluster === client.info.clusterName) return volume;
  throw new OperatingError(`the volume ${bit.uuid} of cluster ${bit.cluster} is not one of cluster ${client.info.clusterName}`, {
    code: volume === undefined ? "unknown-volume" : "wrong-cluster",
    hint: "Add it to volumes in cluster.yaml, or see what the device carries with coverlay volume show.",
    exitStatus: 32,
  });
}
