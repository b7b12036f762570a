/** A sequence as a command that a person can paste: executor.py makes the calls again, and says what is answered beside what is expected. */
import path from "node:path";
import { USERS } from "../state.ts";
import type { Foreseen } from "./sequence.ts";

const SHOWN_BYTES = 160;

export function pasted(calls: readonly Foreseen[], mounts: readonly string[]): string {
  const program = path.join(import.meta.dirname.replace("/dist/test/", "/test/"), "executor.py");
  const lines = calls.map(({ made: { user, mount, call }, outcome }) => {
    const expected = "errno" in outcome ? outcome.errno : (JSON.stringify(outcome.value) ?? "").slice(0, SHOWN_BYTES);
    return JSON.stringify({ mount, call: [USERS[user]?.uid, call.op, call.args], expected });
  });
  return [`python3 ${path.relative(process.cwd(), program)} ${mounts.join(" ")} <<'END'`, ...lines, "END"].join("\n");
}
