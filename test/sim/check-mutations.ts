/** Rules of the check of a machine that another node asks for (`coverlay doctor`), each broken once (mutation.ts). */
import type { Mutation } from "./mutation.ts";

const check = "dlmd/driver/self-check.ts";
const child = "dlmd/driver/check-process.ts";
const peers = "overlay/setup/look-peers.ts";
const checks = "test/unit/dlmd-shell/self-check.test.ts";
const network = "test/unit/dlmd-shell/peer-network.test.ts";
const handshakes = "test/unit/dlmd-shell/handshake.test.ts";
const judges = "test/unit/setup/judge-others.test.ts";
const asks = "test/unit/setup/look-peers.test.ts";

export const checkMutations: readonly Mutation[] = [
  {
    id: "check-for-each-asker",
    breaks: "each question starts a process",
    file: check,
    find: "const running = (this.#running ??= this.#begin(limitMs));",
    replace: "const running = (this.#running = this.#begin(limitMs));",
    caughtBy: checks,
  },
  {
    id: "check-askers-unlimited",
    breaks: "any number of connections waits for one check",
    file: check,
    find: "if (running.askers.size >= MAX_ASKERS) {",
    replace: "if (running.askers.size >= MAX_ASKERS * MAX_ASKERS) {",
    caughtBy: checks,
  },
  {
    id: "check-for-nobody",
    breaks: "a check goes on when all that asked have gone",
    file: check,
    find: "if (running.askers.delete(asker) && running.askers.size === 0) running.abort.abort();",
    replace: "running.askers.delete(asker);",
    caughtBy: checks,
  },
  {
    id: "check-while-one-ends",
    breaks: "a check begins before the process of the last one has ended",
    file: check,
    find: "if (running.abort.signal.aborted) {",
    replace: "if (running.abort.signal.aborted && running.askers.size > 0) {",
    caughtBy: checks,
  },
  {
    id: "check-before-all",
    breaks: "a check takes the processor before programs, as dlmd does",
    file: child,
    find: "const PRIORITY = 5;",
    replace: "const PRIORITY = -15;",
    caughtBy: checks,
  },
  {
    id: "check-of-any-length",
    breaks: "an answer is sent that no asker reads",
    file: child,
    find: "isTooLong || Buffer.byteLength(stdout) > MAX_CHECKED_BYTES",
    replace: "isTooLong || stdout.length > MAX_CHECKED_BYTES",
    caughtBy: checks,
  },
  {
    id: "check-within-a-handshake",
    breaks: "an asker is cut off after the time of a handshake",
    file: "dlmd/driver/peer-network.ts",
    find: "          // TLS has proved the key, and those that wait for a check have a limit of their own (self-check.ts).\n          proved();",
    replace: "",
    caughtBy: network,
  },
  {
    id: "check-asker-stays",
    breaks: "a connection that has ended waits on",
    file: "dlmd/driver/peer-network.ts",
    find: "          leave();\n",
    replace: "",
    caughtBy: network,
  },
  {
    id: "check-and-more",
    breaks: "one connection asks again and again",
    file: "dlmd/driver/handshake.ts",
    find: "    hasAsked = true;\n",
    replace: "",
    caughtBy: handshakes,
  },
  {
    id: "check-limit-unbounded",
    breaks: "a word of the network is a word of a command as it came",
    file: "dlmd/wire/self-check.ts",
    find: "return Math.min(Math.max(limitMs, MIN_CHECK_LIMIT_MS), MAX_CHECK_LIMIT_MS);",
    replace: "return limitMs;",
    caughtBy: "test/unit/dlmd-shell/wire-limits.test.ts",
  },
  {
    id: "check-waited-for-ever",
    breaks: "a node that says for ever that it goes on holds up the command",
    file: peers,
    find: "within ${wholeMs / 1000} s` }), wholeMs);",
    replace: "within ${wholeMs / 1000} s` }), 2 ** 31 - 1);",
    caughtBy: asks,
  },
  {
    id: "check-silence-of-any-length",
    breaks: "a node that says nothing any more is waited for",
    file: peers,
    find: "const answerMs = Math.max(limitMs, SILENCE_LEAST_MS);",
    replace: "const answerMs = 2 ** 31 - 1;",
    caughtBy: asks,
  },
  {
    id: "check-words-behind",
    breaks: "a word behind the answer keeps the command for the time of an answer",
    file: peers,
    find: "      if (isOver) return;\n",
    replace: "",
    caughtBy: asks,
  },
  {
    id: "check-of-another-node",
    breaks: "findings of one node are shown as those of another",
    file: "overlay/setup/foreign-report.ts",
    find: "if (data.node !== node) return",
    replace: "if (data.node === undefined) return",
    caughtBy: judges,
  },
  {
    id: "check-told-whole",
    breaks: "a report grows beyond what may be sent",
    file: "overlay/setup/judge-others.ts",
    find: "if (told.length >= MAX_TOLD_FINDINGS || bytes + more > MAX_TOLD_BYTES) continue;",
    replace: "if (told.length >= MAX_TOLD_FINDINGS) continue;",
    caughtBy: judges,
  },
  {
    id: "check-told-in-long-words",
    breaks: "a finding is told that its asker does not read, and all of that node's with it",
    file: "overlay/setup/judge-others.ts",
    find: "for (const finding of wanted.map(cutShort)) {",
    replace: "for (const finding of wanted) {",
    caughtBy: judges,
  },
  {
    id: "check-left-out-counts",
    breaks: "one finding for which there is no room keeps all that follow from being told",
    file: "overlay/setup/judge-others.ts",
    find: "|| bytes + more > MAX_TOLD_BYTES) continue;",
    replace: "|| bytes + more > MAX_TOLD_BYTES) break;",
    caughtBy: judges,
  },
  {
    id: "check-hung-disk-again",
    breaks: "each question leaves one more process at a disk that hangs",
    file: "overlay/setup/left-look.ts",
    find: "if (parent !== starter) return Number(pid);",
    replace: "if (parent === undefined && starter === undefined) return Number(pid);",
    caughtBy: "test/unit/setup/look-disk.test.ts",
  },
  {
    id: "check-hung-disk-of-anybody",
    breaks: "any user of the machine keeps a device from being looked at",
    file: "overlay/setup/left-look.ts",
    find: "      if (!isOwn(pid)) continue;\n",
    replace: "",
    caughtBy: "test/unit/setup/look-disk.test.ts",
  },
];
