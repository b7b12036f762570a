/** `npm run test:vm` says at once what it lacks. */
import { expect, it } from "vitest";
import { missingForMachines } from "../../vm/requirements.ts";

it("all is there", () => {
  expect(missingForMachines({ uid: 0, hasTool: () => true }, "x64")).toBeNull();
});

it("everything that is missing is named in one line, with what to do", () => {
  const lacking = new Set(["qemu-system-x86_64", "mmdebstrap"]);
  expect(missingForMachines({ uid: 1000, hasTool: (name) => !lacking.has(name) }, "arm64")).toBe(
    "npm run test:vm: machines of this processor (arm64) are not known here, only x64; root is needed, to make a Debian; " +
      "missing packages: qemu-system-x86 mmdebstrap (apt-get install --no-install-recommends qemu-system-x86 mmdebstrap)",
  );
});
