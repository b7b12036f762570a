#!/usr/bin/env node
/** The program `coverlay`. */
import { EXIT } from "../dlmd/base/exit-status.ts";
import { outliveReaders } from "./cli/output.ts";
import { runCli } from "./cli/root.ts";

outliveReaders();
await runCli(process.argv.slice(2));
// What an interrupted command has waited for may not end, such as the answer of a dlmd.
if (process.exitCode === EXIT.INTERRUPTED) process.exit();
