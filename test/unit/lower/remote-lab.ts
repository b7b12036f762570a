/** Owners and callers of one directory, for tests of the wire between overlays: everything ends with its test. */
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import type { LowerSessionId } from "../../../overlay/lower/wire/handshake.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { CallerIdentity, OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import { createRemoteLower, type RemoteLower, type RemoteLowerOptions } from "../../../overlay/lower/remote/remote.ts";
import type { LowerServer, LowerServerOptions } from "../../../overlay/lower/server/server.ts";
import { nativeAddon } from "../../../native/index.ts";
import { directoryPlace, listenOn, type Place, TEST_CALLER, TEST_OWNER, testServer } from "../../compliance/lower-fixture.ts";

export { bytes as name, errnoOf, RDWR, root as caller } from "../../compliance/lower-bench.ts";

export interface Owner {
  readonly lower: LocalLower;
  readonly server: LowerServer;
  readonly address: OwnerAddress;
  readonly epoch: number;
}

/** Between a caller and its owner: can keep answers back, and cut. */
export class Proxy {
  readonly #server: Server;
  readonly #pairs: Set<{ near: Socket; far: Socket }> = new Set();
  holdAnswers = false;
  dropRequests = false;
  /** Of connections that begin then: a TLS record of the owner's with more bytes is lost on the way, with all that comes behind it. */
  recordMax: number = Number.POSITIVE_INFINITY;
  /** What came from the caller since then is on its way; the caller may be gone before it arrives. */
  holdRequests = false;
  readonly #late: (() => void)[] = [];
  /** Bytes that came from the caller since holdAnswers was set. */
  onRequest: (() => void) | null = null;
  port = 0;

  get address(): OwnerAddress {
    return { host: "127.0.0.1", port: this.port, ...TEST_OWNER };
  }

  constructor(target: () => number) {
    this.#server = createServer((near) => {
      const far = connect(target(), "127.0.0.1");
      const pair = { near, far };
      this.#pairs.add(pair);
      near.on("data", (chunk) => {
        if (this.holdRequests) this.#late.push(() => void far.write(chunk));
        else if (!this.dropRequests) far.write(chunk);
        this.onRequest?.();
      });
      const smallRecords = this.recordMax < Number.POSITIVE_INFINITY ? passSmall(this.recordMax, near) : null;
      far.on("data", (chunk) => {
        if (smallRecords !== null) smallRecords(chunk);
        else if (!this.holdAnswers) near.write(chunk);
      });
      for (const [one, two] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on("error", () => undefined);
        one.on("close", () => {
          this.#pairs.delete(pair);
          if (!this.holdRequests) two.destroy();
        });
      }
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    this.port = address !== null && typeof address !== "string" ? address.port : 0;
  }

  /** What was on its way arrives. */
  arrive(): void {
    this.holdRequests = false;
    for (const write of this.#late.splice(0)) write();
  }

  cut(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function passSmall(max: number, into: Socket): (chunk: Buffer) => void {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 5) {
      const bytes = 5 + rest.readUInt16BE(3);
      if (bytes > max || rest.length < bytes) return;
      into.write(rest.subarray(0, bytes));
      rest = rest.subarray(bytes);
    }
  };
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** What the owner knows of the one before, of its disk and its lease; and who has opened all at it. */
type OwnerBefore = Pick<LowerServerOptions, "cleanAfter" | "letGoAfter" | "hasDisk" | "claimed" | "received" | "mayServe">;
type Hears = Pick<RemoteLowerOptions, "onRefused" | "onOwnerDied" | "holds" | "journal" | "keeper" | "moves">;

export interface RemoteLab {
  readonly place: Place;
  readonly owner: (
    epoch?: number,
    wrap?: (lower: LocalLower) => LocalLower,
    isGone?: (session: LowerSessionId) => boolean,
    after?: OwnerBefore,
  ) => Promise<Owner>;
  readonly remote: (identity?: Partial<CallerIdentity>, log?: Log, hears?: Hears) => RemoteLower;
  readonly proxyTo: (target: Owner) => Promise<Proxy>;
  /** "welcome", or the code of the refusal. */
  readonly refusal: (identity: Partial<CallerIdentity>, to: Owner, epoch?: number) => Promise<string>;
}

/** Another directory for each test of the file. */
export function remoteLab(): RemoteLab {
  let place: Place;
  const owners: Owner[] = [];
  const callers: RemoteLower[] = [];
  const proxies: Proxy[] = [];

  beforeEach(() => {
    place = directoryPlace();
  });
  afterEach(async () => {
    for (const one of callers.splice(0)) one.shutdown();
    for (const one of proxies.splice(0)) await one.close();
    for (const one of owners.splice(0)) {
      await one.server.close();
      await one.lower.shutdown();
    }
    await place.release();
  });

  async function owner(
    epoch = 1,
    wrap: (lower: LocalLower) => LocalLower = (lower) => lower,
    isGone: (session: LowerSessionId) => boolean = () => false,
    after: OwnerBefore = {},
  ): Promise<Owner> {
    const lower = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
    const server = testServer(wrap(lower), epoch, isGone, after);
    const made = { lower, server, epoch, address: await listenOn(server) };
    owners.push(made);
    return made;
  }
  function remote(identity: Partial<CallerIdentity> = {}, log: Log = silentLog, hears: Hears = {}): RemoteLower {
    const made = createRemoteLower({ ...TEST_CALLER, ...identity, log, ...hears });
    callers.push(made);
    return made;
  }
  async function proxyTo(target: Owner): Promise<Proxy> {
    const proxy = new Proxy(() => target.address.port);
    await proxy.listen();
    proxies.push(proxy);
    return proxy;
  }
  async function refusal(identity: Partial<CallerIdentity>, to: Owner, epoch = to.epoch): Promise<string> {
    const error = await remote(identity)
      .connect(to.address, epoch)
      .then(
        () => null,
        (reason: OperatingError) => reason,
      );
    return error?.code ?? "welcome";
  }
  return {
    get place(): Place {
      return place;
    },
    owner,
    remote,
    proxyTo,
    refusal,
  };
}
