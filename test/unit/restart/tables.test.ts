/** The tables of a mount as one process gives them and the next one takes them. */
import { expect, it } from "vitest";
import type { FileLockRow } from "../../../overlay/file-lock/api.ts";
import { decodeState, encodeState } from "../../../overlay/restart/state.ts";
import { negotiatedOf, restoreTables, stateOf } from "../../../overlay/restart/tables.ts";
import { Workbench } from "../op/workbench.ts";
import { someState } from "./some-state.ts";

function given(bench: Workbench, fileLocks: readonly FileLockRow[]): ReturnType<typeof stateOf> {
  return stateOf({
    handOff: { mount: bench.mount, negotiated: negotiatedOf(someState()), held: [] },
    connection: 41,
    ownerEpoch: 3,
    open: {
      files: bench.mount.handles
        .all()
        .files.map(({ lowerHandle, inode }) => ({ handle: lowerHandle, id: inode.id, flags: 0, directory: false, lossesTold: 0 })),
      unsynced: { changed: [], lost: [], deaths: 0, syncfsFails: false, tick: 0 },
    },
    lates: [],
    fileLocks,
    hasOwned: false,
    shared: [bench.file.fuseNodeid],
  });
}

const owner = { kind: "posix", owner: 2n ** 64n - 1n } as const;
const held = [{ owner, range: { type: "write", start: 5n, end: 2n ** 63n - 1n }, pid: 78, heldMs: 12 }] as const;

it("file locks come through as they were, and each close(2) of their files is asked for again", () => {
  const old = new Workbench();
  const { fh } = old.openFile(false);
  const rows = [{ file: `f${old.file.cover.key}`, shared: true, held, users: [{ owner, handles: [fh] }] }];
  const state = given(old, rows);
  if (state === null) throw new Error("no state");

  const next = new Workbench();
  next.inodes.forget(next.file.fuseNodeid, 1);
  const asked: number[] = [];
  const mount = { ...next.mount, askFlush: ({ fuseNodeid }: { readonly fuseNodeid: number }): void => void asked.push(fuseNodeid) };
  expect(restoreTables(mount, decodeState(encodeState(state))).fileLocks).toEqual(rows);
  expect(asked).toEqual([old.file.fuseNodeid]);
});

it("a lock of a file that nobody has open is no state to go on with", () => {
  expect(() => given(new Workbench(), [{ file: "f77.1", shared: false, held, users: [] }])).toThrow(
    "f77.1 is locked, and nobody has it open",
  );
});
