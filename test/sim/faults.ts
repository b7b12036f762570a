/** What goes wrong in a simulation and how often: the parameters of `npm run sim`, one list for all simulations. */
import type { Weather } from "./network.ts";

/** Each has a rate, in faults a second of simulated time of the whole cluster. */
export const faultKinds = {
  crash: "nodes that lose their power, and start again",
  "client-death": "programs that die",
  hang: "programs that stand still",
  cut: "links that carry nothing, both ways or one way",
  heal: "all links carry everything again",
  break: "TCP connections that break",
  pause: "nodes that stand still",
  busy: "nodes whose main thread stands still, while its heartbeats go on",
  leave: "nodes that leave, and come back",
  "slow-disk": "disks that keep nothing for a while",
  forget: "nodes that lose their power and all that they had stored",
} as const;
export type FaultKind = keyof typeof faultKinds;
export type FaultRates = Readonly<Record<FaultKind, number>>;

export const weatherKinds = {
  loss: "share of datagrams that are lost",
  duplicate: "share of datagrams that come twice",
  late: "share of datagrams that come late, after others",
  "max-delay": "how late, in ms",
  drift: "how much faster or slower than others a clock may run, at most; cluster only",
} as const;

/** What the command line sets; what it does not, the seed says. */
export interface FaultOptions {
  readonly rates: Partial<FaultRates>;
  readonly weather: Partial<Weather>;
}
export const noFaultOptions: FaultOptions = { rates: {}, weather: {} };
