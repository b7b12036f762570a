/** Deliberate mutations: a rule of the cores taken out, and what must notice that. The lists are data; mutations.ts runs them. */
export interface Mutation {
  readonly id: string;
  /** Of the hazards' list, where the rule is one of them. */
  readonly hazard?: string;
  /** What goes wrong without the rule. */
  readonly breaks: string;
  readonly file: string;
  /** Occurs exactly once. */
  readonly find: string;
  readonly replace: string;
  /** A test file, or a simulation (simulations.ts). */
  readonly caughtBy: string;
}
