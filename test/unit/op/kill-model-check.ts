/**
 * Does an order explain all answers and what the lower has in the end? Each request is one or more steps. One that was answered makes all of them between its
 * question and its answer. One of a killed caller makes some of the first ones or none; and none after a change of the same inode that was asked for later than its
 * EINTR and answered (hazard F50). A search over all orders.
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { AttrChange } from "../../../overlay/lower/lower.ts";
import type { Asked } from "./kill-model-kernel.ts";
import { inoMadeFor, SETGID_GROUP } from "./kill-model-lower.ts";
import { applied, isGone, keyOf, type ModelInode, modelInode, type Place, type State, type Step } from "./kill-model-state.ts";

/** What the state may be afterwards; none: not here. */
type Explained = (state: State) => readonly State[];

interface Operation {
  readonly asked: Asked;
  readonly steps: readonly Explained[];
  /** What it changes, or would have. */
  readonly inos: readonly number[];
  /** It was answered that it has changed something. */
  readonly changes: boolean;
}

const RENAME_EXCHANGE = 2;
const MODE_AT = 60;
const SIZE_AT = 8;
const UID_AT = 68;
const ATTR_OUT_AT = 16;
const ENTRY_INO_AT = 40;

const making = (step: Step): Explained => {
  return (state) => {
    const after = applied(state, step);
    return typeof after === "number" ? [] : [after];
  };
};
const where = (holds: (state: State) => boolean): Explained => {
  return (state) => (holds(state) ? [state] : []);
};
const text = (value: unknown): string => Buffer.from((value ?? []) as Uint8Array).toString("latin1");

