#!/usr/bin/env node
/** The program `coverlay`. */
import { runCli } from "./cli/root.ts";

await runCli(process.argv.slice(2));
