/**
 * A machine: a process of QEMU that emulates its processor (TCG; no KVM is needed). Its power is that process: SIGKILL cuts it. What was written to a disk
 * before, from the kernel in it, is in this machine's page cache, and a write that QEMU had begun has ended when the process has.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, copyFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { type AgentLink, type Typed, listenForAgent } from "./agent-link.ts";
import { type VmImage, hardwareAddressOf, machineIdOf } from "./image.ts";
import { MONITOR_KERNEL_WORDS, monitorWords, pressTaskKeys } from "./monitor.ts";
import type { VmNetwork } from "./network.ts";
import { listenForPower } from "./power.ts";
import { progress } from "./progress.ts";

const MEMORY_MIB = 1024;
/** Of whatever is waited for. Where other programs take the processors, a boot was seen to take five minutes, and an installation nine. */
const WAIT_LIMIT_MS = Number(process.env["COVERLAY_VM_WAIT_S"] ?? 1200) * 1000;
const CONSOLE_LINES = 60;
/** AES and SSE 4.2, but no AVX, which is slow to emulate. */
const PROCESSOR = "Westmere";
const KERNEL_WORDS =
  "root=/dev/vda rw console=ttyS0 loglevel=4 systemd.show_status=yes systemd.log_color=no panic=-1 mitigations=off nokaslr cryptomgr.notests";

export interface MachineParts {
  readonly nodeid: number;
  /** Sockets, the console and the root are there. */
  readonly dir: string;
  readonly image: VmImage;
  /** Its own, which its lives share. */
  readonly root: string;
  /** The disk that all machines have. */
  readonly shared: string;
  /** Read-only, as a stick that a person puts in. */
  readonly stick: string;
  readonly network: VmNetwork;
  /** Asked by its fence agent: "off node1". */
  readonly onPower: (request: string) => Promise<string>;
}

export interface Machine {
  readonly name: string;
  readonly nodeid: number;
  isOn(): boolean;
  /** Switches it on, and waits until commands can be typed. */
  boot(): Promise<void>;
  /** SIGKILL; returns when nothing of it runs any more. */
  cutPower(): Promise<void>;
  /** It has switched itself off, or restarts: then it is to be booted. Ask before it is ordered. */
  untilOff(): Promise<void>;
  /** Rejects at once if the machine is off. */
  run(script: string): Promise<Typed>;
  /** The same; throws with all that was said unless its exit status is 0. Gives its stdout. */
  type(script: string): Promise<string>;
  /** Looks, in the machine, until the command succeeds. */
  until(what: string, command: string): Promise<void>;
  /** Rejects with the console's last lines if it takes too long. */
  waitFor<T>(what: string, event: Promise<T>): Promise<T>;
  end(): Promise<void>;
}

function qemuWords(parts: MachineParts): string[] {
  const { nodeid, dir, image, root, shared, stick } = parts;
  const socket = (name: string): string => path.join(dir, `${name}.sock`);
  const options: readonly (readonly string[])[] = [
    ["-nodefaults"],
    ["-no-user-config"],
    ["-name", `node${nodeid}`],
    ["-display", "none"],
    // A restart ends the process, and the next one begins with an empty memory: a warm one was seen to take three minutes to its kernel's first line.
    ["-no-reboot"],
    ["-pidfile", path.join(dir, "qemu.pid")],
    ["-machine", "pc"],
    ["-accel", "tcg"],
    ["-cpu", PROCESSOR],
    ["-smp", "1"],
    ["-m", String(MEMORY_MIB)],
    ["-kernel", image.kernel],
    ["-initrd", image.initrd],
    ["-append", `${KERNEL_WORDS} ${MONITOR_KERNEL_WORDS} systemd.hostname=node${nodeid} systemd.machine_id=${machineIdOf(nodeid)}`],
    ["-serial", "stdio"],
    monitorWords(socket("monitor")),
    ["-device", "virtio-rng-pci"],
    ["-device", "virtio-serial-pci"],
    ["-chardev", `socket,id=agent,server=off,path=${socket("agent")}`],
    ["-device", "virtserialport,chardev=agent,name=coverlay.agent"],
    ["-chardev", `socket,id=power,server=off,path=${socket("power")}`],
    ["-device", "virtserialport,chardev=power,name=coverlay.power"],
    // Its page cache is this machine's, which outlives it: no flush is needed for a root that only this process writes.
    ["-drive", `file=${root},format=raw,if=none,id=root,cache=unsafe`],
    ["-device", "virtio-blk-pci,drive=root"],
    ["-drive", `file=${stick},format=raw,if=none,id=stick,readonly=on,file.locking=off`],
    ["-device", "virtio-blk-pci,drive=stick,share-rw=on"],
    // A disk of SCSI that all machines write: nothing of it is kept in a process, and QEMU's own lock would refuse the second one.
    ["-drive", `file=${shared},format=raw,if=none,id=shared,cache=none,file.locking=off`],
    ["-device", "virtio-scsi-pci"],
    ["-device", "scsi-hd,drive=shared,serial=shared,share-rw=on"],
    ["-netdev", `stream,id=net,server=off,addr.type=unix,addr.path=${socket("net")}`],
    ["-device", `virtio-net-pci,netdev=net,mac=${hardwareAddressOf(nodeid)},romfile=`],
  ];
  return options.flat();
}

