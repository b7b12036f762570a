/** After a run: which tests were skipped, and why. A number alone is overlooked. */
import type { Reporter, TestModule, Vitest } from "vitest/node";

export default class SkipReporter implements Reporter {
  #filtered = false;

  onInit(vitest: Vitest): void {
    // With -t all others count as skipped.
    this.#filtered = vitest.config.testNamePattern !== undefined;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = modules.flatMap((module) =>
      [...module.children.allTests("skipped")].flatMap((test) => {
        const result = test.result();
        const note = result.state === "skipped" ? result.note : undefined;
        if (note === undefined && this.#filtered) return [];
        const reason = note ?? (process.getuid?.() === 0 ? "no reason given" : "it needs root");
        return [`skipped: ${module.relativeModuleId} > ${test.fullName}: ${reason}`];
      }),
    );
    if (lines.length > 0) process.stdout.write(`\n${lines.join("\n")}\n`);
  }
}
