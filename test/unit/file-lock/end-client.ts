import type { PlockMaster } from "../../../dlmd/plock/master.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";

/** What a client that is gone has and asks for of that file goes, as its home does it (dlmd/plock/home.ts). `asked`: each request as "client id", and its file. */
export function endClient(
  master: PlockMaster,
  client: number,
  of: string,
  asked: Iterable<readonly [request: string, file: string]>,
): void {
  for (const [request, file] of asked) {
    const [by, id] = request.split(" ").map(Number) as [number, number];
    if (by === client && file === of) master.cancel(client, id);
  }
  for (const { name, ranges, flock } of Array.from(master.files.values())) {
    if (name !== of) continue;
    for (const table of [ranges, flock])
      for (const holder of Array.from(table.holders.values())) {
        if (holder.owner.nodeid !== client) continue;
        table.take(holder, 0n, maxOffset);
        table.release(holder);
      }
  }
}