/** Of an answer with success, or of a killed caller's. `answer`: null: killed. */
function succeeded(asked: Asked): Pick<Operation, "steps" | "inos"> {
  const { request, inos, uid, unique } = asked;
  const body = asked.killed ? null : (asked.answer?.body ?? null);
  const ino = inos["fuseNodeid"] as number;
  const at = (dir: number | undefined, name: unknown): Place => ({ dir: dir as number, name: text(name) });
  const place = at(ino, request["name"]);
  const of = (state: State): ModelInode => state[ino] as ModelInode;
  const owned = (step: Step): Explained => {
    return (state) => (uid !== 0 && of(state).uid !== uid ? [] : making(step)(state));
  };
  const clear = (of: number): Explained[] => (uid === 0 ? [] : [making({ do: "kill", ino: of })]);
  /** Bits that may have died with an owner. */
  const again = (of: number): Explained[] => clear(of).map((cleared) => (state) => [state, ...cleared(state)]);
  switch (request.op) {
    case "lookup": {
      const found = body === null || body.length === 0 ? 0 : Number(body.readBigUInt64LE(ENTRY_INO_AT));
      return { inos: [], steps: [where((state) => (of(state).names[place.name] ?? 0) === found)] };
    }
    case "getattr": {
      const attr = (body ?? Buffer.alloc(200)).subarray(ATTR_OUT_AT);
      const [size, mode, owner] = [Number(attr.readBigUInt64LE(SIZE_AT)), attr.readUInt32LE(MODE_AT) & 0o7777, attr.readUInt32LE(UID_AT)];
      return { inos: [], steps: [where((state) => of(state).bytes.length === size && of(state).mode === mode && of(state).uid === owner)] };
    }
    case "read": {
      const [offset, size] = [request["offset"] as number, request["size"] as number];
      return { inos: [], steps: [where((state) => of(state).bytes.slice(offset, offset + size) === text(body))] };
    }
    case "getxattr":
      return { inos: [], steps: [where((state) => of(state).xattrs[place.name] === text(body))] };
    case "write": {
      const [offset, data] = [request["offset"] as number, text(request["data"])];
      if (request["fromCache"] === true) return { inos: [ino], steps: [writtenBack(ino, offset, data)] };
      const append = ((request["flags"] as number) & 0o2000) !== 0;
      const made = making(append ? { do: "append", ino, data } : { do: "write", ino, offset, data });
      return { inos: [ino], steps: [...clear(ino), made, ...again(ino)] };
    }
    case "setattr": {
      const { size, mode, uid: owner, gid } = request["change"] as AttrChange;
      if (size !== undefined) return { inos: [ino], steps: [making({ do: "truncate", ino, size }), ...clear(ino)] };
      if (mode !== undefined) return { inos: [ino], steps: [owned({ do: "chmod", ino, mode })] };
      return { inos: [ino], steps: [making({ do: "chown", ino, uid: owner as number, gid: gid as number })] };
    }
    case "fallocate": {
      const [offset, bytes] = [request["offset"] as number, request["length"] as number];
      const made = making({ do: request["mode"] === 0 ? "allocate" : "punch", ino, offset, bytes });
      return { inos: [ino], steps: [...clear(ino), made, ...again(ino)] };
    }
    case "copyFileRange": {
      const [to, offset, bytes] = [inos["outFuseNodeid"] as number, request["offset"] as number, request["length"] as number];
      const copied = body === null ? null : body.readUInt32LE(0);
      const copy = making({ do: "copy", from: ino, offset, ino: to, to: request["outOffset"] as number, bytes });
      const all: Explained = (state) =>
        copied !== null && of(state).bytes.slice(offset, offset + bytes).length !== copied ? [] : copy(state);
      // Where there is nothing to copy, nothing is cleared; but the source may have been cut since that was looked at, and holds no lock.
      return { inos: [to], steps: copied === 0 ? [...again(to), all] : [...clear(to), all, ...again(to)] };
    }
    case "setxattr": {
      const set = { do: "setxattr", ino, name: place.name, value: text(request["value"]) } as const;
      if (request["aclKillSgid"] !== true) return { inos: [ino], steps: [making(set)] };
      return { inos: [ino], steps: [owned(set), making({ do: "unsetgid", ino })] };
    }
    case "removexattr":
      return { inos: [ino], steps: [making({ do: "removexattr", ino, name: place.name })] };
    case "ioctl":
      return { inos: [ino], steps: [owned({ do: "flags", ino, flags: (request["value"] as Buffer).readUInt32LE(0) })] };
    case "create":
    case "mkdir": {
      const made = inoMadeFor(unique);
      const mode = request["mode"] as number;
      const inode = modelInode(request.op === "mkdir", mode & ~0o2000, uid, SETGID_GROUP);
      const restored = request.op === "create" && (mode & 0o2000) !== 0;
      const steps = [making({ do: "make", at: place, ino: made, inode })];
      // Found to be there, twice (hazard F12).
      const found = body === null ? made : Number(body.readBigUInt64LE(ENTRY_INO_AT));
      if (found !== made) return { inos: [], steps: [where((state) => of(state).names[place.name] === found)] };
      return { inos: [ino, made], steps: restored ? [...steps, making({ do: "setgid", ino: made })] : steps };
    }
    case "unlink":
    case "rmdir":
      return {
        inos: [ino, inos["victimNodeid"] as number],
        steps: [making({ do: "remove", at: place, directory: request.op === "rmdir" })],
      };
    case "link": {
      const target = inos["targetFuseNodeid"] as number;
      return { inos: [ino, target], steps: [making({ do: "link", at: place, ino: target })] };
    }
    case "rename": {
      const to = at(inos["newFuseNodeid"], request["newName"]);
      const touched = [ino, to.dir, inos["victimNodeid"] as number, inos["replacedNodeid"] as number];
      return { inos: touched, steps: [making({ do: "rename", from: place, to, exchange: request["flags"] === RENAME_EXCHANGE })] };
    }
    case "elsewhere": {
      const step = request["step"] as Step;
      return { inos: "at" in step ? [step.at.dir] : "ino" in step ? [step.ino] : [], steps: [making(step)] };
    }
    default:
      throw new Error(`what ${request.op} does is not known to the model`);
  }
}

/** It never extends the file, which may have been shorter when that was looked at. */
function writtenBack(ino: number, offset: number, data: string): Explained {
  return (state) => {
    const { bytes } = state[ino] as ModelInode;
    const parts = Array.from(data.slice(0, Math.max(0, bytes.length - offset)), (_, at) => data.slice(0, at + 1));
    return [state, ...parts.flatMap((part) => making({ do: "write", ino, offset, data: part })(state))];
  };
}

