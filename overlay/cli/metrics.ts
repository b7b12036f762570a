/**
 * `coverlay metrics`: the figures of this node in the text format of Prometheus (0.0.4), for the textfile collector of node_exporter. Nothing
 * listens. dlmd shows its own figures on its socket (dlmd/server/metrics-page.ts).
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, unlinkSync, writeSync } from "node:fs";
import type { CommandModule } from "yargs";
import { Counter, Gauge, Registry } from "prom-client";
import { OperatingError } from "../../dlmd/base/error.ts";
import { lookAtNode } from "../query/node-facts.ts";
import { type MetricRow, metricRows } from "../status/metric-rows.ts";
import { reportOf } from "../status/report.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { jsonText, runCommand } from "./output.ts";
import { packageVersion } from "./version.ts";

interface MetricsArguments extends NodeOptions {
  readonly output: string | undefined;
}

/** The text format. */
export function expose(rows: readonly MetricRow[]): Promise<string> {
  const registry = new Registry();
  for (const { name, type, help, samples } of rows) {
    // One without labels would be shown as 0.
    if (samples.length === 0) continue;
    const options = { name, help, labelNames: Object.keys(samples[0]?.labels ?? {}), registers: [registry] };
    if (type === "gauge") {
      const gauge = new Gauge(options);
      for (const { labels, value } of samples) gauge.set(labels, value);
    } else {
      const counter = new Counter(options);
      for (const { labels, value } of samples) counter.inc(labels, value);
    }
  }
  return registry.metrics();
}

/**
 * The name can be guessed, and root writes: O_EXCL opens nothing that another user has put there, nor follows a symbolic link. What a run left that
 * was killed is taken away once: in a container the pid may be the same each time.
 */
function openNew(made: string): number {
  try {
    return openSync(made, "wx", 0o644);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  unlinkSync(made);
  return openSync(made, "wx", 0o644);
}

/** A reader sees the file of before, or this one. Throws OperatingError "not-written". */
export function replaceFile(file: string, text: string): void {
  // The collector reads names that end in .prom alone.
  const made = `${file}.${process.pid}.new`;
  try {
    writeNew(openNew(made), made, file, text);
  } catch (error) {
    throw new OperatingError(`the figures could not be written to ${file}: ${(error as Error).message}`, {
      code: "not-written",
      hint: `The directory has to be there, this user alone has to be allowed to write to it, and ${made} has to be free.`,
      cause: error,
    });
  }
}

function writeNew(fd: number, made: string, file: string, text: string): void {
  try {
    try {
      for (let rest = Buffer.from(text); rest.length > 0; ) rest = rest.subarray(writeSync(fd, rest));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(made, file);
  } catch (error) {
    rmSync(made, { force: true });
    throw error;
  }
}

const details = `What it says: coverlay_level is 0 if the node is well, 1 if degraded, 2 if something is down on it, 3 if dlmd cannot be asked.
coverlay_problems has the same codes as \`coverlay status --json\`. dlmd and the mounts have 4 s to answer.
Exit status: 0 the figures were written, whatever they say; 1 they were not.
examples/prometheus/ has a timer and alerts, examples/grafana/ a dashboard.`;

export const metricsCommand: CommandModule<object, MetricsArguments> = {
  command: "metrics",
  describe: "the figures of this node in the text format of Prometheus",
  builder: (yargs) =>
    nodeOptions(yargs)
      .option("output", { type: "string", requiresArg: true, describe: "replace this file as a whole, instead of standard output" })
      .example("$0 metrics", "all figures, with what they mean")
      .example("$0 metrics --output /var/lib/prometheus/node-exporter/coverlay.prom", "for the textfile collector of node_exporter")
      .epilogue(details),
  handler: ({ runDir, output, json }) =>
    runCommand(json, async () => {
      const { facts } = await lookAtNode(runDir);
      const rows = metricRows(facts, reportOf(facts), packageVersion());
      const text = json ? `${jsonText(rows)}\n` : await expose(rows);
      if (output === undefined) process.stdout.write(text);
      else replaceFile(output, text);
    }),
};
