/**
 * Gathers what goes to the same nodes in one turn, so that it leaves as few datagrams (wire/bundle.ts): as one that fits a frame, or longer
 * where longer ones arrive. The nodes are asked for that while there is something long to send, and what they said counts for a while.
 */
import { bundleBytes, encodeBundle, encodeProbe, encodeProbed, frameBundleBytes, maxBundleBytes } from "../wire/bundle.ts";

export type Destination = number | "all" | readonly number[];

export interface BundlerHost {
  readonly nowMs: () => number;
  /** The peers that `to` means. */
  readonly nodeids: (to: Destination) => readonly number[];
  /** As one datagram. */
  readonly transmit: (to: Destination, body: Uint8Array) => void;
}

interface Bundle {
  readonly to: Destination;
  bodies: Uint8Array[];
  bytes: number;
}

export class DatagramBundler {
  readonly #host: BundlerHost;
  /** Two questions to one node are so far apart; an answer counts for a few of them. */
  readonly #probeEveryMs: number;
  readonly #passesForMs: number;
  readonly #open: Map<string, Bundle> = new Map();
  readonly #probedAt: Map<number, number> = new Map();
  /** When each node said last that a long one of ours came. */
  readonly #passedAt: Map<number, number> = new Map();

  constructor(host: BundlerHost, timeoutMs: number) {
    this.#host = host;
    this.#probeEveryMs = timeoutMs / 10;
    this.#passesForMs = timeoutMs / 3;
  }

  /** Leaves with the next `flush` at the latest. */
  gather(to: Destination, body: Uint8Array): void {
    const key = String(to);
    const bundle = this.#open.get(key);
    if (bundle === undefined) {
      this.#open.set(key, { to, bodies: [body], bytes: body.byteLength });
      return;
    }
    const bytes = bundleBytes(bundle.bodies.length + 1, bundle.bytes + body.byteLength);
    if (bytes > frameBundleBytes && (bytes > maxBundleBytes || !this.#mayBeLong(to))) this.#send(bundle);
    bundle.bodies.push(body);
    bundle.bytes += body.byteLength;
  }

  flush(): void {
    if (this.#open.size === 0) return;
    for (const bundle of this.#open.values()) this.#send(bundle);
    this.#open.clear();
  }

  #send(bundle: Bundle): void {
    this.#host.transmit(bundle.to, encodeBundle(bundle.bodies));
    bundle.bodies = [];
    bundle.bytes = 0;
  }

  #mayBeLong(to: Destination): boolean {
    const now = this.#host.nowMs();
    const nodeids = this.#host.nodeids(to);
    const due = nodeids.filter((nodeid) => now - (this.#probedAt.get(nodeid) ?? Number.NEGATIVE_INFINITY) >= this.#probeEveryMs);
    for (const nodeid of due) this.#probedAt.set(nodeid, now);
    if (due.length > 0) this.#host.transmit(due, encodeProbe());
    return nodeids.every((nodeid) => now - (this.#passedAt.get(nodeid) ?? Number.NEGATIVE_INFINITY) < this.#passesForMs);
  }

  probe(nodeid: number): void {
    this.#host.transmit(nodeid, encodeProbed());
  }

  probed(nodeid: number): void {
    this.#passedAt.set(nodeid, this.#host.nowMs());
  }
}
