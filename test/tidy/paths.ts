/** Files of the repository, and where a file that a document names has gone. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export const root: string = path.resolve(import.meta.dirname, "../..");

/** Their names are those of the checkout's folders: nothing installed, nothing built. */
const FOLDERS = ["overlay", "dlmd", "native", "test", "examples"];
const NOT_OURS = /(^|\/)(node_modules|build)\//;

export const read = (file: string): string => readFileSync(path.join(root, file), "utf8");

/** With the folder's name, in the order of the file system. */
export function filesBelow(folder: string): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .map((file) => path.join(folder, file))
    .filter((file) => !NOT_OURS.test(file));
}

/** Of these the files that are not there, each with where one of its name is now. */
export function missingOf(files: readonly string[]): string[] {
  return files
    .filter((file) => !existsSync(path.join(root, file)))
    .map((file) => {
      const moved = FOLDERS.flatMap(filesBelow).filter((other) => path.basename(other) === path.basename(file));
      return `${file} is not there${moved.length > 0 && moved.length < 4 ? `: was it moved to ${moved.join(" or ")}?` : ""}`;
    });
}
