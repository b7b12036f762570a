/** The time of the step that a node is in: read by its cores, set by the node alone. */
export interface StepTime {
  readonly nowMs: number;
}
