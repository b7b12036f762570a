/**
 * Exception 4 of the contract: `..` and getcwd(2) go by the kernel's own cache of names, which no request changes. docs/kernel/README.md says
 * what the kernel does; these are the states that it speaks of.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Actor, until } from "../actor.ts";
import { hazardLab } from "./hazard-lab.ts";

/** Where the directory is, by each of three ways: its `..` from a descriptor, its `..` by path, and its name. */
const WHERE = `
up = os.open("..", os.O_RDONLY, dir_fd=fd)
places = {number: name for name, number in tops.items()}
result = [places[os.fstat(up).st_ino], places[os.stat(rise).st_ino], os.path.relpath(os.getcwd(), mount)]
os.close(up)`;

/** The same of a program in a directory below. */
const rows = [
  { below: "", rise: ".." },
  { below: "/x/y", rise: "../../.." },
] as const;

describe("a directory in use that another node moves to another parent", () => {
  const hazard = hazardLab();
  let made = 0;

  /** A program in it, or below it, on a node that did not make it; `move` is done by another one. */
  async function scene(below: string, rise: string): Promise<{ user: Actor; other: Actor; move: () => Promise<unknown>; at: string }> {
    const [a, b] = [hazard.owner, hazard.remotes[0]];
    const at = `move-${(made += 1)}`;
    const mover = hazard.actor(a);
    await mover.run(`for name in ("old/d/x/y", "new"): os.makedirs(at + "/" + name)`, { at });
    const user = hazard.actor(b, { below: `${at}/old/d${below}` });
    const given = { mount: hazard.mount(b), at, rise, d: `${hazard.mount(b)}/${at}/old/d` };
    await user.run(`fd = os.open(d, os.O_RDONLY); tops = {n: os.stat(mount + "/" + at + "/" + n).st_ino for n in ("old", "new")}`, given);
    const move = (): Promise<unknown> => mover.run(`os.rename(at + "/old/d", at + "/new/d")`);
    return { user, other: hazard.actor(b), move, at };
  }

  it.each(rows)("$rise of it is the old parent, until a program of the node looks at the new place", async ({ below, rise }) => {
    const { user, other, move, at } = await scene(below, rise);
    expect(await user.run(WHERE)).toEqual(["old", "old", `${at}/old/d${below}`]);
    await move();
    expect(await user.run(WHERE)).toEqual(["old", "old", `${at}/old/d${below}`]);
    // What is made in it is made in the right one.
    await user.run(`put("made", "x")`);
    expect(await other.run(`result = os.path.exists(at + "/new/d" + below + "/made")`, { at, below })).toBe(true);
    expect(await user.run(WHERE)).toEqual(["new", "new", `${at}/new/d${below}`]);
  });

  it("the kernel asks for the attributes of the directory before it goes up, and for nothing before getcwd(2)", async () => {
    const { user, move } = await scene("", "..");
    await move();
    const b = hazard.remotes[0];
    await hazard.hold(b);
    // getcwd(2) is answered by the kernel alone.
    expect(await user.run<string>(`result = os.getcwd()`)).toMatch(/\/old\/d$/);
    const up = user.run(`result = os.stat("..").st_ino`);
    const stack = (): string => readFileSync(`/proc/${user.pid}/stack`, "latin1");
    await until("it asks", () => /fuse_do_getattr[^]*fuse_permission[^]*link_path_walk/.test(stack()), stack);
    hazard.letGo(b);
    await up;
  });
});
