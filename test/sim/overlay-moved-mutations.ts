/** Rules broken on purpose: a directory that another node moved (hazard F46). */
import type { Mutation } from "./mutation.ts";

const MOVED = "test/unit/op/moved-directories.test.ts";
const TOLD = "test/unit/lower/moves.test.ts";

const mutations: readonly Omit<Mutation, "hazard">[] = [
  {
    id: "f46-not-awaited",
    breaks: "`..` goes up from where the directory was",
    file: "overlay/op/attr.ts",
    find: "moved.lastMove(inode) === 0 ? getattrPlaced",
    replace: "moved.lastMove(inode) >= 0 ? getattrPlaced",
    caughtBy: MOVED,
  },
  {
    id: "f46-told-too-late",
    breaks: "a move that is told of between the question and its answer counts for the next question",
    file: "overlay/op/attr.ts",
    find: "if (move !== 0 && move !== waitedFor && waits < WAITS_FOR_PLACE_MAX) return false;",
    replace: "if (move < 0) return false;",
    caughtBy: MOVED,
  },
  {
    id: "f46-waits-pinned",
    breaks: "a thread of our own waits for its own look",
    file: "overlay/op/attr.ts",
    find: "  if (isOnTheWay(mount, call)) {",
    replace: "  if (own) {",
    caughtBy: MOVED,
  },
  {
    id: "f46-valid-elsewhere",
    breaks: "what was told of a directory that this kernel has elsewhere is asked for once, and never again",
    file: "overlay/op/lookup.ts",
    find: "return moved.mayBeElsewhere(inode) ? { ...terms, attrValid: false } : terms;",
    replace: "return moved.mayBeElsewhere(inode) ? { ...terms } : terms;",
    caughtBy: MOVED,
  },
  {
    id: "f46-any-inode-will-do",
    breaks: "a look that found another directory counts",
    file: "overlay/op/moved-directories.ts",
    find: "if (ino === inode.id.ino && this.#moved.get(inode) === move)",
    replace: "if (ino > 0 && this.#moved.get(inode) === move)",
    caughtBy: MOVED,
  },
  {
    id: "f46-moved-meanwhile",
    breaks: "a move during the look is forgotten",
    file: "overlay/op/moved-directories.ts",
    find: "if (ino === inode.id.ino && this.#moved.get(inode) === move)",
    replace: "if (ino === inode.id.ino)",
    caughtBy: MOVED,
  },
  {
    id: "f46-waits-for-ever",
    breaks: "who asks, and has the lock that the look needs, waits for itself",
    file: "overlay/op/moved-directories.ts",
    find: "inTime(this.#look(inode), PLACE_WAIT_MS)",
    replace: "this.#look(inode)",
    caughtBy: MOVED,
  },
  {
    id: "f46-looks-at-once",
    breaks: "each of many moves waits for a look",
    file: "overlay/op/moved-directories.ts",
    find: "    if (this.#timer !== null) clearTimeout(this.#timer);\n    this.#timer = setTimeout",
    replace: "    this.#timer ??= setTimeout",
    caughtBy: MOVED,
  },
  {
    id: "f46-walks-for-ever",
    breaks: "a mount is busy as long as its owner is away",
    file: "overlay/op/moved-directories.ts",
    find: "    setTimeout(end, WALK_ANSWER_MS).unref();",
    replace: "    void end;",
    caughtBy: MOVED,
  },
  {
    id: "f46-walks-in-a-pause",
    breaks: "a look takes a lock that the next process does not know of",
    file: "overlay/op/moved-directories.ts",
    find: "    if (this.#held) throw errnoError(E.EAGAIN);\n",
    replace: "",
    caughtBy: MOVED,
  },
  {
    id: "f46-missed",
    breaks: "what moved while nobody listened is taken for where it was",
    file: "overlay/lower/remote/session.ts",
    find: "    this.#options.moves?.missed();\n",
    replace: "",
    caughtBy: TOLD,
  },
  {
    id: "f46-not-told",
    breaks: "callers are not told of a move",
    file: "overlay/lower/server/server.ts",
    find: "session.say(FrameType.MOVED, 0, body)",
    replace: "void [session, body]",
    caughtBy: TOLD,
  },
  {
    id: "f46-exchanged-with",
    breaks: "of two directories that change places only one counts as moved",
    file: "overlay/lower/local/names.ts",
    find: "if (replaced !== null && (flags & RENAME.EXCHANGE) !== 0) tellMoved(context, replaced);",
    replace: "",
    caughtBy: TOLD,
  },
  {
    id: "f46-killed-mover",
    breaks: "the kernel of a caller that was killed is taken to have moved it",
    file: "overlay/op/rename.ts",
    find: "  if (call.interrupted) return;\n  for (const inode of inodes) mount.moved.isPlaced(inode);",
    replace: "  for (const inode of inodes) mount.moved.isPlaced(inode);\n  if (call.interrupted) return;",
    caughtBy: MOVED,
  },
];

export const overlayMovedMutations: readonly Mutation[] = mutations.map((mutation) => ({ ...mutation, hazard: "F46" }));
