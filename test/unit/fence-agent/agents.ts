/** Fence agents for tests: small shell programs in a folder of the test's own, with the interface of Debian's. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { FenceDeviceConfig } from "../../../dlmd/config/fence-config.ts";
import type { FenceTarget } from "../../../dlmd/fence-agent/fence-device.ts";

export interface AgentFolder {
  readonly folder: string;
  /** A file in it. */
  file(name: string, text: string, mode?: number): string;
  /** An agent: `body` is run for every action but metadata, with $action and all options in $folder/input. */
  agent(name: string, body: string, metadata?: string): string;
  remove(): void;
}

export function metadataOf(options: readonly string[], actions: readonly string[], required: readonly string[] = []): string {
  const parameters = options.map(
    (name) => `<parameter name="${name}" required="${required.includes(name) ? 1 : 0}"><content type="string"/></parameter>`,
  );
  return `<resource-agent name="fence_test"><parameters>${parameters.join("")}</parameters><actions>${actions.map((name) => `<action name="${name}"/>`).join("")}</actions></resource-agent>`;
}

export const usual: string = metadataOf(
  ["action", "ip", "password", "plug", "port"],
  ["on", "off", "reboot", "status", "monitor", "metadata"],
);

export function agentFolder(): AgentFolder {
  const folder = mkdtempSync(path.join(tmpdir(), "fence-agent-"));
  const file = (name: string, text: string, mode = 0o600): string => {
    const where = path.join(folder, name);
    writeFileSync(where, text);
    chmodSync(where, mode);
    return where;
  };
  return {
    folder,
    file,
    agent(name, body, metadata = usual) {
      file(`${name}.xml`, metadata);
      const text = `#!/bin/sh
cd ${folder}
if [ "$2" = metadata ]; then echo metadata >> asked; cat ${name}.xml; exit 0; fi
cat > input
action=$(sed -n 's/^action=//p' input)
echo $action >> asked
${body}
`;
      return file(name, text, 0o755);
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export function deviceOf(agent: string, more: Partial<FenceDeviceConfig> = {}): FenceDeviceConfig {
  return {
    name: "test",
    agent,
    kind: "power",
    options: {},
    optionFiles: {},
    action: "off",
    timeoutMs: 20_000,
    retries: 0,
    delayMs: 0,
    settleMs: 0,
    unfence: false,
    ...more,
  };
}

export function targetOf(agent: string, more: Partial<FenceDeviceConfig> = {}, target: Partial<FenceTarget["target"]> = {}): FenceTarget {
  return { device: deviceOf(agent, more), target: { device: "test", options: {}, ...target }, nodeName: "node3" };
}
