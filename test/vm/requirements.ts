/** What virtual machines need of this one: all that is missing is said at once, before anything is made. */
import { thisMachine } from "../../overlay/lab/prerequisites.ts";

interface Program {
  readonly name: string;
  /** Debian's. */
  readonly package: string;
}

const programs: readonly Program[] = [
  { name: "qemu-system-x86_64", package: "qemu-system-x86" },
  { name: "mmdebstrap", package: "mmdebstrap" },
  { name: "mkfs.ext4", package: "e2fsprogs" },
  { name: "setpriv", package: "util-linux" },
  { name: "dpkg-shlibdeps", package: "dpkg-dev" },
];

/** Null: all is there. */
export function missingForMachines({ uid, hasTool }: Pick<ReturnType<typeof thisMachine>, "uid" | "hasTool">, arch: string): string | null {
  const missing = programs.filter(({ name }) => !hasTool(name)).map((program) => program.package);
  const words = [
    ...(arch === "x64" ? [] : [`machines of this processor (${arch}) are not known here, only x64`]),
    ...(uid === 0 ? [] : ["root is needed, to make a Debian"]),
    ...(missing.length === 0
      ? []
      : [`missing packages: ${missing.join(" ")} (apt-get install --no-install-recommends ${missing.join(" ")})`]),
  ];
  return words.length === 0 ? null : `npm run test:vm: ${words.join("; ")}`;
}

export default function setup(): void {
  const missing = missingForMachines(thisMachine(), process.arch);
  if (missing === null) return;
  process.stderr.write(`${missing}\n`);
  process.exit(1);
}
