/** The files of the page, as they lie in the repository and in the package. No name from a request comes to the disk. */
import { readFileSync } from "node:fs";
import path from "node:path";

export interface PageFile {
  readonly type: string;
  readonly bytes: Buffer;
}

/** By the last part of the path; "": the page itself. */
const FILES: Readonly<Record<string, { readonly file: string; readonly type: string }>> = {
  "": { file: "index.html", type: "text/html; charset=utf-8" },
  "page.css": { file: "page.css", type: "text/css; charset=utf-8" },
  "page.mjs": { file: "page.mjs", type: "text/javascript; charset=utf-8" },
  "parts.mjs": { file: "parts.mjs", type: "text/javascript; charset=utf-8" },
  "picture.mjs": { file: "picture.mjs", type: "text/javascript; charset=utf-8" },
  "icon.svg": { file: "icon.svg", type: "image/svg+xml" },
};

/** They are no TypeScript, so the compiler leaves them where they are: beside `dist/`. */
const folder = path.resolve(import.meta.dirname, import.meta.filename.endsWith(".js") ? "../../../overlay/ui/page" : "page");

/** Read once, at the start: an upgrade meanwhile changes nothing. */
export function readPageFiles(): ReadonlyMap<string, PageFile> {
  return new Map(
    Object.entries(FILES).map(([name, { file, type }]) => [name, { type, bytes: readFileSync(path.join(folder, file)) }] as const),
  );
}
