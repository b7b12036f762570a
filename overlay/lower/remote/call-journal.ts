/**
 * What outlives a crash of this process, of calls whose answers the owner remembers (hazard F38): the next process asks the owner what became of them, and
 * answers the kernel's requests for which they were made.
 */
export interface CallJournal {
  /**
   * Such a call is made: before it is sent. `request`: the kernel's number of the request for which it is made, 0: none waits for it. `body`: what it asks
   * for; null: of a call for which nothing waits, and of which no program was told. `data`: of a write that was made behind (hazard F23), what follows on the wire; that of
   * another one comes again with its request. They are to be copied now.
   */
  begun(id: number, type: number, request: number, body: Uint8Array | null, data: Uint8Array | null): void;
  /** Before it is acknowledged to the owner. `failed`: `body` is an errno. `body` is to be copied now. */
  answered(id: number, failed: boolean, body: Uint8Array): void;
  /** It ended otherwise: it will not be sent, or the session ends. */
  over(id: number): void;
}

export const NO_JOURNAL: CallJournal = { begun: () => undefined, answered: () => undefined, over: () => undefined };
