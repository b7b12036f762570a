/** Every list of mutations. */
import { configMutations } from "./config-mutations.ts";
import { engineMutations } from "./engine/mutations.ts";
import { lockMutations } from "./lock-mutations.ts";
import { moveMutations } from "./move-mutations.ts";
import type { Mutation } from "./mutation.ts";
import { plockMutations } from "./plock-mutations.ts";
import { recoveryMutations } from "./recovery-mutations.ts";

export const allMutations: readonly Mutation[] = [
  ...lockMutations,
  ...recoveryMutations,
  ...moveMutations,
  ...plockMutations,
  ...engineMutations,
  ...configMutations,
];
