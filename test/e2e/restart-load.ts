/** Programs that have all kinds of things open while the processes of a mount are restarted, and what they must see after that. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterAll } from "vitest";
import type { Actor } from "./actor.ts";
import type { TestLab } from "./lab.ts";
import { SteadyWorker } from "./steady-worker.ts";

/**
 * Works until its input ends, and has file locks all the time, some of files that all lock. It counts its turns under locks that all want (hazard F45). What it reads of others never goes back. A change may end with EIO where "doubts" are allowed: then it was
 * made, or it was not, and that is looked at.
 */
const lockingWorker = `
import errno,fcntl,json,os,sys,threading
me,may_doubt,others=sys.argv[1],sys.argv[2]=="doubts",sys.argv[3:]
doubts=0
def sure(change,made):
    global doubts
    while True:
        try: return change()
        except OSError as error:
            if not may_doubt or error.errno!=errno.EIO: raise
            doubts+=1
            if made(): return None
maybe=[]
def append_common(line):
    global doubts
    try: assert os.write(common,line)==len(line)
    except OSError as error:
        if not may_doubt or error.errno!=errno.EIO: raise
        doubts+=1; maybe.append(line.decode().strip())
stop=threading.Event()
threading.Thread(target=lambda:(sys.stdin.read(),stop.set()),daemon=True).start()
os.makedirs(me,exist_ok=True)
log=os.open(f"{me}/log",os.O_RDWR|os.O_CREAT|os.O_APPEND)
common=os.open("common",os.O_WRONLY|os.O_CREAT|os.O_APPEND)
count=os.open(f"{me}/count",os.O_RDWR|os.O_CREAT)
locked=os.open(f"{me}/locked",os.O_RDWR|os.O_CREAT); fcntl.lockf(locked,fcntl.LOCK_EX,1)
flocked=os.open(f"{me}/flocked",os.O_RDWR|os.O_CREAT); fcntl.flock(flocked,fcntl.LOCK_EX)
seen={other:0 for other in others}
turns=[0,0]
turn=[os.open(f"turn{k}",os.O_RDWR|os.O_CREAT) for k in (0,1)]
# All nodes have something of both files all the time.
for fd in turn: fcntl.lockf(fd,fcntl.LOCK_SH,1,1000)
def take_turn(k):
    if k==0: fcntl.lockf(turn[0],fcntl.LOCK_EX,10)
    else: fcntl.flock(turn[1],fcntl.LOCK_EX)
    count=b"%010d" % (int(os.pread(turn[k],10,0) or b"0")+1)
    sure(lambda: os.pwrite(turn[k],count,0),lambda: os.pread(turn[k],10,0)==count)
    turns[k]+=1
    if k==0: fcntl.lockf(turn[0],fcntl.LOCK_UN,10)
    # Whoever waits to convert has given up what he had.
    else: fcntl.flock(turn[1],fcntl.LOCK_SH if turns[1]%2 else fcntl.LOCK_UN)
n=0
while not stop.is_set():
    n+=1
    line=f"{n:08d}\\n".encode()
    assert sure(lambda: os.write(log,line),lambda: os.fstat(log).st_size==9*n) in (9,None)
    append_common(f"{me} {n:08d}\\n".encode())
    os.pwrite(count,line,0)
    new,kept,made=f"{me}/new",f"{me}/kept{n%20}",f"{me}/dir"
    sure(lambda: os.close(os.open(new,os.O_WRONLY|os.O_CREAT|os.O_EXCL)),lambda: os.path.exists(new))
    fd=os.open(new,os.O_WRONLY); os.write(fd,line*50); os.close(fd)
    sure(lambda: os.rename(new,kept),lambda: not os.path.exists(new))
    if n%3==0: sure(lambda: os.unlink(kept),lambda: not os.path.exists(kept))
    sure(lambda: os.mkdir(made),lambda: os.path.exists(made))
    sure(lambda: os.rmdir(made),lambda: not os.path.exists(made))
    if n%5==0: os.fsync(log)
    take_turn(n%2)
    fcntl.lockf(locked,fcntl.LOCK_EX,1,n); fcntl.lockf(locked,fcntl.LOCK_UN,1,max(1,n-5))
    short=os.open(f"{me}/short",os.O_RDWR|os.O_CREAT); fcntl.lockf(short,fcntl.LOCK_EX); os.close(short)
    assert os.stat(f"{me}/log").st_size==9*n, ("size",n)
    assert "log" in os.listdir(me)
    for other in others:
        try: now=int(open(f"{other}/count").read() or "0")
        except FileNotFoundError: continue
        assert now>=seen[other],("stale",other,now,seen[other])
        seen[other]=now
    print(n,flush=True)
os.fsync(log)
lines=os.pread(log,9*n+9,0).split()
assert lines==[f"{k:08d}".encode() for k in range(1,n+1)],("log",len(lines),n)
print(json.dumps({"rounds":n,"doubts":doubts,"maybe":maybe,"turns":turns}),flush=True)
`;

