/** A Map from numbers that keeps its room: it holds what a Map would. */
import { describe, expect, it } from "vitest";
import { NumberMap } from "../../dlmd/base/number-map.ts";
