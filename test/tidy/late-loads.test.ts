/**
 * Code that is loaded when a program runs already may be of another version, after an upgrade of the package (packaging/README.md, "What runs during an
 * upgrade"). So there is none, but at these places.
 */
import { expect, it } from "vitest";
import { filesBelow, read } from "./paths.ts";

/** Each is reached before dlmd is ready, and before a mount answers. */
const AT_START: Readonly<Record<string, string>> = {
  "overlay/cli/root.ts": "the command that is run, before it begins",
  "native/index.ts": "the addon, at the first system call: dlmd raises its priority, an overlay opens its disk",
  "dlmd/driver/heartbeats.ts": "one thread for all lives: the first one begins before dlmd is ready",
  "overlay/session/fuse-native/binding.ts": "fuse-native: the mount itself is made by it, and it is loaded but once",
  "dlmd/driver/corosync/libraries.ts": "koffi: the first life waits for corosync's libraries before dlmd is ready",
};

it("code is loaded at the start of a program", () => {
  const late = /(?<![.\w"`])import\(|new Worker\(|createRequire\(|\bfork\(|require\(/;
  const found = ["overlay", "dlmd", "native"]
    .flatMap((room) => filesBelow(room))
    .filter((file) => /(?<!\.d)\.ts$/.test(file) && late.test(read(file)));
  expect(found.toSorted()).toEqual(Object.keys(AT_START).toSorted());
});
