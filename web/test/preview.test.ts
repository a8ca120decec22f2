import { describe, expect, it } from "vitest";
import { differingBits } from "../src/page/rows.ts";
import { differenceHash } from "../src/preview.ts";
import { extentOf } from "../src/student.ts";

/** A gray picture of a function of relative row and column. */
function picture(height: number, width: number, light: (y: number, x: number) => number) {
  const data = new Uint8Array(height * width * 3);
  data.forEach((_, at) => {
    const pixel = Math.floor(at / 3);
    data[at] = light(Math.floor(pixel / width) / height, (pixel % width) / width);
  });
  return { data, height, width };
}

const hills = (y: number, x: number): number => 128 + 100 * Math.sin(7 * x + 3 * y);

describe("differenceHash", () => {
  it("is the same for a picture in another size or light, and another for another picture", () => {
    const hash = differenceHash(picture(96, 128, hills));
    expect(hash).toMatch(/^[0-9a-f]{16}$/);
    expect(differingBits(hash, differenceHash(picture(192, 250, hills)))).toBeLessThan(4);
    expect(differingBits(hash, differenceHash(picture(96, 128, (y, x) => 0.7 * hills(y, x))))).toBeLessThan(4);
    expect(differingBits(hash, differenceHash(picture(96, 128, (y, x) => hills(y, 1 - x))))).toBeGreaterThan(20);
  });

  it("says which field is brighter than its left neighbour", () => {
    expect(differenceHash(picture(64, 72, (_, x) => 200 * x))).toBe("f".repeat(16));
    expect(differenceHash(picture(64, 72, (_, x) => 200 - 200 * x))).toBe("0".repeat(16));
  });
});

describe("extentOf", () => {
  it("cuts the last cells where the map has the stated stride, and none elsewhere", () => {
    expect(extentOf(14, 18, { height: 216, width: 288 }, 16)).toEqual([13.5, 18]);
    expect(extentOf(1, 1, { height: 216, width: 288 }, 16)).toEqual([1, 1]);
    expect(extentOf(7, 9, { height: 216, width: 288 }, 0)).toEqual([7, 9]);
  });
});
