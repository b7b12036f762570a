/** The one order in which operations of all nodes take several locks: so no two of them wait for each other. Pure. */
import { compareFileIds } from "../../lower/lower.ts";
import type { Want } from "../api.ts";

/** In that order, each inode once, in the strongest mode asked. */
export function orderWants(wants: readonly Want[]): readonly Want[] {
  const [first, second] = wants;
  // A directory and a file in it: nearly always two.
  if (wants.length === 2 && first !== undefined && second !== undefined && first.inode !== second.inode) {
    return compareFileIds(first.inode.id, second.inode.id) <= 0 ? wants : [second, first];
  }
  const sorted = [...wants].sort((a, b) => compareFileIds(a.inode.id, b.inode.id));
  const once: Want[] = [];
  for (const want of sorted) {
    const last = once.at(-1);
    if (last === undefined || last.inode !== want.inode) once.push(want);
    else if (want.mode > last.mode) once[once.length - 1] = want;
  }
  return once;
}
