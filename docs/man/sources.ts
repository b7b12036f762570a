/** The texts of the pages, and what else a page needs: read from the checkout, in its sources or its compiled tree. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { packageVersion } from "../../overlay/cli/version.ts";
import { KEYS_FILE, type PageSources, type PageText, pageNames } from "./pages.ts";
import { recordPrograms } from "./programs.ts";

/** Texts are not compiled: they stand in the checkout alone. */
const here = [import.meta.dirname, path.resolve(import.meta.dirname, "../../../docs/man")].find((folder) =>
  existsSync(path.join(folder, KEYS_FILE)),
);

function readText(file: string): string {
  if (here === undefined) throw new Error(`${KEYS_FILE} is in docs/man/ of the checkout, expected`);
  return readFileSync(path.join(here, file), "utf8");
}

export function readPages(): readonly PageText[] {
  return pageNames.map((page) => {
    const dot = page.lastIndexOf(".");
    return { name: page.slice(0, dot), section: page.slice(dot + 1), text: readText(`${page}.md`) };
  });
}

/** `date`: the day that the pages name. */
export async function readSources(date: string): Promise<PageSources> {
  return { programs: await recordPrograms(), version: packageVersion(), date, keysText: readText(KEYS_FILE) };
}
