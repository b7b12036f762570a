/**
 * The file-lock service of one node: home of its clients' locks (home.ts), master of some files (master.ts), and its part in finding
 * deadlocks (search.ts, judge.ts). What it says to itself takes the same way as what it says to others, in order, one at a time. What searches
 * say, to itself and to others, waits for a turn (search-work.ts): it may come late, as if it had been on its way.
 */
import type { LockClient } from "../lock/lkb.ts";
import type { StepTime } from "../base/step-time.ts";
import { takeSteps } from "../base/steps.ts";
import { masterOf } from "../lock/mastering.ts";
import type { ClientEvent } from "../wire/program.ts";
import type { PlockClientRequest } from "../wire/local-plock.ts";
import type { PlockEdge, PlockMessage, PlockProbeMessage, PlockProbeReplyMessage } from "../wire/peer-plock.ts";
import type { Member } from "../wire/view-id.ts";
import { PlockHome } from "./home.ts";
import { Judge } from "./judge.ts";
import { PlockMaster, type PlockLimits } from "./master.ts";
import { DeadlockSearch } from "./search.ts";
import { SearchWork } from "./search-work.ts";

export const defaultPlockLimits: PlockLimits = { fileLocksPerFile: 100_000, fileLocksPerClient: 100_000 };

export interface PlockPort {
  toPeer(nodeid: number, message: PlockMessage): void;
  toClient(client: LockClient, event: ClientEvent): void;
  /** Nothing is granted in that lockspace. */
  blocks(lockspace: string): boolean;
  /** A peer said what it cannot have meant, and may wait for an answer: the view is rebuilt. */
  protest(nodeid: number, message: string): void;
}

const searchKinds = [
  "plock-probe",
  "plock-probe-reply",
  "plock-cycle",
  "plock-judged",
  "plock-verify",
  "plock-sentence",
  "plock-verdict",
] as const;
type SearchMessage = Extract<PlockMessage, { kind: (typeof searchKinds)[number] }>;
const ofSearch: ReadonlySet<string> = new Set(searchKinds);

function isOfSearch(message: PlockMessage): message is SearchMessage {
  return ofSearch.has(message.kind);
}

export class PlockService {
  readonly home: PlockHome;
  readonly master: PlockMaster;
  readonly #nodeid: number;
  readonly #port: PlockPort;
  readonly #search: DeadlockSearch;
  readonly #judge: Judge;
  readonly #work: SearchWork = new SearchWork();
  #members: readonly Member[] = [];
  #toSelf: PlockMessage[] = [];
  /** What is left of a rebuild's two parts. */
  #naming: Iterator<void> | null = null;
  #settling: Iterator<void> | null = null;

