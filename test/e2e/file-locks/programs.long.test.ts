/** The rows of counting-suite.ts that programs.test.ts leaves out. */
import { hazardLab } from "../hazards/hazard-lab.ts";
import { countingSuite } from "./counting-suite.ts";

countingSuite(hazardLab(), {
  pingPong: [
    [2, []],
    [2, ["-rw"]],
    [3, []],
  ],
  counters: ["ofd", "flock"],
  journals: ["truncate", "persist"],
});
