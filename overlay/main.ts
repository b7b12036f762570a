#!/usr/bin/env node
/** The program `coverlay`. */
import { runCli } from "./cli/root.ts";

// A reader that has seen enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  throw error;
});
await runCli(process.argv.slice(2));
