/**
 * A real mount of the whole session and op layer over the local lower and a temporary directory, with the permissive coherence double.
 * `node solo-mount.ts DIR MOUNTPOINT [entry-validity] [inline|pool]` serves until it is unmounted; children of tests and the bench use it.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { silentLog, type Log } from "../../../dlmd/base/log.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import { nativeAddon } from "../../../native/index.ts";
import { mountSession, type Session } from "../../../overlay/session/mount-session.ts";
import { runningSystem } from "../../../overlay/session/system.ts";
import { PermissiveCoherence } from "./permissive-coherence.ts";

const O_DIRECTORY = 0o200000;
const MNT_DETACH = 2;

export interface SoloMount {
  readonly mountpoint: string;
  readonly lowerDir: string;
  readonly session: Session;
  readonly lower: LocalLower;
  readonly coherence: PermissiveCoherence;
  readonly errors: { readonly fields: Readonly<Record<string, unknown>>; readonly message: string }[];
  /** Ends the mount whatever state it is in, and removes the directories if they were made here. */
  stop(): Promise<void>;
}

/** Everything that was opened is closed (RELEASE comes after close(2) has returned), what was pinned is unpinned, and nothing went wrong. */
export async function settled(solo: SoloMount): Promise<void> {
  const { session, coherence, errors } = solo;
  const deadline = Date.now() + 10_000;
  while (session.handleCount > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  const left = { handles: session.handleCount, pins: coherence.pins, tokens: coherence.tokens, bugs: session.counters.bugs };
  if (Object.values(left).some((count) => count !== 0) || errors.length > 0) {
    throw new Error(`nothing left expected, found ${JSON.stringify({ ...left, errors })}`);
  }
}

export interface SoloOptions {
  readonly entryValidity: boolean;
  readonly metadataCalls: "inline" | "pool";
  readonly lowerDir?: string;
  readonly mountpoint?: string;
}

export async function startSolo(options: SoloOptions): Promise<SoloMount> {
  const native = nativeAddon();
  const base = options.lowerDir === undefined ? mkdtempSync(path.join(tmpdir(), "coverlay-solo-")) : null;
  const lowerDir = options.lowerDir ?? path.join(base ?? "", "lower");
  const mountpoint = options.mountpoint ?? path.join(base ?? "", "mnt");
  mkdirSync(lowerDir, { recursive: true });
  mkdirSync(mountpoint, { recursive: true });
  const errors: SoloMount["errors"] = [];
  const log: Log = {
    ...silentLog,
    warn: (fields, message) => errors.push({ fields, message }),
    error: (fields, message) => errors.push({ fields, message }),
  };
  const rootFd = native.open(lowerDir, O_DIRECTORY, 0);
  const lower = createLocalLower({ native, rootFd, metadataCalls: options.metadataCalls, log });
  const coherence = new PermissiveCoherence(options.entryValidity);
  const session = await mountSession({
    native,
    lower,
    system: runningSystem,
    log,
    source: "/dev/solo",
    mountpoint,
    mountFlags: 0,
    createCoherence: () => coherence,
    fail: (error) => errors.push({ fields: { error: error.stack }, message: "fail" }),
  });
  return {
    mountpoint,
    lowerDir,
    session,
    lower,
    coherence,
    errors,
    async stop() {
      native.umount(mountpoint, MNT_DETACH);
      // Whoever still holds a file of it open would keep it alive.
      const patience = setTimeout(() => session.abort(), 1000);
      await session.ended;
      clearTimeout(patience);
      await lower.shutdown();
      native.sync.close(rootFd);
      if (base !== null) rmSync(base, { recursive: true, force: true });
    },
  };
}

if (process.argv[1] !== undefined && path.basename(process.argv[1]).startsWith("solo-mount.")) {
  const [lowerDir, mountpoint, validity = "valid", calls = "inline"] = process.argv.slice(2);
  if (lowerDir === undefined || mountpoint === undefined) throw new Error("usage: solo-mount DIR MOUNTPOINT [valid|none] [inline|pool]");
  const solo = await startSolo({
    lowerDir,
    mountpoint,
    entryValidity: validity === "valid",
    metadataCalls: calls === "pool" ? "pool" : "inline",
  });
  process.stdout.write("ready\n");
  await solo.session.ended;
  await solo.lower.shutdown();
  for (const error of solo.errors) process.stderr.write(`${JSON.stringify(error)}\n`);
  process.stdout.write(`ended ${JSON.stringify({ ...solo.session.counters, pins: solo.coherence.pins, tokens: solo.coherence.tokens })}\n`);
}
