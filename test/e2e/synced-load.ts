/** Programs that make and sync files on nodes which lose their power, or whose owner does; and a look whether what was synced is there. */
import { type Actor, startActor } from "./actor.ts";
import type { TestLab } from "./lab.ts";

const LONG_MS = 120_000;

/**
 * Files that are made and synced one after the other, until the program is told to end, or cannot go on; `synced`: those of which fsync(2) said that
 * they are on the disk. Of EIO and ESTALE it stands one, with which an owner's death may end the call that is under way: it makes that file again.
 */
const LOAD = `
if not os.path.ismount("."): raise RuntimeError("not mounted: the load would fill what is below")
synced, errors, go = 0, [], True
os.makedirs(place)
os.fsync(os.open(place, os.O_RDONLY)); os.fsync(os.open(".", os.O_RDONLY))
def works():
    global synced
    while go:
        try:
            fd = os.open(f"{place}/{synced}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(fd, str(synced).encode() * 1000)
                os.fsync(fd)
                synced += 1
            finally: os.close(fd)
        except OSError as error:
            errors.append(errno.errorcode.get(error.errno))
            if len(errors) > 1 or errors[0] not in ("EIO", "ESTALE"): break
thread = threading.Thread(target=works, daemon=True)
thread.start()
while synced < 20 and thread.is_alive(): time.sleep(0.001)
`;
const GOES_ON = `
then = synced
while synced < then + 20 and thread.is_alive(): time.sleep(0.001)
go = False
`;
/** What is not as it was synced: the number, what stat(2) and read(2) say of it, and what they say when they are asked again. */
const LOOK = `
def look(n):
    said = code(os.stat, f"{place}/{n}")
    if said != "ok": return said
    found = get(f"{place}/{n}")
    return "" if found == str(n) * 1000 else f"{len(found)} bytes: {found[:20]!r} to {found[-20:]!r}"
result = [(n, first, look(n)) for n in range(synced) if (first := look(n)) != ""]`;

/** Files of a node that were synced. */
export interface Synced {
  readonly place: string;
  readonly synced: number;
  /** Those that its program has met. */
  readonly errors: readonly string[];
}

export class SyncedLoad {
  readonly #place: string;
  readonly #actor: Actor;

  private constructor(place: string, actor: Actor) {
    this.#place = place;
    this.#actor = actor;
  }

  /** Resolves when 20 files are synced. */
  static async begin(lab: TestLab, nodeid: number, place: string): Promise<SyncedLoad> {
    const actor = startActor({ cwd: lab.node(nodeid).mount });
    await actor.run(LOAD, { place }, LONG_MS);
    return new SyncedLoad(place, actor);
  }

  /** Resolves when 20 files more are synced, or it could not go on. */
  async goesOnAndEnds(): Promise<Synced> {
    await this.#actor.run(GOES_ON, {}, LONG_MS);
    return this.ended();
  }

  /** Its mount is dead, or will be. */
  async ended(): Promise<Synced> {
    const [synced, errors] = await this.#actor.run<[number, string[]]>(`thread.join(); result = [synced, errors]`, {}, LONG_MS);
    return { place: this.#place, synced, errors };
  }
}

/** Looks from that node; gives those that are not as they were synced, with what is wrong. Its mount is not busy afterwards. */
export async function wrongOf(lab: TestLab, nodeid: number, all: readonly Synced[]): Promise<unknown[]> {
  const reader = startActor({ cwd: lab.node(nodeid).mount });
  const wrong: unknown[] = [];
  for (const { place, synced } of all)
    wrong.push(...(await reader.run<unknown[]>(LOOK, { place, synced }, LONG_MS)).map((file) => [nodeid, place, file]));
  reader.signal("SIGKILL");
  await reader.ended;
  return wrong;
}
