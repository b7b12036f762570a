/** A mount that comes to rest as it is told to, and what was done to it. */
import { silentLog } from "../../../dlmd/base/log.ts";
import type { GiveHost } from "../../../overlay/restart/give.ts";
import { negotiatedOf } from "../../../overlay/restart/tables.ts";
import { Workbench } from "../op/workbench.ts";
import { someState } from "./some-state.ts";

export function resting(): {
  host: GiveHost;
  log: string[];
  rig: { locksRest: boolean; yields: number; rests: boolean; refusal: string | null; running: number; held: Buffer[]; epoch: number };
} {
  const log: string[] = [];
  const note = (what: string) => (): void => void log.push(what);
  const rig = { locksRest: true, yields: 0, rests: true, refusal: null as string | null, running: 0, held: [] as Buffer[], epoch: 3 };
  const bench = new Workbench();
  const { mount } = bench;
  bench.file.nlookup = 1;
  const host: GiveHost = {
    log: silentLog,
    connection: 41,
    handOff: {
      fd: -1,
      mount,
      negotiated: negotiatedOf(someState()),
      get running() {
        return rig.running;
      },
      get held() {
        return rig.held;
      },
      get heldBytes() {
        return rig.held.reduce((sum, { length }) => sum + length, 0);
      },
      // Once counts.
      hold: () => (log.includes("hold") ? undefined : void log.push("hold")),
      passHeld: () => undefined,
      leave: note("leave"),
      left: 0,
      stop: note("stop"),
      goOn: note("go on"),
      begin: () => undefined,
      given: () => Promise.resolve(),
    },
    refusal: () => rig.refusal,
    ownerEpoch: () => rig.epoch,
    openAtOwner: () => ({ files: [], unsynced: { changed: [], lost: [], deaths: 0, syncfsFails: false, tick: 0 } }),
    fileLocksRest: () => rig.locksRest,
    yieldFileLocks: () => void (rig.yields += 1),
    rest: () => rig.rests,
    restEnds: note("rest ends"),
    restless: () => [],
    rules: { mayHavePages: () => false, isOwn: () => false },
    giveLocks: note("locks"),
    fileLocks: () => [],
    lates: () => [{ fuseNodeid: bench.file.fuseNodeid, effect: "misplaced", tid: 7, end: 0x5a00_0000_0000_0000 }],
    shared: () => [],
    hasOwned: () => true,
    leaveStatus: note("leave status"),
    fail: note("fail"),
    given: note("given"),
  };
  return { host, log, rig };
}
