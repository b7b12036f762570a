/**
 * A group of the daemons alone, as fences and lockspaces have one (wire/fencing-group.ts, wire/lockspace-group.ts): what a daemon says there is
 * ordered among all, and a table at the begin of each quorate view takes the place of what was not delivered in the one before.
 */
import { assertNever } from "../base/assert.ts";
import type { CommandResult } from "../wire/group.ts";
import type { Member } from "../wire/view-id.ts";
import type { EngineCommand, EngineEvent, EngineView } from "./engine.ts";

/** The daemon itself, as a member of a group. */
const daemon = 0;

export type GroupMembers = Extract<EngineEvent, { kind: "members" }>;

export interface DaemonGroupPort<M> {
  command(command: EngineCommand): CommandResult;
  encode(message: M): Uint8Array;
  /** A quorate view begins; in its place among the messages. */
  enterView(view: EngineView): void;
  loseQuorum(): void;
  /** Daemons have joined or left the group. */
  membersChanged(event: GroupMembers): void;
  receive(from: Member, data: Uint8Array): void;
}

export class DaemonGroup<M> {
  readonly #group: string;
  readonly #port: DaemonGroupPort<M>;
  /** For which the engine has no room. */
  #unsent: M[] = [];
  /** There is a quorate view, and no later one is being agreed upon: messages are ordered. */
  inView = false;
  /** The engine was given something to do. */
  touched = false;

  constructor(group: string, port: DaemonGroupPort<M>) {
    this.#group = group;
    this.#port = port;
    port.command({ kind: "join", group, clientId: daemon });
  }

  /** Between two quorate views nothing is said: the table at the begin of the next one has all that counts. */
  say(message: M): void {
    if (!this.inView) return;
    this.touched = true;
    this.#unsent.push(message);
    this.#send();
  }

  /** It says all that was to be said before. */
  sayInstead(message: M): void {
    this.#unsent = [];
    this.say(message);
  }

  #send(): void {
    for (let message = this.#unsent[0]; message !== undefined; message = this.#unsent[0]) {
      const data = this.#port.encode(message);
      if (this.#port.command({ kind: "multicast", group: this.#group, clientId: daemon, data }) === "full") return;
      this.#unsent.shift();
    }
  }

  /** Of the engine, in order; of messages and members, those of this group. */
  event(event: EngineEvent): void {
    switch (event.kind) {
      case "view":
        return this.#view(event.view);
      case "blocked":
        return this.#leaveView();
      case "members":
        return this.#port.membersChanged(event);
      case "message": {
        const { nodeid, incarnation, clientId } = event.from;
        if (clientId === daemon) this.#port.receive({ nodeid, incarnation }, event.data);
        return;
      }
      case "room":
        return this.#send();
      case "join-refused":
        return;
      default:
        assertNever(event, "engine event");
    }
  }

  #view(view: EngineView): void {
    this.#leaveView();
    if (!view.quorum.quorate) return this.#port.loseQuorum();
    this.inView = true;
    this.#port.enterView(view);
  }

  #leaveView(): void {
    this.inView = false;
    this.#unsent = [];
  }
}
