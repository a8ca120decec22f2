import { describe, expect, it } from "vitest";
import { asCsv, differingBits, groupSimilar, ordered, type Row } from "../src/page/rows.ts";

const map = { data: new Float32Array(1), weights: new Float32Array(1), rows: 1, columns: 1, extent: [1, 1] as [number, number] };

function row(name: string, score?: number, more: { hash?: string; taken?: number | null } = {}): Row {
  const file = new File([], name, { lastModified: 0 });
  const made: Row = { name, file, reason: score === undefined ? "broken" : "", group: 0, isBest: true };
  if (score !== undefined) made.result = { score, map, width: 4, height: 3, note: "", ...more };
  return made;
}

const names = (rows: Row[]): string[] => rows.map(({ name }) => name);

describe("ordered", () => {
  const rows = [row("b10", 0.5), row("broken"), row("b9", 0.5), row("a", 0.9)];

  it("puts what has no score last, and equal scores by name", () => {
    expect(names(ordered(rows, "best"))).toEqual(["a", "b9", "b10", "broken"]);
    expect(names(ordered(rows, "worst"))).toEqual(["b9", "b10", "a", "broken"]);
    expect(names(ordered(rows, "name"))).toEqual(["a", "b9", "b10", "broken"]);
  });
});

describe("groupSimilar", () => {
  const scene = "00ff00ff00ff00ff";
  const nearly = "00ff00ff00ff00f0";
  const other = "f0f0f0f0f0f0f0f0";

  it("joins shots that look alike and follow each other, and names the best", () => {
    const rows = [
      row("late", 0.99, { hash: scene, taken: 900_000 }),
      row("one", 0.4, { hash: scene, taken: 1_000 }),
      row("between", 0.7, { hash: other, taken: 2_000 }),
      row("two", 0.6, { hash: nearly, taken: 60_000 }),
      row("broken"),
    ];
    groupSimilar(rows);
    expect(rows.map(({ group, isBest }) => [group, isBest])).toEqual([
      [0, true],
      [1, false],
      [0, true],
      [1, true],
      [0, true],
    ]);
  });

  it("forgets the groups of before", () => {
    const rows = [row("one", 0.4, { hash: scene }), row("two", 0.6, { hash: scene })];
    groupSimilar(rows);
    expect(rows[0]!.isBest).toBe(false);
    groupSimilar(rows.slice(0, 1));
    expect(rows[0]).toMatchObject({ group: 0, isBest: true });
  });

  it("counts differing bits", () => {
    expect(differingBits(scene, scene)).toBe(0);
    expect(differingBits(scene, nearly)).toBe(4);
    expect(differingBits("ffffffffffffffff", "0000000000000000")).toBe(64);
  });
});

describe("asCsv", () => {
  it("has a line for each, quoted, and no formulas", () => {
    const rows = [row('a,"b".jpg', 0.123456789, { taken: Date.UTC(2026, 0, 2, 3, 4, 5) }), row("=1+1.jpg")];
    expect(asCsv(rows).split("\r\n")).toEqual([
      "path,score,status,reason,width,height,similar,best_of_similar,taken",
      '"a,""b"".jpg",0.123457,ok,,4,3,,yes,2026-01-02T03:04:05',
      "'=1+1.jpg,,failed,broken,,,,yes,",
      "",
    ]);
  });
});
