/** Hazard R21: what other programs change in a lower directory, past the mount. */
import type { Mutation } from "./mutation.ts";

export const overlayLocalMutations: readonly Mutation[] = [
  {
    id: "r21-own-is-anothers",
    hazard: "R21",
    breaks: "a write of the owner is told to all nodes as one of another program",
    file: "overlay/local-changes/noted-lower.ts",
    find: '  "write",\n  "fallocate",',
    replace: '  "fallocate",',
    caughtBy: "test/unit/local-changes/noted-lower.test.ts",
  },
  {
    id: "r21-anothers-is-own",
    hazard: "R21",
    breaks: "after a call of the owner all changes of the inode count as its own",
    file: "overlay/local-changes/own-times.ts",
    find: "      time.running -= 1;\n",
    replace: "",
    caughtBy: "test/unit/local-changes/own-times.test.ts",
  },
  {
    id: "r21-births-unknown",
    hazard: "R21",
    breaks: "a file that was made a moment ago is changed, and its maker keeps what it has cached",
    file: "overlay/local-changes/local-changes.ts",
    find: '    for (const id of above.values()) await this.#had(id, "PR");\n',
    replace: "",
    caughtBy: "test/unit/local-changes/local-changes.test.ts",
  },
  {
    id: "r21-old-file-kept",
    hazard: "R21",
    breaks: "a file that has lost a name keeps its number of links elsewhere",
    file: "overlay/local-changes/local-changes.ts",
    find: "    batch.changed.set(fileKey(known), { id: known, changedMs: 0 });\n",
    replace: "",
    caughtBy: "test/unit/local-changes/local-changes.test.ts",
  },
  {
    id: "r21-names-known",
    hazard: "R21",
    breaks: "the owner goes on to know a name that another program has taken away",
    file: "overlay/local-changes/local-changes.ts",
    find: "        if (isOther || isOthersName) this.#ports.forget(directory.id, name);\n",
    replace: "",
    caughtBy: "test/unit/local-changes/local-changes.test.ts",
  },
  {
    id: "r21-new-directory-once",
    hazard: "R21",
    breaks: "what is made in a new directory before it is watched is never told",
    file: "overlay/local-changes/local-changes.ts",
    find: "    this.#timers.add(timer);\n",
    replace: "    clearTimeout(timer);\n",
    caughtBy: "test/unit/local-changes/local-changes.test.ts",
  },
];