/** What was waited for has not come within its limit: the machine may stand still. */
class TooLate extends Error {}

/** The console of one machine, of all its lives: a file, and the last lines for an error. */
function consoleOf(file: string): { add(bytes: Buffer): void; lastLines(): string } {
  let text = "";
  return {
    add(bytes) {
      appendFileSync(file, bytes);
      text = (text + bytes.toString("latin1")).slice(-64 * 1024);
    },
    lastLines: () => text.split(/\r?\n/).slice(-CONSOLE_LINES).join("\n"),
  };
}

interface Power {
  process: ChildProcess | null;
  ended: Promise<void>;
}

function switchOn(parts: MachineParts, power: Power, console_: ReturnType<typeof consoleOf>, agent: AgentLink): void {
  const name = `node${parts.nodeid}`;
  // Ends with this process, whatever ends that.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...qemuWords(parts)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const output of [child.stdout, child.stderr]) output.on("data", (bytes: Buffer) => console_.add(bytes));
  const untilClosed = async (): Promise<void> => {
    await once(child, "close");
    power.process = null;
    agent.drop(`${name} is off`);
  };
  power.process = child;
  power.ended = untilClosed();
}

export async function plugIn(parts: MachineParts): Promise<Machine> {
  const { nodeid, dir, network } = parts;
  const name = `node${nodeid}`;
  const consoleFile = path.join(dir, "console.log");
  const console_ = consoleOf(consoleFile);
  await network.attach(nodeid, path.join(dir, "net.sock"));
  const agent = await listenForAgent(path.join(dir, "agent.sock"));
  const endPower = await listenForPower(path.join(dir, "power.sock"), parts.onPower);
  const power: Power = { process: null, ended: Promise.resolve() };

  /** What its tasks wait for, in a file that outlives the machine; gives the words that name it. */
  const keepStanding = async (): Promise<string> => {
    if (power.process === null) return "It is off.";
    const file = path.join(os.tmpdir(), `coverlay-vm-${name}-${process.pid}.console`);
    await pressTaskKeys(path.join(dir, "monitor.sock")).catch((error: Error) =>
      console_.add(Buffer.from(`no monitor: ${error.message}\n`)),
    );
    copyFileSync(consoleFile, file);
    return `Its console, with what each of its tasks waits for: ${file}`;
  };
  const waitFor = async <T>(what: string, event: Promise<T>): Promise<T> => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new TooLate(`not within ${WAIT_LIMIT_MS / 1000} s`)), WAIT_LIMIT_MS);
    });
    try {
      return await Promise.race([event, late]);
    } catch (error) {
      const { message } = error as Error;
      const lines = console_.lastLines();
      const kept = error instanceof TooLate ? `\n${await keepStanding()}` : "";
      throw new Error(`${name}: ${what}: ${message}\nThe last lines of its console:\n${lines}${kept}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  };
  const send = (script: string): Promise<Typed> =>
    power.process === null ? Promise.reject(new Error(`${name} is off: ${script}`)) : agent.type(script);
  const run = (script: string): Promise<Typed> => waitFor(script, send(script));
  const type = async (script: string): Promise<string> => {
    const { status, stdout, stderr } = await run(script);
    if (status === 0) return stdout;
    throw new Error(`${name}: ${script}: exit status ${status}\n${stdout}${stderr}`);
  };
  const untilBooted = async (): Promise<void> => {
    const off = power.ended.then(() => {
      throw new Error("it has ended");
    });
    await waitFor("it boots", Promise.race([agent.nextBoot(), off]));
    progress(`${name} has booted`);
  };
  return {
    name,
    nodeid,
    isOn: () => power.process !== null,
    async boot() {
      if (power.process !== null) throw new Error(`${name} is on already`);
      progress(`${name} is switched on`);
      switchOn(parts, power, console_, agent);
      await untilBooted();
    },
    async cutPower() {
      progress(`the power of ${name} is cut`);
      power.process?.kill("SIGKILL");
      await power.ended;
    },
    untilOff: () => waitFor("it switches itself off", power.ended),
    run,
    type,
    async until(what, command) {
      await waitFor(what, send(`until ( ${command} ) >/dev/null 2>&1; do sleep 2; done`));
    },
    waitFor,
    async end() {
      power.process?.kill("SIGKILL");
      await power.ended;
      agent.end();
      endPower();
    },
  };
}
