import { describe, expect, it } from "vitest";
import { turned } from "../src/decode.ts";

/** The letters of a stored picture of 3x2, upright. */
function upright(orientation: number): string[] {
  const stored = ["abc", "def"];
  const [first, column, row] = turned(orientation, 3, 2);
  const flat: string[] = [];
  stored.forEach((line, y) => [...line].forEach((letter, x) => (flat[first + y * row + x * column] = letter)));
  const width = orientation > 4 ? 2 : 3;
  return Array.from({ length: 6 / width }, (_, y) => flat.slice(y * width, (y + 1) * width).join(""));
}

describe("turned", () => {
  // TIFF 6.0, tag 274: which sides row 0 and column 0 are.
  it.each([
    [1, ["abc", "def"]],
    [2, ["cba", "fed"]],
    [3, ["fed", "cba"]],
    [4, ["def", "abc"]],
    [5, ["ad", "be", "cf"]],
    [6, ["da", "eb", "fc"]],
    [7, ["fc", "eb", "da"]],
    [8, ["cf", "be", "ad"]],
  ])("makes orientation %i upright", (orientation, expected) => {
    expect(upright(orientation)).toEqual(expected);
  });
});
