/**
 * Scenario files: one command a line, `#` begins a comment. A line that begins with `builtin` or `corosync` is for that engine alone. The
 * commands are those of `commands` below; a lock is named by a word that its program chooses. `expect` takes what a lock was told next;
 * everything must have been expected in the end.
 */
import { CANCEL } from "../../dlmd/wire/flag.ts";
import * as flagBits from "../../dlmd/wire/flag.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { maxOffset, type OwnerKind } from "../../dlmd/wire/plock-range.ts";
import { viewName } from "../../dlmd/wire/view-id.ts";
import { incarnationOf, type Program, timeoutMs, World, type WorldEngine } from "./world.ts";

type Command = (words: readonly string[]) => void;

function modeOf(word: string | undefined): Mode {
  const mode = Mode[word as keyof typeof Mode];
  if (mode === undefined) throw new Error(`a mode expected, found ${word}`);
  return mode;
}

/** Flags by name; `transaction=1`, `timeout=50`, `block=7`. */
function optionsOf(words: readonly string[]) {
  const options = { flags: 0, timeoutMs: 0, transaction: 0, block: null as Uint8Array | null };
  for (const word of words) {
    const [name, value] = word.split("=") as [string, string | undefined];
    if (name === "transaction") options.transaction = Number(value);
    else if (name === "timeout") options.timeoutMs = Number(value);
    else if (name === "block") options.block = Uint8Array.of(Number(value));
    else {
      const bit = (flagBits as unknown as Record<string, number | undefined>)[name];
      if (typeof bit !== "number") throw new Error(`a flag expected, found ${name}`);
      options.flags |= bit;
    }
  }
  return options;
}

/** `owner=1 kind=flock`; POSIX owner 1 if not said. */
function ownerOf(words: readonly string[]): { ownerKind: OwnerKind; owner: bigint } {
  const given = (key: string, otherwise: string): string =>
    words.find((word) => word.startsWith(`${key}=`))?.slice(key.length + 1) ?? otherwise;
  return { ownerKind: given("kind", "posix") as OwnerKind, owner: BigInt(given("owner", "1")) };
}

