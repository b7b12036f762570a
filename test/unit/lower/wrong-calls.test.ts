/**
 * Calls of a caller that went mad: each decodes, and asks for what none of ours asks. They are made or refused with an errno. Anything else is a
 * fault of the owner's, which takes it out. More with COVERLAY_FUZZ_CALLS.
 */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { type Codec, encodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import type { CallName } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { ServerSession } from "../../../overlay/lower/server/session.ts";
import { type Random, seededRandom } from "../../seeded-random.ts";
import { SAMPLES } from "../../vector/lower/samples.ts";
import { caller, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const CALLS_MADE = Number(process.env["COVERLAY_FUZZ_CALLS"] ?? 4000);
const SEED = Number(process.env["COVERLAY_FUZZ_SEED"] ?? 1);

/** Those of the owner itself are not of a lower. */
const OF_THE_OWNER: ReadonlySet<CallName> = new Set(["handOver", "deposit", "kept", "collect", "outcomes", "claimed"]);
const calls = (Object.keys(CALLS) as CallName[]).filter((call) => !OF_THE_OWNER.has(call));

const WORDS = [
  "f",
  "d",
  "l",
  "p",
  "new",
  "other",
  "n1",
  "n2",
  "n3",
  "n4",
  "n5",
  ".",
  "..",
  "",
  "a/b",
  "a\0b",
  ".coverlay.orphans",
  "x".repeat(255),
  "x".repeat(256),
];
const XATTRS = ["user.a", "user.", "user", "security.x", "trusted.x", "system.posix_acl_access", "user.a\0b", ""];
const NUMBERS = [0, 1, 2, 3, 5, 0o777, 4095, 4096, 65_536, 2 ** 20, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const LARGE = [...NUMBERS, 2 ** 40, 2 ** 52, Number.MAX_SAFE_INTEGER];

/** As the sample, each field another one of its kind. Inodes are those of the place: any other one may be of this machine. */
function drawn(random: Random, sample: unknown, ids: readonly FileId[], key = ""): unknown {
  const of = <T>(some: readonly T[]): T => some[random.below(some.length)] as T;
  if (random.below(8) === 0 && key === "handle") return random.below(2) === 0 ? 99 : 2 ** 32 - 1;
  if (key === "ino") return of(ids).ino;
  if (sample === undefined) return undefined;
  if (key === "expectedNew" || key === "tell" || key === "open") {
    if (typeof sample === "boolean") return random.below(2) === 0;
    if (random.below(2) === 0) return null;
  }
  if (key === "name" && (sample as Buffer).toString("latin1").includes(".")) return name(of(XATTRS));
  if (sample instanceof Uint8Array) {
    if (key === "data") return new Uint8Array(random.below(9000));
    if (key === "value") return Buffer.alloc(of([0, 1, 4, 28, 200]));
    return name(of(WORDS));
  }
  if (Array.isArray(sample)) return Array.from({ length: random.below(6) }, () => drawn(random, sample[0], ids));
  if (typeof sample === "boolean") return random.below(2) === 0;
  if (typeof sample === "bigint") return of([0n, 1n, 2n ** 31n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]);
  if (typeof sample === "number") {
    if (key.toLowerCase().includes("handle")) return random.below(7);
    if (key === "offset" || key === "size" || key === "inOffset" || key === "outOffset" || key === "since") return of(LARGE);
    if (key === "sec") return of([...LARGE, -1, -(2 ** 40), -Number.MAX_SAFE_INTEGER]);
    if (key === "nsec") return random.below(1_000_000_000);
    // More would be taken from the machine's disk.
    if (key === "bytes") return of(NUMBERS.filter((bytes) => bytes <= 2 ** 20));
    if (key === "uid" || key === "gid") return of([0, 0, 0, 1000, 2 ** 32 - 1]);
    if (key === "umask") return 0o022;
    if (key === "flags") return of([0, 0, 1, 2, 4, random.below(2 ** 32)]);
    if (key === "mode") return of([0o100644, 0o040755, 0o010600, 0o140600, 0, 3, random.below(2 ** 32)]);
    return random.below(3) === 0 ? random.below(2 ** 32) : of(NUMBERS);
  }
  if (typeof sample === "string") return sample;
  if (sample === null) return null;
  const fields = Object.entries(sample);
  if (fields.length === 2 && fields.some(([field]) => field === "ino")) {
    const id = of(key.toLowerCase().endsWith("parent") && random.below(4) > 0 ? ids.filter((_, at) => at % 2 === 0) : ids);
    return random.below(6) === 0 ? { ...id, generation: (id.generation + 1) >>> 0 } : id;
  }
  const all = fields.map(([field, value]) => [field, drawn(random, value, ids, field)] as const);
  return Object.fromEntries(key === "change" ? all.filter(() => random.below(2) === 0) : all);
}

it("calls that ask for what none of ours asks end with an answer or an errno, each once, and leave nothing open", async () => {
  const { lower } = await lab.owner();
  await lower.openOrphans(false);
  await lower.recoverOrphans();
  const { root } = lower;
  const random = seededRandom(SEED);
  const faults: unknown[] = [];
  const session = new ServerSession(
    { nodeid: 2, incarnation: "i1", clientId: 5, ownerEpoch: 1 },
    lower,
    { ...silentLog, error: (fields) => void faults.push(fields) },
    () => undefined,
    () => Promise.reject(new Error("not asked for")),
  );
  const answers = new Map<number, number>();
  let waiting = 0;
  const failed = new Map<CallName, number>();
  const made = new Map<CallName, number>();
  const asked: CallName[] = [];
  session.sink = {
    answer(type, id) {
      answers.set(id, (answers.get(id) ?? 0) + 1);
      waiting -= 1;
      const call = asked[id];
      const counts = type === FrameType.FAILED ? failed : made;
      if (call !== undefined) counts.set(call, (counts.get(call) ?? 0) + 1);
    },
    isFull: false,
    resume: () => undefined,
  };
  const file = await lower.create(root, name("f"), RDWR, 0o644, caller);
  lower.close(file.handle);
  const directory = await lower.mkdir(root, name("d"), 0o755, caller);
  const link = await lower.symlink(root, name("l"), name("f"), caller);
  const pipe = await lower.mknod(root, name("p"), 0o010644, 0, 0, caller);
  // Directories are the even ones.
  const ids = [root, file.entry.id, directory.id, link.id, root, pipe.id];
  for (let id = 0; id < CALLS_MADE; id++) {
    const call = calls[random.below(calls.length)] as CallName;
    const request = drawn(random, SAMPLES[call].request, ids);
    const { request: codec } = CALLS[call] as unknown as { request: Codec<unknown> };
    const body = Buffer.concat([encodeWith(codec, request), codec.data?.(request) ?? new Uint8Array(0)]);
    asked[id] = call;
    waiting += 1;
    try {
      session.receive(call, id, body);
    } catch (error) {
      throw new Error(`${call} ${JSON.stringify(request, (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value))}`, {
        cause: error,
      });
    }
    if (random.below(4) === 0) await until(() => waiting === 0);
    if (random.below(16) === 0) session.acknowledge(Array.from({ length: id }, (_, at) => at));
  }
  await until(() => waiting === 0);
  expect(faults).toEqual([]);
  expect(new Set(answers.values())).toEqual(new Set([1]));
  expect(calls.filter((call) => (made.get(call) ?? 0) + (failed.get(call) ?? 0) === 0)).toEqual([]);
  await session.close();
  expect([session.runningCalls, lower.openHandles]).toEqual([0, 0]);
}, 60_000);
