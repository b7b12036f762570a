/**
 * The file-lock services of some nodes under one seed: messages in order for each pair and otherwise in any order, clients and nodes that die
 * and come, channels that lose their tail, and views that change at any moment, also while another one is being rebuilt. Membership and
 * recovery are not here (cluster.ts has them): a view change is what they promise of one.
 */
import { type Client, newClient } from "../../dlmd/clients/client.ts";
import { PlockService } from "../../dlmd/plock/service.ts";
import type { PlockMessage } from "../../dlmd/wire/peer-plock.ts";
import { PlockChecker } from "./plock-checker.ts";
import { SimPlockClient } from "./plock-client.ts";
import { Random } from "./random.ts";

interface Program {
  readonly client: Client;
  readonly sim: SimPlockClient;
}

interface SimPlockNode {
  readonly nodeid: number;
  readonly service: PlockService;
  readonly programs: Map<number, Program>;
  /** It has named all that its clients have. */
  named: boolean;
  /** Its tables are those of the view, and it serves. */
  serving: boolean;
  /** It grants nothing: who is gone is not known to be dead, or not all have let go of it. */
  gated: boolean;
  /** Its own clock. */
  readonly time: { nowMs: number };
}

export class PlockCluster {
  readonly random: Random;
  readonly checker: PlockChecker;
  readonly nodes: Map<number, SimPlockNode> = new Map();
  readonly #channels: Map<string, PlockMessage[]> = new Map();
  readonly #deadly: number;
  readonly #calm: boolean;
  /** Messages of a rebuild that a node sends in one turn, at most. */
  readonly #turn: number;
  /** Searches have what they look at in one turn, at once; else a turn comes at some time and looks at so many rows. */
  readonly #eager: boolean;
  /** Held ranges and requests of a file, and of a client. */
  readonly #limit: number;
  readonly #trace: string[] = [];
  #nextClientId = 1;
  #incarnation = 1;
  steps = 0;
  views = 0;

  /** `nodes`: at most 4; 0: as the seed says. */
  constructor(seed: number, nodes = 0) {
    this.random = new Random(seed);
    this.#deadly = this.random.pick([0.1, 0.5, 0.95]);
    // Without view changes, which would hide what a running view must do by itself.
    this.#calm = this.random.chance(0.4);
    this.#turn = this.random.pick([2, 16, 16, 64]);
    this.#eager = this.random.chance(0.5);
    const drawn = this.random.pick([1, 2, 3, 3, 4]);
    this.#limit = this.random.pick([1000, 1000, 1000, 12]);
    this.checker = new PlockChecker(() => true, this.#limit < 1000);
    const count = nodes > 0 ? nodes : drawn;
    for (let nodeid = 1; nodeid <= count; nodeid++) this.#boot(nodeid);
    this.#changeView();
  }

  #boot(nodeid: number): void {
    const { checker } = this;
    const time = { nowMs: this.random.int(1000) };
    const node: SimPlockNode = {
      nodeid,
      service: new PlockService(
        nodeid,
        time,
        {
          toPeer: (to, message) => this.#channel(nodeid, to).push(message),
          toClient: (client, event) => {
            if (event.kind !== "plock-result") return checker.fail(`client event ${event.kind}`);
            this.#note(`${nodeid} tells client ${client.id}`, event);
            if (!client.gone) node.programs.get(client.id)?.sim.result(event);
          },
          protest: (from, message) => checker.fail(`node ${nodeid} of node ${from}: ${message}`),
          blocks: () => node.gated,
        },
        { fileLocksPerFile: this.#limit, fileLocksPerClient: this.#limit },
      ),
      programs: new Map(),
      named: false,
      serving: false,
      gated: false,
      time,
    };
    const { master } = node.service;
    const sentence = master.sentence.bind(master);
    master.sentence = (name, what) => {
      this.#note(`${nodeid} sentences`, { name, what });
      return checker.sentenced([...this.nodes.values()], `${name.nodeid}/${name.requestId}`, what, () => sentence(name, what));
    };
    this.nodes.set(nodeid, node);
    for (let i = 0; i < 2; i++) this.#connect(node);
  }

  #connect(node: SimPlockNode): void {
    const client = newClient(this.#nextClientId++);
    client.lockspaces.set(1, { name: "sim", resources: new Map(), opens: 1, blocked: false });
    const sim = new SimPlockClient({
      nodeid: node.nodeid,
      clientId: client.id,
      lockspaceId: 1,
      random: this.random,
      checker: this.checker,
      deadly: this.#deadly,
      send: (request) => {
        this.#note(`client ${client.id} asks node ${node.nodeid}`, request);
        node.service.request(client, request);
      },
    });
    node.programs.set(client.id, { client, sim });
  }

  #channel(from: number, to: number): PlockMessage[] {
    const key = `${from}>${to}`;
    let channel = this.#channels.get(key);
    if (channel === undefined) {
      channel = [];
      this.#channels.set(key, channel);
    }
    return channel;
  }

