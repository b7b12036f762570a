/** A node of the model: its coherence rules' state for the one file, and its kernel: a page, whose folio requests lock. */
import { Cover, type Inode } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";

interface PageRequest {
  readonly write: boolean;
  readonly cached: boolean;
}

export interface ModelNode {
  readonly id: number;
  readonly state: CoherenceState;
  readonly cover: Cover;
  /** Version in the page cache; null: nothing cached. */
  page: number | null;
  /** The folio is locked by this request. */
  folio: PageRequest | null;
  /** Processes waiting in the kernel for the folio lock. */
  folioWaiters: (() => void)[];
  /** What was fetched before anybody asked, and the hold of PR then. */
  ahead: { readonly hold: number; readonly version: number } | null;
  operations: number;
  performing: boolean;
}

export function createModelNode(id: number): ModelNode {
  const cover = new Cover({ ino: 12, generation: 1 }, "file");
  const inode: Inode = {
    fuseNodeid: 2,
    id: cover.id,
    kind: "file",
    nlookup: 1,
    openCount: 1,
    mappableCount: 0,
    cover,
  };
  cover.inode = inode;
  return {
    id,
    state: new CoherenceState(),
    cover,
    page: null,
    folio: null,
    folioWaiters: [],
    ahead: null,
    operations: 0,
    performing: false,
  };
}
