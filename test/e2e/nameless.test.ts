/** Files that are made without a name, across a clean change of the owner. The deaths, and XFS, are in nameless.long.test.ts. */
import { namelessSuite } from "./nameless-suite.ts";

namelessSuite("ext4", false);