/** Changes nothing, and is true at some moment. */
function failed({ request, inos, uid, answer }: Asked): Explained {
  const ino = inos["fuseNodeid"] as number;
  const name = text(request["name"]);
  const errno = answer?.errno ?? 0;
  return where((state) => {
    const inode = state[ino] as ModelInode;
    switch (errno) {
      case E.EACCES:
        return state[inode.names[name] ?? 0]?.uid !== uid;
      case E.EPERM:
        return inode.uid !== uid;
      case E.ENODATA:
        return inode.xattrs[name] === undefined;
      case E.EEXIST:
        return inode.names[name] !== undefined;
      case E.ENOTEMPTY:
        return Object.keys(state[inode.names[name] ?? 0]?.names ?? {}).length > 0;
      case E.ENOENT:
        return hasNone(state, request, inos, name);
      case E.ESTALE:
      case E.ENOSPC:
      case E.EIO:
        return true;
      default:
        return false;
    }
  });
}

function hasNone(state: State, request: Asked["request"], inos: Asked["inos"], name: string): boolean {
  const { op } = request;
  const ino = inos["fuseNodeid"] as number;
  const newDir = inos["newFuseNodeid"] ?? ino;
  if (isGone(state, ino) || isGone(state, newDir)) return true;
  if (op === "rename" && request["flags"] === RENAME_EXCHANGE && state[newDir]?.names[text(request["newName"])] === undefined) return true;
  if (op === "link") return isGone(state, inos["targetFuseNodeid"] as number);
  return op !== "create" && op !== "mkdir" && state[ino]?.names[name] === undefined;
}

function operationOf(asked: Asked): Operation {
  if (asked.answer === null) throw new Error(`${asked.request.op} ${asked.unique} has no answer`);
  // What a caller without CAP_FSETID takes away goes first.
  if (!asked.killed && [E.ENOSPC, E.EIO].includes(asked.answer.errno as never)) {
    const { op } = asked.request;
    const { steps, inos } = succeeded({ ...asked, answer: null });
    const first =
      op === "write" || op === "fallocate" || op === "copyFileRange"
        ? asked.uid === 0
          ? 0
          : 1
        : op === "setattr" || op === "create" || op === "setxattr"
          ? steps.length - 1
          : 0;
    const optional = steps.slice(0, first).map(
      (step): Explained =>
        (state) => [state, ...step(state)],
    );
    return { asked, steps: optional, inos, changes: false };
  }
  if (!asked.killed && asked.answer.errno !== 0) return { asked, steps: [failed(asked)], inos: [], changes: false };
  const { steps, inos } = succeeded(asked);
  return { asked, steps, inos, changes: !asked.killed && inos.length > 0 };
}

/** Null: there is an order; else what there is none for. */
export function unexplained(history: readonly Asked[], before: State, after: State): string | null {
  // What a killed caller only looked at tells nothing.
  const operations = history.map(operationOf).filter(({ asked, inos }) => !asked.killed || inos.length > 0);
  const endOf = ({ asked }: Operation): number => asked.end as number;
  const first = operations.map((one) =>
    operations.flatMap((other, at) => (!other.asked.killed && endOf(other) < one.asked.begin ? [at] : [])),
  );
  const stoppedBy = operations.map((one) =>
    one.asked.killed
      ? operations.flatMap((other, at) =>
          other.changes && other.asked.begin > endOf(one) && other.inos.some((ino) => ino !== 0 && one.inos.includes(ino)) ? [at] : [],
        )
      : [],
  );
  const final = keyOf(after);
  const seen = new Set<string>();
  const search = (state: State, done: readonly number[]): boolean => {
    const key = keyOf(state);
    const isOver = operations.every(({ asked, steps }, at) => asked.killed || done[at] === steps.length);
    if (isOver && key === final) return true;
    const place = `${done.join(" ")}\n${key}`;
    if (seen.has(place)) return false;
    seen.add(place);
    return operations.some(({ asked, steps }, at) => {
      const made = done[at] as number;
      const step = steps[made];
      if (step === undefined) return false;
      if (made === 0 && first[at]?.some((other) => done[other] !== operations[other]?.steps.length) === true) return false;
      if (asked.killed && stoppedBy[at]?.some((other) => (done[other] as number) > 0) === true) return false;
      return step(state).some((next) => search(next, done.with(at, made + 1)));
    });
  };
  return search(
    before,
    operations.map(() => 0),
  )
    ? null
    : `no order explains these answers and\n${final}`;
}
