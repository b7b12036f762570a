/** Programs that work in a mount of a lab until they are told to end, and then look whether all that they did is there. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { until } from "./actor.ts";

/** Works in the mount until its input ends: one line for each round, and at the end what it has seen. */
const withFileLocks = `
import fcntl,json,os,sys,threading
me=sys.argv[1]
stop=threading.Event()
threading.Thread(target=lambda:(sys.stdin.read(),stop.set()),daemon=True).start()
os.makedirs(me,exist_ok=True)
log=os.open(f"{me}/log",os.O_RDWR|os.O_CREAT|os.O_APPEND)
held=os.open(f"{me}/held",os.O_RDWR|os.O_CREAT)
n=0
while not stop.is_set():
    n+=1
    line=f"{n:08d}\\n".encode()
    assert os.write(log,line)==9
    os.pwrite(held,line,9*n)
    fd=os.open(f"{me}/new",os.O_WRONLY|os.O_CREAT|os.O_EXCL); os.write(fd,line*50); os.close(fd)
    os.rename(f"{me}/new",f"{me}/kept{n%20}")
    if n%3==0: os.unlink(f"{me}/kept{n%20}")
    os.mkdir(f"{me}/dir"); os.rmdir(f"{me}/dir")
    shared=os.open("shared",os.O_RDWR|os.O_CREAT)
    fcntl.lockf(shared,fcntl.LOCK_EX)
    count=int(os.pread(shared,20,0) or b"0")+1
    os.pwrite(shared,str(count).encode(),0)
    os.close(shared)
    if n%7==0: os.fsync(log)
    os.stat(f"{me}/held"); os.listdir(me)
    print(n,flush=True)
os.fsync(log); os.fsync(held)
lines=os.pread(log,9*n+9,0).split()
assert lines==[f"{k:08d}".encode() for k in range(1,n+1)],("log",len(lines),n)
assert os.pread(held,9,9*n)==f"{n:08d}\\n".encode()
print(json.dumps({"rounds":n}),flush=True)
`;

/** `program`: for python3; says the number of each round, ends with its input, and then says {"rounds":N}. `words`: its arguments. */
export class SteadyWorker {
  readonly #child: ChildProcess;
  rounds = 0;
  result: {
    readonly rounds: number;
    readonly doubts?: number;
    readonly maybe?: readonly string[];
    readonly turns?: readonly number[];
  } | null = null;
  #errors = "";

  constructor(mount: string, words: readonly string[], program: string = withFileLocks) {
    this.#child = spawn("python3", ["-u", "-c", program, ...words], { cwd: mount, stdio: ["pipe", "pipe", "pipe"] });
    const lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    lines.on("line", (line) => {
      if (line.startsWith("{")) this.result = JSON.parse(line) as NonNullable<SteadyWorker["result"]>;
      else this.rounds = Number(line);
    });
    this.#child.stderr?.on("data", (chunk: Buffer) => (this.#errors += chunk.toString()));
  }

  /** It has done so many rounds more. */
  async goesOn(rounds = 3): Promise<void> {
    const target = this.rounds + rounds;
    await until(`${rounds} rounds more`, () => {
      if (this.#child.exitCode !== null) throw new Error(`the program ended: ${this.#errors}`);
      return this.rounds >= target;
    });
  }

  async end(): Promise<number> {
    const closed = this.#child.exitCode === null ? once(this.#child, "close") : Promise.resolve();
    this.#child.stdin?.end();
    await closed;
    if (this.result === null) throw new Error(`the program failed after ${this.rounds} rounds: ${this.#errors}`);
    return this.result.rounds;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
