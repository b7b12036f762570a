/** What every engine must do (dlmd/engine/engine.ts), whatever it is made of. An implementation brings an EngineLab. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type EngineCommand, type EngineEvent } from "../../dlmd/engine/engine.ts";
import { type CommandResult, maxMessageBytes } from "../../dlmd/wire/group.ts";

/** A cluster of engines. `events`: of the node's present life. */
export interface EngineLab {
  command(nodeid: number, command: EngineCommand): CommandResult;
  events(nodeid: number): readonly EngineEvent[];
  start(nodeid: number): void;
  crash(nodeid: number): void;
  /** Who is in different groups does not hear each other. */
  partition(groups: readonly (readonly number[])[]): void;
  heal(): void;
  /** Resolves when the condition holds; rejects, naming it, when it does not in a time that is long for the lab. */
  until(what: string, condition: () => boolean): Promise<void>;
  close(): Promise<void>;
}

type Of<K extends EngineEvent["kind"]> = Extract<EngineEvent, { kind: K }>;

function bytes(n: number, size = 8): Uint8Array {
  const data = new Uint8Array(size).fill(n & 0xff);
  new DataView(data.buffer).setUint32(0, n, true);
  return data;
}

/** So often a state is tried for that nobody can bring about for sure. */
const MAX_ROUNDS = 8;

