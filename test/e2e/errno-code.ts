/** How a call to the file system ended, in one word, for tests that compare outcomes. */

/** "ok", or the name of its error ("ENOSPC"). */
export async function code(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
