/** A real browser, Debian's, without a window. It asks nobody but the page under test. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const PROGRAM = "/usr/bin/chromium";
/** In words, for a test that is skipped; null: it is there. */
export const noBrowser: string | null = existsSync(PROGRAM) ? null : "the package chromium is not installed";

const FLAGS = [
  "--headless",
  // Its own sandbox refuses root.
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: PROGRAM, args: FLAGS });
}
