/**
 * Caches of nodes under locks: which value of a thing a node may show, and when. The things are those that a kernel caches: a name, the
 * attributes of an inode, a page. Sources: overlay/coherence/README.md; Gray and Cheriton, "Leases" (SOSP 1989); the modes are those of the
 * kernel's DLM, of which two are needed here: PR, which nodes share, and EX, which one has alone.
 */

export type Mode = "NL" | "PR" | "EX";
export type Node = number;

/** Of one thing. `version` counts its changes; what a node caches is the version that it has seen. */
export interface Shared {
  readonly version: number;
  readonly modes: ReadonlyMap<Node, Mode>;
  /** Never there for a node with NL. */
  readonly cached: ReadonlyMap<Node, number>;
}

export type Move =
  | { readonly kind: "lock"; readonly node: Node; readonly mode: "PR" | "EX" }
  /** The lock goes. The cache goes first: that is the whole of coherence. */
  | { readonly kind: "drop"; readonly node: Node }
  | { readonly kind: "read"; readonly node: Node }
  | { readonly kind: "change"; readonly node: Node };

export type Moved =
  | { readonly kind: "done"; readonly after: Shared; readonly shown: number | null }
  /** Another node has to drop its lock before. */
  | { readonly kind: "waits"; readonly for: readonly Node[] }
  /** A node without the lock that the move needs must ask for it first. */
  | { readonly kind: "needs"; readonly mode: "PR" | "EX" };

export const nothingCached: Shared = { version: 0, modes: new Map(), cached: new Map() };

const modeOf = ({ modes }: Shared, node: Node): Mode => modes.get(node) ?? "NL";
const compatible = (one: Mode, other: Mode): boolean => one === "NL" || other === "NL" || (one === "PR" && other === "PR");

export function move(shared: Shared, wanted: Move): Moved {
  const { node } = wanted;
  switch (wanted.kind) {
    case "lock": {
      const inTheWay = [...shared.modes]
        .filter(([other, mode]) => other !== node && !compatible(wanted.mode, mode))
        .map(([other]) => other);
      if (inTheWay.length > 0) return { kind: "waits", for: inTheWay };
      return { kind: "done", after: { ...shared, modes: new Map(shared.modes).set(node, wanted.mode) }, shown: null };
    }
    case "drop": {
      const cached = new Map(shared.cached);
      cached.delete(node);
      return { kind: "done", after: { ...shared, cached, modes: new Map(shared.modes).set(node, "NL") }, shown: null };
    }
    case "read": {
      if (modeOf(shared, node) === "NL") return { kind: "needs", mode: "PR" };
      const shown = shared.cached.get(node) ?? shared.version;
      return { kind: "done", after: { ...shared, cached: new Map(shared.cached).set(node, shown) }, shown };
    }
    case "change": {
      if (modeOf(shared, node) !== "EX") return { kind: "needs", mode: "EX" };
      const version = shared.version + 1;
      return { kind: "done", after: { ...shared, version, cached: new Map(shared.cached).set(node, version) }, shown: null };
    }
  }
}

/** What must hold in every state. Null: it does. */
export function brokenRule(shared: Shared): string | null {
  const held = [...shared.modes].filter(([, mode]) => mode !== "NL");
  if (held.some(([, mode]) => mode === "EX") && held.length > 1) return "a node has EX, and another one has a lock, too";
  for (const [node, version] of shared.cached) {
    if (modeOf(shared, node) === "NL") return `node ${node} caches something without a lock`;
    if (version !== shared.version) return `node ${node} would show version ${version} of ${shared.version}`;
  }
  return null;
}
