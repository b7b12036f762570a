/** ocf:coverlay:volume as Pacemaker runs it: a copy that every user may read, and a program `coverlay` of the test's choice. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type RunOptions, type RunResult, run } from "../overlay/lab/command.ts";

/** Of the Resource Agent API. */
export const Ocf = { SUCCESS: 0, GENERIC: 1, ARGS: 2, UNIMPLEMENTED: 3, INSTALLED: 5, CONFIGURED: 6, NOT_RUNNING: 7 } as const;

/** Why it cannot be run here; null: it can. */
export function noOcf(...more: readonly string[]): string | null {
  if (process.getuid?.() !== 0) return "it needs root";
  const files = ["/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs", ...more];
  const missing = files.filter((file) => !existsSync(file));
  return missing.length === 0 ? null : `${missing.join(", ")} not installed (Debian: resource-agents libxml2-utils)`;
}

export type Parameters = Readonly<Record<string, string>>;

export class OcfAgent {
  readonly folder: string;
  /** provider/type, as below /usr/lib/ocf/resource.d. */
  readonly file: string;
  /** The parameter `coverlay`. */
  readonly program: string;

  /** `script`: what `coverlay` is, in sh. */
  constructor(script: string, parent: string = tmpdir()) {
    this.folder = mkdtempSync(path.join(parent, "coverlay-ocf-"));
    chmodSync(this.folder, 0o755);
    this.file = path.join(this.folder, "coverlay/volume");
    this.program = path.join(this.folder, "program");
    mkdirSync(path.dirname(this.file));
    copyFileSync(path.join(import.meta.dirname, "../overlay/ocf/volume"), this.file);
    writeFileSync(this.program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  /** `timeoutS`: of the operation, as Pacemaker says it. */
  act(
    action: string,
    parameters: Parameters,
    env: Parameters = {},
    options: RunOptions & { readonly timeoutS?: number } = {},
  ): Promise<RunResult> {
    const given = Object.entries({ coverlay: this.program, ...parameters }).map(([name, value]) => [`OCF_RESKEY_${name}`, value]);
    const { timeoutS = 60, ...rest } = options;
    const environment = {
      PATH: process.env["PATH"],
      OCF_RESOURCE_INSTANCE: "shared",
      OCF_RESKEY_CRM_meta_timeout: `${timeoutS * 1000}`,
      OCF_RESKEY_CRM_meta_interval: "20000",
      ...Object.fromEntries(given),
      ...env,
    };
    return run(this.file, [action], { timeoutMs: 120_000, ...rest, env: environment });
  }

  end(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The words that crm_mon shows. */
export function reasonOf({ stderr }: RunResult): string {
  return [...stderr.matchAll(/^ocf-exit-reason:(.*)$/gm)].map(([, words]) => words).join("; ");
}