  // ------------------------------------------------------------------------------------------------------------ steps

  step(): void {
    this.steps++;
    const { random } = this;
    // Some clocks stand still for a while.
    for (const { time } of this.nodes.values()) if (random.chance(0.3)) time.nowMs += random.int(20);
    for (const node of this.nodes.values()) if (node.gated && random.chance(0.005)) this.#open(node);
    if (!this.#calm && random.chance(0.003)) this.#trouble();
    else if ([...this.nodes.values()].some((node) => !node.serving) && random.chance(0.9)) this.#recover();
    else if (!this.#eager && random.chance(0.2)) this.#search(1 + random.int(this.#turn));
    else if (random.chance(0.6) || !this.#act()) this.#deliver(true);
    if (this.#eager) while (this.#search(Number.POSITIVE_INFINITY));
    this.checker.look([...this.nodes.values()].filter((node) => node.serving));
  }

  #open(node: SimPlockNode): void {
    node.gated = false;
    this.#note(`the gate of ${node.nodeid} opens`, null);
    if (node.serving) node.service.unblock();
  }

  #act(): boolean {
    // What others ask is saved for them by their nodes.
    const serving = [...this.nodes.values()].filter((node) => node.serving);
    if (serving.length === 0) return false;
    const node = this.random.pick(serving);
    const programs = [...node.programs.values()];
    if (programs.length === 0) return false;
    if (this.random.chance(0.01)) {
      this.#endProgram(node, this.random.pick(programs));
      this.#connect(node);
    } else this.random.pick(programs).sim.act();
    return true;
  }

  #endProgram(node: SimPlockNode, { client, sim }: Program): void {
    this.#note(`client ${client.id} ends`, null);
    client.gone = true;
    sim.ended();
    node.programs.delete(client.id);
    node.service.releaseClient(client);
  }

  /** One message of a random channel. False: there is none that may arrive now. */
  #deliver(running: boolean): boolean {
    const ready = [...this.#channels].filter(([key, channel]) => {
      const head = channel[0];
      if (head === undefined) return false;
      const rebuilds = head.kind === "plock-held" || head.kind === "plock-again";
      return rebuilds || (running && this.#node(key.split(">")[1] as string).serving);
    });
    if (ready.length === 0) return false;
    const [key, channel] = this.random.pick(ready);
    const [from, to] = key.split(">") as [string, string];
    const message = channel.shift() as PlockMessage;
    this.#note(`${from} -> ${to}`, message);
    this.#node(to).service.receive(Number(from), message);
    return true;
  }

