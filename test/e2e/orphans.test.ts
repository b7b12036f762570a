/** Open files without a name across a clean change of the owner. The deaths, and XFS, are in orphans.long.test.ts. */
import { orphansSuite } from "./orphans-suite.ts";

orphansSuite("ext4", false);