export function runScenario(text: string, engine: WorldEngine = "builtin"): void {
  let world = new World(1, {}, []);
  const names = new Map<string, string>();
  let marked = "";
  const program = (name: string | undefined): Program => {
    const found = world.programs.get(name ?? "");
    if (found === undefined) throw new Error(`a program expected, found ${name}`);
    return found;
  };
  const lockId = (name: string, lock: string): number => {
    const { locks } = program(name);
    if (!locks.has(lock)) locks.set(lock, locks.size + 1);
    return locks.get(lock) as number;
  };
  const fileOf = (word = ""): string => names.get(word) ?? word;
  const askFile = (
    name: string,
    ask: string,
    op: "lock" | "unlock" | "test",
    [file, type = "read", start, end, ...rest]: readonly string[],
  ): void => {
    const { asks } = program(name);
    const requestId = asks.size + 1;
    asks.set(ask, requestId);
    world.ask(name, {
      kind: "plock",
      lockspaceId: 1,
      requestId,
      file: fileOf(file),
      op,
      ...ownerOf(rest),
      pid: 1,
      type: type === "write" ? "write" : "read",
      start: BigInt(start ?? 0),
      end: end === undefined || end === "end" ? maxOffset : BigInt(end),
      wait: op === "lock" && !rest.includes("now"),
      begun: false,
      heldMs: null,
      first: false,
    });
  };
  const requests: Readonly<Record<string, (name: string, lock: string, words: readonly string[]) => void>> = {
    lock(name, lock, [resource, mode, ...rest]) {
      const { flags, timeoutMs: limit, transaction } = optionsOf(rest);
      const id = lockId(name, lock);
      const found = names.get(resource ?? "") ?? resource ?? "";
      world.ask(name, {
        kind: "lock",
        lockspaceId: 1,
        lockId: id,
        resource: found,
        mode: modeOf(mode),
        flags,
        timeoutMs: limit,
        transaction,
      });
    },
    convert(name, lock, [mode, ...rest]) {
      const { flags, timeoutMs: limit, block: lvb } = optionsOf(rest);
      world.ask(name, { kind: "convert", lockId: lockId(name, lock), mode: modeOf(mode), flags, lvb, timeoutMs: limit });
    },
    unlock(name, lock, rest) {
      const { flags, block: lvb } = optionsOf(rest);
      world.ask(name, { kind: "unlock", lockId: lockId(name, lock), flags, lvb });
    },
    /** a flock q f write 0 9 [now] [owner=1] [kind=ofd]: waits, unless "now" */
    flock: (name, ask, words) => askFile(name, ask, "lock", words),
    funlock: (name, ask, words) => askFile(name, ask, "unlock", words),
    ftest: (name, ask, words) => askFile(name, ask, "test", words),
    fcancel: (name, ask) => world.ask(name, { kind: "plock-cancel", requestId: program(name).asks.get(ask) ?? 0 }),
    /** a frelease f [owner=1]: as close(2) does; a frelease all: the owner is gone */
    frelease(name, file, words) {
      const { ownerKind, owner } = ownerOf(words);
      world.ask(name, { kind: "plock-release", lockspaceId: 1, file: file === "all" ? null : fileOf(file), ownerKind, owner });
    },
    cancel: (name, lock) => world.ask(name, { kind: "unlock", lockId: lockId(name, lock), flags: CANCEL, lvb: null }),
  };
  const commands: Readonly<Record<string, Command>> = {
    /** nodes 3 [saved=8] [lates=2] [turn=4] [search=4] [late=3] [fenced] */
    nodes([count, ...rest]) {
      const given = (key: string): number | null => {
        const word = rest.find((each) => each.startsWith(`${key}=`));
        return word === undefined ? null : Number(word.slice(key.length + 1));
      };
      const [saved, lates, turn, search] = [given("saved"), given("lates"), given("turn"), given("search")];
      const limits = {
        ...(saved === null ? {} : { savedMessagesPerPeer: saved }),
        ...(lates === null ? {} : { lateMessages: lates }),
        ...(turn === null ? {} : { rebuildStepsPerTurn: turn }),
        ...(search === null ? {} : { searchStepsPerTurn: search }),
      };
      world = new World(Number(count), limits, rest.includes("fenced") ? ["space"] : [], given("late") ?? 0, {}, engine);
      if (!world.pass(20 * timeoutMs, () => world.serving())) throw new Error("the nodes did not come together");
    },
    /** name x 2 [3]: "x" is a resource that node 2 masters, and node 3 when that is gone */
    name: ([word, nodeid, next]) => void names.set(word ?? "", world.nameFor(Number(nodeid), next === undefined ? null : Number(next))),
    /** client a 1 [owner=key] [slow] [answers-within=1000] [space=other] */
    client([name, nodeid, ...rest]) {
      const given = (key: string): string => rest.find((word) => word.startsWith(`${key}=`))?.slice(key.length + 1) ?? "";
      const space = given("space") === "" ? "space" : given("space");
      world.program(name ?? "", Number(nodeid), given("owner"), rest.includes("slow"), Number(given("answers-within")), space);
    },
    /** limit a 0: it answers within that time from now on; 0: it need not answer, but for locks that are PROMPT */
    limit: ([name = "", limitMs]) => world.ask(name, { kind: "bast-limit", limitMs: Number(limitMs) }),
    /** keeps a 5000: what it has is kept for so long if its connection breaks */
    keeps: ([name = "", limitMs]) => world.ask(name, { kind: "keep-locks", requestId: 1, limitMs: Number(limitMs), held: false }),
    /** inherits c: it asks what is kept for it; `expect c heir a EX PR, b`: the locks of a and of b */
    inherits: ([name = ""]) => world.ask(name, { kind: "inherit", requestId: 1, lockspace: "space", fromClientId: 0, skip: 0 }),
    /** ends-kept c a: c has all that it wants of a */
    "ends-kept": ([name = "", kept]) => world.ask(name, { kind: "end-kept", requestId: 1, clientId: program(kept).clientId }),
    /** hangs a: its node has its process ended */
    hangs: ([name]) => {
      if (!program(name).ending) throw new Error(`${name} is not taken to hang`);
    },
    "hangs-not": ([name]) => {
      if (program(name).ending) throw new Error(`${name} is taken to hang`);
    },
    /** waits 1 a node space: node 1 says that lockspace "space" waits until a has let go of a node; waits 1 nobody */
    waits: ([nodeid, name, ...rest]) => {
      const found = world.waitedFor(Number(nodeid));
      const wanted = name === "nobody" ? [] : [`${program(name).nodeid}/${program(name).clientId} ${rest.join(" ")}`];
      if (found.join(", ") !== wanted.join(", ")) throw new Error(`"${wanted.join(", ")}" expected, found "${found.join(", ")}"`);
    },
    /** asked a: it was asked about the dead, and has not answered */
    asked: ([name]) => {
      if (program(name).asked.length === 0) throw new Error(`${name} is not asked`);
    },
    "asked-not": ([name]) => {
      if (program(name).asked.length > 0) throw new Error(`${name} is asked`);
    },
    /** open-in 1 space 2 3: node 1 knows that nodes 2 and 3 have lockspace "space" open */
    "open-in": ([nodeid, space, ...members]) => {
      const found =
        world.nodes
          .get(Number(nodeid))
          ?.core.lockspaces.table()
          .get(space ?? "") ?? [];
      if (found.join(" ") !== members.join(" ")) throw new Error(`nodes ${members.join(" ")} expected, found ${found.join(" ")}`);
    },
    /** members 1 1 3: node 1 is in a view of nodes 1 and 3 */
    members: ([nodeid, ...members]) => {
      const found = world.view(Number(nodeid))?.members.map((member) => member.nodeid) ?? [];
      if (found.join(" ") !== members.join(" ")) throw new Error(`members ${members.join(" ")} expected, found ${found.join(" ")}`);
    },
    /** spares a: its process waits in the kernel, and is not ended */
    spares: ([name]) => world.spare(name ?? ""),
    dies: ([name]) => world.die(name ?? ""),
    answers: ([name]) => world.answerGone(program(name)),
    start: ([nodeid]) => world.start(Number(nodeid)),
    crash: ([nodeid]) => world.crash(Number(nodeid)),
    /** stands 1: its process stands still; runs 1: it goes on, and hears what came meanwhile */
    stands: ([nodeid]) => world.stand(Number(nodeid)),
    runs: ([nodeid]) => world.run(Number(nodeid)),
    /** garble 1 2: what is held between them is about locks that are nowhere */
    garble: ([from, to]) => world.garble(Number(from), Number(to)),
    /** spoil 1 2: from now on node 2 cannot read what node 1 sends, and the connection ends each time */
    spoil: ([from, to]) => world.spoil(Number(from), Number(to), false),
    /** spoil-all 1 2: not even the first words of a connection */
    "spoil-all": ([from, to]) => world.spoil(Number(from), Number(to), true),
    hold: ([from, to]) => void world.held.set(`${from}>${to}`, []),
    flow: ([from, to]) => world.flow(Number(from), Number(to)),
    disconnect: ([a, b]) => world.disconnect(Number(a), Number(b)),
    connect: ([a, b]) => world.connect(Number(a), Number(b)),
    pass: ([ms]) => void world.pass(Number(ms)),
    /** All that live serve in one view. */
    together() {
      if (!world.pass(40 * timeoutMs, () => world.serving())) throw new Error("the nodes do not serve together");
    },
    "mark-view": ([nodeid]) => {
      marked = viewName(world.viewOf(Number(nodeid)) as never);
    },
    "same-view": ([nodeid]) => {
      const now = viewName(world.viewOf(Number(nodeid)) as never);
      if (now !== marked) throw new Error(`view ${marked} expected, found ${now}`);
    },
    "other-view": ([nodeid]) => {
      if (viewName(world.viewOf(Number(nodeid)) as never) === marked) throw new Error(`another view than ${marked} expected`);
    },
    paused: ([name]) => {
      if (!program(name).paused) throw new Error(`${name} is read, though too much is on its way`);
    },
    "not-paused": ([name]) => {
      if (program(name).paused) throw new Error(`${name} is not read`);
    },
    /** fenced 1 3: node 1 is told that node 3 is dead; wrong: of another view */
    fenced([nodeid, victim, wrong]) {
      const view = world.viewOf(Number(nodeid)) as NonNullable<ReturnType<World["viewOf"]>>;
      const failingView = wrong === "wrong" ? { ...view, epoch: view.epoch + 1 } : view;
      world.input(Number(nodeid), {
        kind: "fence-result",
        nodeid: Number(victim),
        incarnation: incarnationOf(Number(victim)),
        failingView,
        by: "test",
      });
    },
    /** churn a l 70: it converts l to CR and back to NL so often, and is granted it */
    churn([name, lock, times]) {
      const id = lockId(name ?? "", lock ?? "");
      for (let i = 0; i < 2 * Number(times); i++) {
        world.ask(name ?? "", { kind: "convert", lockId: id, mode: i % 2 === 0 ? Mode.CR : Mode.NL, flags: 0, lvb: null, timeoutMs: 0 });
        world.settle();
        const heard = world
          .heardOf(program(name), lock ?? "")
          .splice(0)
          .join(", ");
        if (!heard.startsWith("granted")) throw new Error(`conversion ${i}: granted expected, found ${heard}`);
      }
    },
    /** master r 2: node 2, and no other, has the queues of r; "nobody": it is on its way */
    master([resource, who]) {
      const found = world.mastersOf(names.get(resource ?? "") ?? resource ?? "").join(" ") || "nobody";
      if (found !== who) throw new Error(`master ${who} expected, found ${found}`);
    },
    /** named r a: the master of r names program a for what is granted there */
    named([resource, ...who]) {
      const found = world.grantedOn(names.get(resource ?? "") ?? resource ?? "");
      const wanted = who.map((name) => `${program(name).nodeid}/${program(name).clientId}`);
      if (found.join(" ") !== wanted.join(" ")) throw new Error(`${wanted.join(" ")} expected, found ${found.join(" ")}`);
    },
    /** expect a l granted EX; expect a l nothing */
    expect([name, lock, ...words]) {
      const heard = world.heardOf(program(name), lock ?? "");
      const next = words[0] === "nothing" ? heard[0] : heard.shift();
      const found = next ?? "nothing";
      if (found !== words.join(" ")) throw new Error(`${name} ${lock}: "${words.join(" ")}" expected, found "${found}"`);
    },
    /** one-of deadlock EX: exactly one of all that was heard */
    "one-of": (words) => {
      const all = [...world.programs.values()].flatMap(({ heard }) => [...heard.values()].flat());
      const count = all.filter((heard) => heard === words.join(" ")).length;
      if (count !== 1) throw new Error(`"${words.join(" ")}" once expected, found ${count} times in ${all.join(", ")}`);
      for (const { heard } of world.programs.values()) for (const list of heard.values()) list.length = 0;
    },
  };
  text.split("\n").forEach((line, at) => {
    const all = line.replace(/#.*/, "").trim().split(/\s+/);
    const isOfOneEngine = all[0] === "builtin" || all[0] === "corosync";
    if (isOfOneEngine && all[0] !== engine) return;
    const words = isOfOneEngine ? all.slice(1) : all;
    const [first = "", second = "", third = ""] = words;
    if (first === "") return;
    try {
      const command = commands[first];
      const request = requests[second];
      if (command !== undefined) command(words.slice(1));
      else if (request !== undefined && world.programs.has(first)) request(first, third, words.slice(3));
      else throw new Error(`a command expected, found ${line.trim()}`);
      world.settle();
    } catch (error) {
      throw new Error(`line ${at + 1}, ${line.trim()}: ${(error as Error).message}`, { cause: error });
    }
  });
  for (const [name, { heard }] of world.programs) {
    for (const [lock, words] of heard) if (words.length > 0) throw new Error(`at the end: ${name} ${lock} heard ${words.join(", ")}`);
  }
}
