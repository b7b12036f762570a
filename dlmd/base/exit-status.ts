/**
 * The exit statuses of every program of ours: one table, which commands use and the man pages print. 8 and 32 are those of mount(8) for one that
 * was interrupted, and one that failed; 70 and 74 are EX_SOFTWARE and EX_IOERR of sysexits(3).
 */

export const EXIT = { OK: 0, FAILURE: 1, INTERRUPTED: 8, MOUNT: 32, FATAL: 70, UNKEPT: 74 } as const;

/** coverlay: every command; mount: /sbin/mount.clustered and `coverlay mount`; serve: the process behind a mount. */
export type ExitingProgram = "coverlay" | "mount" | "serve" | "dlmd";

export interface ExitMeaning {
  readonly status: (typeof EXIT)[keyof typeof EXIT];
  /** Of the programs that end with it: what it says. */
  readonly meaning: Readonly<Partial<Record<ExitingProgram, string>>>;
}

export const exitMeanings: readonly ExitMeaning[] = [
  {
    status: EXIT.OK,
    meaning: {
      coverlay: "done",
      mount: "mounted, or remounted",
      serve: "unmounted",
      dlmd: "it has left the cluster, after SIGTERM or SIGINT",
    },
  },
  {
    status: EXIT.FAILURE,
    meaning: {
      coverlay: "it failed, or the command line is wrong; of a command that looks for something: there is none",
      mount: "the command line is wrong, or the caller is not root",
      dlmd: "it could not start, or a second signal came before it had left",
    },
  },
  {
    status: EXIT.INTERRUPTED,
    meaning: {
      coverlay: "a signal came before it was done; the words say what goes on",
      mount: "a signal came before the mount was there; nothing is left of it",
    },
  },
  {
    status: EXIT.MOUNT,
    meaning: {
      coverlay: "a mount, an unmount or a change of a volume was refused",
      mount: "the mount was refused; the words say why, and what to do",
      serve: "the mount did not come to be",
    },
  },
  { status: EXIT.FATAL, meaning: { serve: "it no longer knew what it held", dlmd: "it gave up: it no longer knew what this node held" } },
  { status: EXIT.UNKEPT, meaning: { dlmd: "a disk cannot keep what this node must know" } },
];
