#!/usr/bin/env node
/** The program `coverlay`. */
import { EXIT } from "../dlmd/base/exit-status.ts";
import { runCli } from "./cli/root.ts";

// A reader that has seen enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  throw error;
});
await runCli(process.argv.slice(2));
// What an interrupted command has waited for may not end, such as the answer of a dlmd.
if (process.exitCode === EXIT.INTERRUPTED) process.exit();
