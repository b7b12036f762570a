/** A register on a disk that may lose what was not synced. Pure. */
import type { Model } from "./linearize.ts";

export type RegisterOperation =
  | { readonly kind: "write"; readonly value: number }
  | { readonly kind: "read"; readonly value: number }
  | { readonly kind: "sync" }
  /** The owner of the disk has died: of what was not synced any one value may be there. */
  | { readonly kind: "lose" };

export interface RegisterState {
  readonly value: number;
  /** Values that were there since the last sync, without the present one. */
  readonly unstable: readonly number[];
  /** Losses that may still come: after the last one nothing needs to be remembered. */
  readonly lossesLeft: number;
}

export const registerModel: Model<RegisterState, RegisterOperation> = {
  key: ({ value, unstable, lossesLeft }) => `${value} (${unstable.join(",")}) ${lossesLeft}`,
  step(state, operation) {
    switch (operation.kind) {
      case "write": {
        const unstable = state.lossesLeft === 0 ? [] : [...new Set([...state.unstable, state.value])].toSorted((a, b) => a - b);
        return [{ ...state, value: operation.value, unstable: unstable.filter((value) => value !== operation.value) }];
      }
      case "read":
        return operation.value === state.value ? [state] : [];
      case "sync":
        return [{ ...state, unstable: [] }];
      case "lose":
        return [state.value, ...state.unstable].map((value) => ({ value, unstable: [], lossesLeft: state.lossesLeft - 1 }));
    }
  },
};
