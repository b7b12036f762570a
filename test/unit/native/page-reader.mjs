/**
 * A program that has a file of 5 bytes open and mapped, for keeper-drop.test.ts. For each line of its stdin it says what it finds: "read" by read(2), or the
 * name of an error; "map" in its mapping, where it ends by SIGBUS if there is no page.
 */
import { createRequire } from "node:module";
import { openSync, readSync } from "node:fs";
import { createInterface } from "node:readline";

const BYTES = 5;
const native = createRequire(import.meta.url)("../../../native/build/Release/coverlay.node");
const fd = openSync(process.argv[2]);
const mapped = Buffer.from(native.mapShared(fd, BYTES));

function read() {
  const buffer = Buffer.alloc(BYTES);
  try {
    readSync(fd, buffer, 0, BYTES, 0);
    return buffer.toString();
  } catch (error) {
    return error.code;
  }
}

createInterface({ input: process.stdin }).on("line", (asked) => console.log(asked === "map" ? mapped.toString() : read()));
console.log("ready");