/** `create`: three nodes, started. `missing`: why there can be none on this machine. */
export function engineCompliance(name: string, create: () => Promise<EngineLab>, missing: string | null = null): void {
  describe(`the ${name} engine`, () => {
    let lab: EngineLab;
    beforeEach(async ({ skip }) => {
      skip(missing !== null, missing ?? "");
      lab = await create();
      await quorate(1, 2, 3);
    });
    afterEach(() => lab?.close());

    const of = <K extends EngineEvent["kind"]>(nodeid: number, kind: K): Of<K>[] =>
      lab.events(nodeid).filter((event): event is Of<K> => event.kind === kind);
    const view = (nodeid: number): Of<"view">["view"] | undefined => of(nodeid, "view").at(-1)?.view;
    /** All of them in one quorate view of exactly these. */
    const quorate = (...nodeids: number[]): Promise<void> =>
      lab.until(`a quorate view of ${nodeids.join(" ")}`, () => {
        const views = nodeids.map(view);
        return views.every(
          (each) =>
            each?.quorum.quorate === true &&
            each.id.epoch === views[0]?.id.epoch &&
            each.members.map((member) => member.nodeid).join() === nodeids.join(),
        );
      });
    const groupAt = (nodeid: number): string => {
      const members = of(nodeid, "members").at(-1)?.members ?? [];
      return members
        .map((member) => member.nodeid)
        .toSorted((a, b) => a - b)
        .join();
    };
    const join = async (...nodeids: number[]): Promise<void> => {
      for (const nodeid of nodeids) expect(lab.command(nodeid, { kind: "join", group: "g", clientId: 7 })).toBe("accepted");
      await lab.until("all have joined", () => nodeids.every((nodeid) => groupAt(nodeid) === nodeids.join()));
    };
    const say = (nodeid: number, n: number, size?: number): CommandResult =>
      lab.command(nodeid, { kind: "multicast", group: "g", clientId: 7, data: bytes(n, size) });
    const heard = (nodeid: number): string[] =>
      of(nodeid, "message").map(({ from, data }) => `${from.nodeid}:${new DataView(data.buffer, data.byteOffset).getUint32(0, true)}`);

    it("gives all the same view, with its votes", () => {
      expect(view(1)?.id).toEqual(view(3)?.id);
      expect(view(2)?.quorum).toMatchObject({ votes: 3, expected: 3, needed: 2, rule: "votes" });
    });

    it("delivers to all members in one order, to the sender too, each sender's in its order and once", async () => {
      await join(1, 2, 3);
      for (let n = 1; n <= 100; n++) for (const nodeid of [1, 2, 3]) expect(say(nodeid, n)).toBe("accepted");
      await lab.until("300 messages everywhere", () => [1, 2, 3].every((nodeid) => heard(nodeid).length === 300));
      expect(heard(2)).toEqual(heard(1));
      expect(heard(3)).toEqual(heard(1));
      for (const nodeid of [1, 2, 3]) {
        expect(heard(1).filter((word) => word.startsWith(`${nodeid}:`))).toEqual(
          Array.from({ length: 100 }, (_, i) => `${nodeid}:${i + 1}`),
        );
      }
    });

    it("orders joins and leaves with messages, and says why somebody left", async () => {
      await join(1, 2);
      say(1, 1);
      await lab.until("node 2 hears 1", () => heard(2).length === 1);
      lab.command(3, { kind: "join", group: "g", clientId: 7 });
      await lab.until("node 3 is in", () => groupAt(3) === "1,2,3");
      say(1, 2);
      await lab.until("node 3 hears 2", () => heard(3).length === 1);
      expect(heard(3)).toEqual(["1:2"]);
      lab.command(2, { kind: "leave", group: "g", clientId: 7, reason: "left" });
      await lab.until("node 2 is out", () => of(2, "members").at(-1)?.left.length === 1);
      say(1, 3);
      lab.command(1, { kind: "leave", group: "g", clientId: 7, reason: "client-died" });
      await lab.until("node 3 is alone", () => groupAt(3) === "3");
      expect(heard(2)).toEqual(["1:1", "1:2"]);
      expect(heard(3)).toEqual(["1:2", "1:3"]);
      expect(of(3, "members").flatMap(({ left }) => left.map(({ member, reason }) => `${member.nodeid} ${reason}`))).toEqual([
        "2 left",
        "1 client-died",
      ]);
    });

    it("tells each client of a node what it is for, and nobody outside the group anything", async () => {
      await join(1, 2);
      lab.command(1, { kind: "join", group: "g", clientId: 8 });
      await lab.until("client 8 is in", () => of(1, "members").at(-1)?.members.length === 3);
      say(2, 1);
      await lab.until("node 1 hears it", () => heard(1).length === 1);
      expect(of(1, "message")[0]?.to).toEqual([7, 8]);
      lab.command(3, { kind: "join", group: "other", clientId: 1 });
      await lab.until("node 3 is in another group", () => of(3, "members").length === 1);
      expect(heard(3)).toEqual([]);
    });

    it("refuses what is the caller's mistake, by name", async () => {
      expect(say(1, 1)).toBe("not-joined");
      expect(lab.command(1, { kind: "leave", group: "g", clientId: 7, reason: "left" })).toBe("not-joined");
      expect(lab.command(1, { kind: "join", group: "", clientId: 7 })).toBe("bad-name");
      expect(lab.command(1, { kind: "join", group: "x".repeat(65), clientId: 7 })).toBe("bad-name");
      await join(1);
      expect(lab.command(1, { kind: "join", group: "g", clientId: 7 })).toBe("joined-already");
      expect(say(1, 1, maxMessageBytes + 1)).toBe("too-large");
    });

    it("carries the largest message whole", async () => {
      await join(1, 3);
      expect(say(3, 5, maxMessageBytes)).toBe("accepted");
      await lab.until("it is there", () => heard(1).length === 1);
      const data = of(1, "message")[0]?.data;
      expect(data?.byteLength).toBe(maxMessageBytes);
      expect(data?.subarray(4).every((byte) => byte === 5)).toBe(true);
    });

    it("says full when too much waits, then room; nothing accepted is lost", async () => {
      await join(1, 2, 3);
      let accepted = 0;
      while (say(2, accepted + 1, 200_000) === "accepted") {
        accepted++;
        expect(accepted).toBeLessThan(1000);
      }
      await lab.until("room", () => of(2, "room").length === 1);
      expect(say(2, accepted + 1)).toBe("accepted");
      await lab.until("all came", () => heard(3).length === accepted + 1);
      expect(heard(3)).toEqual(Array.from({ length: accepted + 1 }, (_, i) => `2:${i + 1}`));
    });

    it("a node dies: its members leave in the next view, after what it said before", async () => {
      await join(1, 2, 3);
      say(1, 1);
      say(2, 1);
      await lab.until("both are heard", () => heard(3).length === 2);
      lab.crash(1);
      await quorate(2, 3);
      say(3, 1);
      await lab.until("they go on", () => heard(2).length === 3 && heard(3).length === 3);
      expect(heard(2)).toEqual(heard(3));
      expect(
        of(2, "members")
          .at(-1)
          ?.left.map(({ reason }) => reason),
      ).toEqual(["node-gone"]);
      expect(view(3)?.together).toEqual([2, 3]);
      lab.start(1);
      await quorate(1, 2, 3);
      expect(view(1)?.together).toEqual([2, 3]);
      await lab.until("it may come back", () => {
        lab.command(1, { kind: "join", group: "g", clientId: 7 });
        return groupAt(1) === "1,2,3";
      });
    });

    it("a minority delivers nothing, and what held state there begins anew when it is healed", async () => {
      await join(1, 2, 3);
      const incarnation = view(1)?.members[0]?.incarnation;
      lab.partition([[1], [2, 3]]);
      await quorate(2, 3);
      await lab.until("node 1 knows", () => view(1)?.quorum.quorate === false);
      say(1, 1);
      say(2, 2);
      await lab.until("the majority goes on", () => heard(3).length === 1);
      expect([heard(1), heard(3)]).toEqual([[], ["2:2"]]);
      lab.heal();
      await quorate(1, 2, 3);
      expect(view(1)?.members[0]?.incarnation).not.toBe(incarnation);
      expect(groupAt(2)).toBe("2,3");
    });

    it("nobody had quorum in between: what was accepted is delivered to all", async () => {
      const all = [1, 2, 3];
      // Links of real daemons heal one after the other. Two nodes may have a quorum before the third hears them, and its life ends then: that is
      // another state than this one.
      for (let round = 1; ; round++) {
        await join(...all);
        lab.partition([[1], [2], [3]]);
        await lab.until("all alone", () => all.every((nodeid) => view(nodeid)?.quorum.quorate === false));
        for (const nodeid of all) expect(say(nodeid, nodeid)).toBe("accepted");
        const lives = all.map((nodeid) => lab.events(nodeid));
        const hadQuorum = (): boolean => all.some((nodeid, index) => lab.events(nodeid) !== lives[index]);
        lab.heal();
        await lab.until("all hear all", () => hadQuorum() || all.every((nodeid) => heard(nodeid).length === 3));
        if (!hadQuorum()) break;
        expect(round).toBeLessThan(MAX_ROUNDS);
        await lab.close();
        lab = await create();
        await quorate(...all);
      }
      expect(heard(2)).toEqual(heard(1));
      expect(heard(3)).toEqual(heard(1));
      expect(view(2)?.together).toEqual([1, 2, 3]);
    });
  });
}