const before = `put("held","0"*8); put("gone","x"); os.mkdir("gonedir")`;
const begin = `
held=os.open("held",os.O_RDWR); gone=os.open("gone",os.O_RDWR); os.unlink("gone")
gonedir=os.open("gonedir",os.O_RDONLY)
writer=os.open("own",os.O_RDWR|os.O_CREAT); os.write(writer,b"a"*8192); os.fsync(writer)
mapped=mmap.mmap(writer,8192)
seen=mmap.mmap(held,8,prot=mmap.PROT_READ)
os.mkdir("work"); os.chdir("work")
os.mkdir("stream")
for k in range(400): put(f"stream/entry{k:04d}","")
stream=os.scandir("stream")
names=[next(stream).name for _ in range(150)]
os.pwrite(gone,b"kept",0)
result=os.stat("../held").st_ino
`;
const look = `
now=f"{number:08d}".encode()
result=[
 os.pread(held,8,0)==now, bytes(seen[:8])==now, get("../held")[:8].encode()==now,
 os.pread(gone,4,0)==b"kept", os.fstat(gone).st_nlink==0,
 os.path.exists(f"../there{number}"), not os.path.exists(f"../there{number-1}"),
 f"there{number}" in os.listdir(".."), os.stat("../held").st_size==8*number,
 os.getcwd().endswith("/work"), bytes(mapped[:4]).decode()]
mapped[0:4]=f"{number:04d}".encode(); mapped.flush()
os.pwrite(writer,now,4096)
`;
const write = `
fd=os.open("held",os.O_WRONLY); os.pwrite(fd,(f"{number:08d}"*number).encode(),0); os.close(fd)
put(f"there{number}","x")
if os.path.exists(f"there{number-1}"): os.unlink(f"there{number-1}")
`;

/** One on each node, in a directory of its own; it reads in those of the others. */
function lockingWorkers(nodes: TestLab["nodes"], doubts: "doubts" | "none" = "none"): SteadyWorker[] {
  const names = nodes.map(({ nodeid }) => `w${nodeid}`);
  return nodes.map(({ nodeid, mount }) => {
    const own = `w${nodeid}`;
    return new SteadyWorker(mount, [own, doubts, ...names.filter((name) => name !== own)], lockingWorker);
  });
}

/** One program that keeps everything open, and one on another node that changes what the first one sees. */
class Meeting {
  readonly #elsewhere: Actor;
  readonly #here: Actor;
  #number = 0;

  constructor(elsewhere: Actor, here: Actor) {
    this.#elsewhere = elsewhere;
    this.#here = here;
  }

  async begin(): Promise<void> {
    await this.#elsewhere.run(before);
    await this.#here.run(begin);
    await this.meet();
  }

  /** The other one writes, and this one sees it through all that it has open; and the other way round. */
  async meet(): Promise<void> {
    const stored = this.#number === 0 ? "aaaa" : String(this.#number).padStart(4, "0");
    this.#number += 1;
    const number = this.#number;
    await this.#elsewhere.run(write, { number });
    assert.deepEqual(await this.#here.run(look, { number }), [...Array.from({ length: 10 }, () => true), stored]);
    const own = await this.#elsewhere.run<string>(`result=get("own")`);
    assert.deepEqual([own.slice(0, 4), own.slice(4096, 4104)], [String(number).padStart(4, "0"), String(number).padStart(8, "0")]);
  }

  /** The listing goes on where it was. What has no name goes with its last close. */
  async end(): Promise<void> {
    const listed = await this.#here.run<string[]>(`names+=[entry.name for entry in stream]; result=sorted(names)`);
    const entries = Array.from({ length: 400 }, (_, k) => `entry${String(k).padStart(4, "0")}`);
    assert.deepEqual(listed, entries);
    await this.#here.run(`for fd in (gone,held,writer): os.close(fd)`);
  }
}

/** What workers have appended to their common file: each line once, and none besides. `rounds`: of w1, w2 ...; `maybe`: lines that may be missing. */
function checkCommon(text: string, rounds: readonly number[], maybe: readonly string[] = []): void {
  const lines = rounds.flatMap((each, at) => Array.from({ length: each }, (_, k) => `w${at + 1} ${String(k + 1).padStart(8, "0")}`));
  const found = text.trimEnd().split("\n");
  const there = new Set(found);
  const missing = new Set(maybe.filter((line) => !there.has(line)));
  assert.deepEqual(found.toSorted(), lines.filter((line) => !missing.has(line)).toSorted());
}

export interface LoadHow {
  /** Has everything open. */
  readonly here: Actor;
  /** Changes what that one sees. */
  readonly elsewhere: Actor;
  /** A change may end with EIO. */
  readonly doubts?: boolean;
}

/** All of that for one test. What it leaves ends with the tests of one describe. */
export class Load {
  readonly #workers: SteadyWorker[] = [];
  #nodes: TestLab["nodes"] = [];
  #meeting: Meeting | null = null;

  constructor() {
    afterAll(() => {
      for (const one of this.#workers) one.kill();
    });
  }

  /** Resolves when all is open, and each program has done something. */
  async begin(nodes: TestLab["nodes"], { here, elsewhere, doubts = false }: LoadHow): Promise<void> {
    this.#nodes = nodes;
    this.#meeting = new Meeting(elsewhere, here);
    await this.#meeting.begin();
    this.#workers.push(...lockingWorkers(nodes, doubts ? "doubts" : "none"));
    for (const one of this.#workers) await one.goesOn();
  }

  /** All programs have gone on since, and see what the others have written. */
  async goesOn(): Promise<void> {
    await this.#meeting?.meet();
    for (const one of this.#workers) await one.goesOn(2);
  }

  /** Looks at all that they have made. Gives how often each went round. */
  async end(): Promise<readonly number[]> {
    const rounds = await Promise.all(this.#workers.map((one) => one.end()));
    const maybe = this.#workers.flatMap(({ result }) => result?.maybe ?? []);
    const turns = [0, 1].map((k) => this.#workers.reduce((sum, { result }) => sum + (result?.turns?.[k] ?? 0), 0));
    for (const { mount } of this.#nodes.slice(0, 1)) {
      checkCommon(readFileSync(`${mount}/common`, "latin1"), rounds, maybe);
      assert.deepEqual(
        [0, 1].map((k) => Number(readFileSync(`${mount}/turn${k}`, "latin1"))),
        turns,
      );
    }
    this.#workers.length = 0;
    await this.#meeting?.end();
    return rounds;
  }
}