  constructor(nodeid: number, time: StepTime, port: PlockPort, limits: PlockLimits = defaultPlockLimits) {
    this.#nodeid = nodeid;
    this.#port = port;
    const shared = {
      nodeid,
      nowMs: () => time.nowMs,
      send: (to: number, message: PlockMessage) => this.#send(to, message),
    };
    this.home = new PlockHome(
      {
        ...shared,
        masterOf: (lockspace, file) => masterOf(this.#members, lockspace, file),
        toClient: (client, event) => port.toClient(client, event),
      },
      limits,
    );
    this.master = new PlockMaster(
      {
        ...shared,
        protest: (from, message) => port.protest(from, message),
        blocks: (lockspace) => port.blocks(lockspace),
        blocked: (waiter) => this.#search.start(waiter),
      },
      limits,
    );
    this.#search = new DeadlockSearch({
      ...shared,
      later: (piece) => this.#work.add(piece),
      judge: () => this.#members[0]?.nodeid ?? nodeid,
      edges: (waiter) => this.master.edges(waiter),
      waits: (waiter) => this.master.waiter(waiter) === waiter,
    });
    this.#judge = new Judge(shared.send);
  }

  #send(nodeid: number, message: PlockMessage): void {
    if (nodeid === this.#nodeid && isOfSearch(message)) this.#work.add(() => this.#seek(nodeid, message));
    else if (nodeid === this.#nodeid) this.#toSelf.push(message);
    else this.#port.toPeer(nodeid, message);
  }

  #settleSelf(): void {
    while (this.#toSelf.length > 0) {
      const messages = this.#toSelf;
      this.#toSelf = [];
      for (const message of messages) this.#handle(this.#nodeid, message);
    }
  }

  request(client: LockClient, request: PlockClientRequest): void {
    this.home.request(client, request);
    this.#settleSelf();
  }

  /** Some lockspaces in which nothing was granted go on. */
  unblock(): void {
    this.master.unblock();
    this.#settleSelf();
  }

  /** Whether a client has locks, or requests without an answer. */
  has(client: LockClient): boolean {
    return this.home.has(client);
  }

  /** A client is gone, and what it has stays for now: nobody waits for its requests. */
  endWaits(client: LockClient): void {
    this.home.endWaits(client);
    this.#settleSelf();
  }

  /** All of a client that nobody serves any more (hazard C7): locks, and requests that wait. */
  releaseClient(client: LockClient): void {
    this.home.releaseClient(client);
    this.#settleSelf();
  }

  receive(from: number, message: PlockMessage): void {
    this.#handle(from, message);
    this.#settleSelf();
  }

  /** There is work of searches for another turn, now. */
  get searching(): boolean {
    return this.#work.waits;
  }

  /** So many rows of what searches look at. */
  search(budget: number): void {
    this.#work.take(budget);
  }

  #handle(from: number, m: PlockMessage): void {
    if (isOfSearch(m)) {
      if (!this.#work.addMessage(from, () => this.#seek(from, m))) this.#port.protest(from, `more of ${m.kind} than searches can say`);
      return;
    }
    switch (m.kind) {
      case "plock-request":
        return this.master.request(from, m);
      case "plock-cancel":
        return this.master.cancel(from, m.requestId);
      case "plock-recheck": {
        const waiter = this.master.waiter({ nodeid: from, requestId: m.requestId });
        if (waiter !== null) this.master.blocked(waiter);
        return;
      }
      case "plock-answer":
        return this.home.answer(m, false);
      case "plock-held":
        return this.master.claim(from, m);
      case "plock-again":
        return this.master.again(from, m);
    }
  }

  *#seek(from: number, m: SearchMessage): Generator<void> {
    switch (m.kind) {
      case "plock-probe":
        yield* this.#probe(from, m);
        break;
      case "plock-probe-reply":
        yield* this.#search.reply(from, m);
        break;
      default:
        this.#conduct(from, m);
    }
    this.#settleSelf();
  }

  #conduct(from: number, m: Exclude<SearchMessage, PlockProbeMessage | PlockProbeReplyMessage>): void {
    switch (m.kind) {
      case "plock-cycle":
        return this.#judge.accused(from, m);
      case "plock-judged":
        return this.#search.judged(m.searchId);
      case "plock-verify":
        return this.#send(from, { kind: "plock-verdict", caseId: m.caseId, yes: m.edges.every((edge) => this.master.stillThere(edge)) });
      case "plock-sentence":
        return this.#send(from, { kind: "plock-verdict", caseId: m.caseId, yes: this.master.sentence(m.request, m.sentence) });
      case "plock-verdict":
        return this.#judge.verdict(m.caseId, m.yes);
    }
  }

  /** A row at each step; those of one owner, or request, as of one moment. */
  *#probe(from: number, { searchId, owners, requests }: PlockProbeMessage): Generator<void> {
    const waits: PlockProbeReplyMessage["waits"][number][] = [];
    const edges: PlockEdge[] = [];
    for (const owner of owners) {
      for (const wait of this.home.waits(owner)) {
        yield;
        waits.push(wait);
      }
    }
    for (const name of requests) {
      const waiter = this.master.waiter(name);
      if (waiter === null) continue;
      for (const edge of this.master.edges(waiter)) {
        yield;
        edges.push(edge);
      }
    }
    this.#send(from, { kind: "plock-probe-reply", searchId, waits, edges });
  }

  // --------------------------------------------------------------------------------------------------------- recovery

  /** An answer of the last view that came when its service had stopped: it stands (hazard H3). */
  receiveLate(message: Extract<PlockMessage, { kind: "plock-answer" }>): void {
    this.home.answer(message, true);
  }

  /** Empties what this node masters; what its clients have is to be named to the masters of the new view. A still newer view may do so again. */
  startRebuild(members: readonly Member[]): void {
    this.#members = members;
    this.#toSelf = [];
    this.master.clear();
    this.#search.reset();
    this.#judge.reset();
    this.#work.clear();
    this.#naming = this.home.rebuild();
    this.#settling = null;
  }

  /** So much more of what this node's clients have. True: all is named. */
  name(budget: number): boolean {
    const done = this.#naming === null || takeSteps(this.#naming, budget);
    if (done) this.#naming = null;
    this.#settleSelf();
    return done;
  }

  /** All members have named what they have: so many requests more are judged anew. True: all are. */
  settle(budget: number): boolean {
    this.#settling ??= this.master.settle();
    const done = takeSteps(this.#settling, budget);
    this.#settleSelf();
    return done;
  }
}
