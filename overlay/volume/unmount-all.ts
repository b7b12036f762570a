/**
 * `umount --all`: what one dlmd serves on this machine is unmounted and released, before that dlmd stops. Independent places go side by side: one that is
 * slow takes no time from the others. What fails at one place is told, and keeps no other.
 */
import { type MountEntry, mountTable } from "../../dlmd/base/mount-table.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountRecord, type RecordFile, isOfRunDir, isServing, mountRecordFiles, readMountRecord } from "./mount-record.ts";
import { type Waiter, endWaiter, waiterFiles } from "./mount-waiter.ts";

export interface UnmountAllPort {
  readonly table: () => readonly MountEntry[];
  readonly records: () => readonly RecordFile<MountRecord>[];
  readonly waiters: () => readonly RecordFile<Waiter>[];
  readonly endWaiter: (waiter: Waiter) => Promise<Waiter | null>;
  /** What is mounted at that place, and its release. False: it could not be, which was told. */
  readonly unmount: (mountPoint: string) => Promise<boolean>;
  /** Of an overlay that is mounted here no more; null: not to be waited for. */
  readonly waitForRelease: ((mount: Pick<MountEntry, "mountPoint" | "device">, record: MountRecord) => Promise<void>) | null;
  readonly tell: (line: string) => void;
}

/** Those of this machine. */
export const machinePort: Pick<UnmountAllPort, "table" | "records" | "waiters" | "endWaiter"> = {
  table: mountTable,
  records: mountRecordFiles,
  waiters: waiterFiles,
  endWaiter: (waiter) => endWaiter(waiter.mountPoint),
};

export function waiterWords({ pid, source, mountPoint }: Waiter): string {
  return `process ${pid} waited in the background to mount ${source} at ${mountPoint}: it has ended`;
}

/** Whether an overlay of the dlmd of that run directory serves that mount. */
export function isServedOf({ type, device }: MountEntry, runDir: string): boolean {
  const record = type === "fuse.clustered" ? readMountRecord(device) : null;
  return record !== null && isOfRunDir(record, runDir) && isServing(record);
}

/** A mount that is paused has let go of its dlmd, which is restarted for it (hazard F35). */
function needsDlmd(record: MountRecord, runDir: string): boolean {
  return isOfRunDir(record, runDir) && isServing(record) && record.paused !== true;
}

export function pausedWords({ mountPoint, pid }: MountRecord): string {
  return `${mountPoint} stays: its process ${pid} waits for dlmd to be restarted`;
}

/** Resolves with what is left: mount points, and files that are damaged. */
export async function unmountAll(runDir: string, port: UnmountAllPort): Promise<string[]> {
  const left = new Set<string>();
  const tried = new Set<string>();
  const attempt = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      port.tell(error instanceof OperatingError ? `${error.message}\n  ${error.hint}` : `${name}: ${String(error)}`);
      left.add(name);
    }
  };
  const unmountPlaces = async (): Promise<void> => {
    const places = servedPlaces(runDir, port).filter((place) => !tried.has(place));
    for (const place of places) tried.add(place);
    await innerFirst(places, (place) =>
      attempt(place, async () => {
        if (!(await port.unmount(place))) left.add(place);
      }),
    );
  };
  for (const { record } of port.records())
    if (record?.paused === true && isOfRunDir(record, runDir) && isServing(record)) port.tell(pausedWords(record));
  const waiters = wholeOf(port.waiters(), left, port.tell).filter(({ record }) => isOfRunDir(record, runDir));
  const end = async (waiter: Waiter): Promise<void> => {
    const ended = await port.endWaiter(waiter);
    if (ended !== null) port.tell(waiterWords(ended));
  };
  await Promise.all([unmountPlaces(), ...waiters.map(({ record }) => attempt(record.mountPoint, () => end(record)))]);
  // A waiter may have mounted at the last moment.
  await unmountPlaces();
  const overlays = wholeOf(port.records(), left, port.tell).filter(({ record }) => needsDlmd(record, runDir));
  await Promise.all(overlays.map(({ name, record }) => attempt(record.mountPoint, () => release(name, record, left, port))));
  return [...left];
}

function servedPlaces(runDir: string, { table, records }: UnmountAllPort): string[] {
  const served = new Set(records().flatMap(({ name, record }) => (record !== null && needsDlmd(record, runDir) ? [name] : [])));
  return [
    ...new Set(table().flatMap(({ device, type, mountPoint }) => (type === "fuse.clustered" && served.has(device) ? [mountPoint] : []))),
  ];
}

/** Runs `work` for all places at once, but for one only after those below it. */
async function innerFirst(places: readonly string[], work: (place: string) => Promise<void>): Promise<void> {
  const begun = new Map<string, Promise<void>>();
  const begin = (place: string): Promise<void> => {
    const known = begun.get(place);
    if (known !== undefined) return known;
    const below = places.filter((other) => other !== place && other.startsWith(place === "/" ? "/" : `${place}/`));
    const running = Promise.all(below.map(begin)).then(() => work(place));
    begun.set(place, running);
    return running;
  };
  await Promise.all(places.map(begin));
}

/** After `umount -l`, or a mount in another namespace, an overlay is in no table of ours and runs on. */
async function release(
  device: string,
  record: MountRecord,
  left: Set<string>,
  { table, waitForRelease, tell }: UnmountAllPort,
): Promise<void> {
  const { mountPoint, pid, source } = record;
  const mounted = table().find((entry) => entry.device === device);
  if (mounted === undefined) {
    // That of a place which was waited for already.
    if (left.has(mountPoint) || waitForRelease === null) return;
    tell(`${mountPoint} is not mounted here, but its overlay (process ${pid}) has not released ${source} yet: it is waited for`);
    return waitForRelease({ mountPoint, device }, record);
  }
  if (!left.has(mounted.mountPoint)) tell(`${mounted.mountPoint} is still mounted, served by process ${pid}`);
  left.add(mounted.mountPoint);
}

function wholeOf<T>(
  files: readonly RecordFile<T>[],
  left: Set<string>,
  tell: (line: string) => void,
): { readonly name: string; readonly record: T }[] {
  return files.flatMap(({ file, name, record }) => {
    if (record !== null) return [{ name, record }];
    tell(
      `${file} is damaged: the process that it names is not known\n  If no volume is mounted here, and no mount is waited for, remove the file.`,
    );
    left.add(file);
    return [];
  });
}
