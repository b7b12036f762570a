/** Bits of a request, as `LockFlag` in client/api.ts gives them to programs (dlm.h DLM_LKF_*); the thin version serves these. */
export const NOQUEUE = 0x01;
export const NOQUEUEBAST = 0x02;
export const VALBLK = 0x04;
export const IVVALBLK = 0x08;
export const allFlags: number = NOQUEUE | NOQUEUEBAST | VALBLK | IVVALBLK;
