/**
 * `npm run man`: writes the man pages to dist/man/, and completions to dist/completion/. The day is SOURCE_DATE_EPOCH's, if that is set, so
 * that a package is the same whenever it is built.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { completionFiles } from "./completion.ts";
import { renderPage } from "./pages.ts";
import { readPages, readSources } from "./sources.ts";

const dist = path.resolve(import.meta.dirname, "../..");

function day(): string {
  const epoch = process.env["SOURCE_DATE_EPOCH"];
  return (epoch === undefined ? new Date() : new Date(Number(epoch) * 1000)).toISOString().slice(0, 10);
}

function write(folder: string, name: string, text: string): void {
  mkdirSync(path.dirname(path.join(dist, folder, name)), { recursive: true });
  writeFileSync(path.join(dist, folder, name), text);
  process.stdout.write(`${path.join("dist", folder, name)}\n`);
}

const sources = await readSources(day());
for (const page of readPages()) write("man", `${page.name}.${page.section}`, renderPage(page, sources));
for (const [name, text] of completionFiles(sources.programs)) write("completion", name, text);
