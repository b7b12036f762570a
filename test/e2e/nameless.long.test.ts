/** Files that are made without a name when openers and owners die. */
import { namelessSuite } from "./nameless-suite.ts";

namelessSuite("ext4", true);
namelessSuite("xfs", true);