  /** A turn of a node that serves. False: there is no work for one. */
  #search(budget: number): boolean {
    const searching = [...this.nodes.values()].filter(({ serving, service }) => serving && service.searching);
    if (searching.length === 0) return false;
    const node = this.random.pick(searching);
    this.#note(`${node.nodeid} searches`, budget);
    node.service.search(budget);
    return true;
  }

  #node(nodeid: string): SimPlockNode {
    return this.nodes.get(Number(nodeid)) as SimPlockNode;
  }

  /** First everybody names everything, some at a time, then one after the other begins to serve. */
  #recover(): void {
    const { random } = this;
    const naming = [...this.nodes.values()].filter((node) => !node.named);
    if ((naming.length === 0 || random.chance(0.5)) && this.#deliver(false)) return;
    if (naming.length > 0) {
      const node = random.pick(naming);
      node.named = node.service.name(1 + random.int(this.#turn));
      return;
    }
    const node = random.pick([...this.nodes.values()].filter((each) => !each.serving));
    // Its messages wait at those who do not serve yet; those who do may be told already.
    node.serving = node.service.settle(1 + random.int(this.#turn));
    if (!node.serving) return;
    this.#note(`${node.nodeid} serves`, null);
    if (!node.gated) node.service.unblock();
  }

  #trouble(): void {
    const { random } = this;
    const nodes = [...this.nodes.values()];
    const victim = random.pick(nodes);
    if (random.chance(0.5) && nodes.length > 1) this.#die(victim);
    if (random.chance(0.4)) {
      for (let nodeid = 1; nodeid <= 4; nodeid++) if (!this.nodes.has(nodeid) && random.chance(0.5)) this.#boot(nodeid);
    }
    this.#changeView();
  }

  #die(node: SimPlockNode): void {
    this.#note(`${node.nodeid} dies`, null);
    this.nodes.delete(node.nodeid);
    for (const { sim } of node.programs.values()) sim.ended();
    this.checker.died(node.nodeid);
  }

  #changeView(): void {
    this.views++;
    const members = [...this.nodes.keys()].sort((a, b) => a - b);
    this.#note("view", members);
    for (const [key, channel] of this.#channels) {
      const [from, to] = key.split(">") as [string, string];
      if (!this.nodes.has(Number(from)) || !this.nodes.has(Number(to))) {
        this.#channels.delete(key);
        continue;
      }
      // What survivors had said to each other has arrived, unless a connection lost its tail; of that only answers count.
      const arrived = channel.splice(0, this.random.chance(0.2) ? this.random.int(channel.length + 1) : channel.length);
      channel.length = 0;
      for (const message of arrived) {
        if (message.kind === "plock-answer") this.#node(to).service.receiveLate(message);
      }
    }
    for (const node of this.nodes.values()) Object.assign(node, { named: false, serving: false });
    if (this.random.chance(0.4)) for (const node of this.nodes.values()) node.gated = this.random.chance(0.8);
    const incarnation = (this.#incarnation++).toString(16).padStart(16, "0");
    for (const node of this.nodes.values()) node.service.startRebuild(members.map((nodeid) => ({ nodeid, incarnation })));
  }

  // ------------------------------------------------------------------------------------------------------------- runs

  #settle(): void {
    for (const node of this.nodes.values()) if (node.gated) this.#open(node);
    for (;;) {
      if ([...this.nodes.values()].some((node) => !node.serving)) this.#recover();
      else if (!this.#deliver(true) && !this.#search(1 + this.random.int(this.#turn))) return;
      this.checker.look([...this.nodes.values()].filter((node) => node.serving));
    }
  }

  /** That many steps of trouble; then nothing may wait in vain; then everybody lets go, and nothing may be left. Throws SimFailure. */
  run(steps: number): void {
    while (this.steps < steps) {
      this.step();
      if (this.random.chance(0.002)) this.#rest();
    }
    this.#rest();
    for (const node of this.nodes.values()) for (const program of node.programs.values()) this.#endProgram(node, program);
    this.#rest();
    for (const { nodeid, service } of this.nodes.values()) {
      if (service.master.files.size > 0) this.checker.fail(`node ${nodeid} masters files of nobody`);
      for (const owned of service.home.held()) this.checker.fail(`node ${nodeid} remembers ${owned.file} of nobody`);
    }
  }

  #rest(): void {
    this.#settle();
    this.checker.atRest([...this.nodes.values()]);
    const waiting = new Set<string>();
    for (const { service } of this.nodes.values()) {
      for (const { holder } of service.master.waiters()) waiting.add(`${holder.owner.nodeid}/${holder.owner.clientId}`);
    }
    for (const node of this.nodes.values()) {
      for (const { client, sim } of node.programs.values()) {
        if (sim.asked.size > 0 && !waiting.has(`${node.nodeid}/${client.id}`))
          this.checker.fail(`never answered: ${sim.describe().join("; ")}`);
      }
    }
  }

  #note(what: string, value: unknown): void {
    const text = value === null ? "" : JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? Number(each) : each));
    this.#trace.push(`${this.steps} ${what} ${text}`);
    if (this.#trace.length > 4000) this.#trace.splice(0, 2000);
  }

  lastEvents(): string {
    return this.#trace.slice(-Number(process.env["KEPT"] ?? 200)).join("\n");
  }
}
