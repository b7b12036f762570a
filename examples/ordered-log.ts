/**
 * A log that reads the same everywhere: each line that is given to one of these programs, on any node, is printed by all of them, in one
 * order, and so is who comes and who goes, why, and before which line. What a program prints is what everybody prints from its join on.
 *
 *     node dist/examples/ordered-log.js /run/coverlay/dlmd.sock
 *
 * It is a group of programs: nobody keeps the log, and nobody is asked who comes first. A real one would write the lines to disk, and hand
 * what it has to newcomers when `members` says that they joined.
 */
import { createInterface } from "node:readline";
import { connectDlm } from "../dlmd/client/client.ts";
import type { GroupMember } from "../dlmd/client/group-api.ts";

const [socketPath = "/run/coverlay/dlmd.sock", name = "ordered-log"] = process.argv.slice(2);
const who = ({ nodeid, clientId }: GroupMember): string => `node ${nodeid} client ${clientId}`;

const end = (reason: Error): void => {
  console.error(reason.message);
  process.exit(1);
};
const client = await connectDlm(socketPath, { view() {}, gone: async () => {}, disconnected: end });
const group = await client.join(name, {
  message: ({ from, seq, data }) => console.log(`${who(from)} #${seq}: ${Buffer.from(data).toString()}`),
  members({ joined, left }) {
    for (const member of joined) console.log(`+ ${who(member)}`);
    for (const { member, reason } of left) console.log(`- ${who(member)} (${reason})`);
  },
  ended: end,
});
// One line after the other: the next is read when dlmd has taken the last.
for await (const line of createInterface({ input: process.stdin })) await group.multicast(Buffer.from(line));
await group.leave();
await client.close();
