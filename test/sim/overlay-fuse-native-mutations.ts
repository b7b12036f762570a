/** Rules of the transport over libfuse, whose kernel must cache nothing. */
import type { Mutation } from "./mutation.ts";

const uncached = "test/unit/session/fuse-native/uncached-kernel.test.ts";
const words = "test/unit/session/fuse-native/words.test.ts";
const paths = "test/unit/session/fuse-native/path-operations.test.ts";

export const overlayFuseNativeMutations: readonly Mutation[] = [
  {
    id: "f26-attributes-valid",
    hazard: "F26",
    breaks: "attributes are told as valid to a kernel that can not be notified",
    file: "overlay/coherence/pins.ts",
    find: "    if (this.#options.cachesNothing) return false;\n",
    replace: "",
    caughtBy: uncached,
  },
  {
    id: "f26-page-cache-granted",
    hazard: "F26",
    breaks: "an open there gets the right to a page cache, which nothing could drop",
    file: "overlay/coherence/pins.ts",
    find: '    if (this.#options.cachesNothing) return "direct";\n',
    replace: "",
    caughtBy: uncached,
  },
  {
    id: "f26-names-valid",
    hazard: "F26",
    breaks: "names are told as valid, as if they could be expired",
    file: "overlay/session/fuse-native/uncached-kernel.ts",
    find: "  incrementEpoch: null,\n",
    replace: "  incrementEpoch: done,\n",
    caughtBy: uncached,
  },
  {
    id: "f26-attributes-for-a-second",
    hazard: "F26",
    breaks: "libfuse tells attributes for a second, its default",
    file: "overlay/session/fuse-native/mount-fuse-native.ts",
    find: '  "attr_timeout=0",\n',
    replace: "",
    caughtBy: words,
  },
  {
    id: "f26-pages-kept",
    hazard: "F26",
    breaks: "files have a page cache",
    file: "overlay/session/fuse-native/mount-fuse-native.ts",
    find: '  "direct_io",\n',
    replace: "",
    caughtBy: words,
  },
  {
    id: "f26-lookups-kept",
    hazard: "F26",
    breaks: "what was looked up for one operation stays known for ever",
    file: "overlay/session/fuse-native/path-operations.ts",
    find: "    inodes.forget(fuseNodeid, 1);\n",
    replace: "",
    caughtBy: paths,
  },
  {
    id: "f26-names-remembered",
    hazard: "F26",
    breaks: "a name that was looked up counts as known to the kernel, and an unlink goes by it",
    file: "overlay/session/fuse-native/path-operations.ts",
    find: "      mount.coherence.names.dropEntry(dir, name);\n",
    replace: "",
    caughtBy: paths,
  },
];
