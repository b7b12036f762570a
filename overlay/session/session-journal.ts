/** What a session writes down for a process that goes on after a crash of this one (overlay/crash/). */
import type { HandleJournal } from "../inode/handles.ts";
import type { InodeJournal } from "../inode/table.ts";

export interface SessionJournal extends InodeJournal, HandleJournal {
  /** That request was answered. */
  replied(request: number): void;
  /** Before `replied`: it has asked the owner for a change, whatever became of that. */
  hasChanged(request: number): boolean;
}
