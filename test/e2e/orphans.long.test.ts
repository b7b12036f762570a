/** Open files without a name when openers and owners die. */
import { orphansSuite } from "./orphans-suite.ts";

orphansSuite("ext4", true);
orphansSuite("xfs", true);
