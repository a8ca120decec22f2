/** What the page knows of each photograph, and what follows from it: order, similar shots, a file for spreadsheets. */

import type { Result } from "../index.ts";

export interface Row {
  /** Path within the folder that was chosen, or the name of the file. */
  name: string;
  file: File;
  /** Absent while it waits, and where it could not be scored. */
  result?: Result;
  /** Why it could not be scored; empty otherwise. */
  reason: string;
  /** Number of its group of similar shots, from 1; 0 alone. */
  group: number;
  /** Whether it is the best of its group, or alone. */
  isBest: boolean;
}

export type Order = "best" | "worst" | "name";

/** Pictures differ in at most this many of 64 bits where they show the same. */
const SIMILAR_BITS = 10;
/** Shots of one scene follow each other within this time. */
const SIMILAR_MS = 120_000;
/** With how many of the shots before it each is compared. */
const LOOK_BACK = 5;
// Spreadsheets take a cell that begins with one of these for a formula.
const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
const COLUMNS = ["path", "score", "status", "reason", "width", "height", "similar", "best_of_similar", "taken"] as const;

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** Photographs without a score stand last. */
export function ordered(rows: readonly Row[], order: Order): Row[] {
  const sign = order === "best" ? -1 : 1;
  return [...rows].sort((one, other) => {
    const byName = collator.compare(one.name, other.name);
    if (order === "name") return byName;
    const [a, b] = [one.result?.score, other.result?.score];
    if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined) || byName;
    return sign * (a - b) || byName;
  });
}

/**
 * Put shots of one scene into groups: alike by their hash, and taken shortly after each other.
 *
 * The time is that of the EXIF, else that of the file. Sets `group` and `isBest` of all rows.
 */
export function groupSimilar(rows: readonly Row[]): void {
  const time = (row: Row): number => row.result?.taken ?? row.file.lastModified;
  const shots = rows.filter((row) => row.result?.hash !== undefined);
  shots.sort((one, other) => time(one) - time(other) || collator.compare(one.name, other.name));
  const groups: Row[][] = [];
  const groupOf = new Map<Row, Row[]>();
  shots.forEach((shot, index) => {
    const near = shots
      .slice(Math.max(0, index - LOOK_BACK), index)
      .reverse()
      .find(
        (earlier) =>
          time(shot) - time(earlier) <= SIMILAR_MS &&
          differingBits(shot.result!.hash!, earlier.result!.hash!) <= SIMILAR_BITS,
      );
    const group = near && groupOf.get(near);
    if (group) group.push(shot);
    else groups.push([shot]);
    groupOf.set(shot, group ?? groups[groups.length - 1]!);
  });
  for (const row of rows) Object.assign(row, { group: 0, isBest: true });
  groups
    .filter((group) => group.length > 1)
    .forEach((group, index) => {
      const [best] = ordered(group, "best");
      for (const row of group) Object.assign(row, { group: index + 1, isBest: row === best });
    });
}

/** Of two hashes of 16 hexadecimal digits. */
export function differingBits(one: string, other: string): number {
  let bits = BigInt(`0x${one}`) ^ BigInt(`0x${other}`);
  let count = 0;
  for (; bits > 0n; bits &= bits - 1n) count++;
  return count;
}

/** Lines for spreadsheets (RFC 4180); the first four columns are those of `pocketiqa score --format csv`. */
export function asCsv(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const { result } = row;
    const taken = result?.taken == null ? "" : new Date(result.taken).toISOString().slice(0, 19);
    const cells = [
      row.name,
      result ? result.score.toFixed(6) : "",
      result ? "ok" : "failed",
      result ? result.note : row.reason,
      result?.width ?? "",
      result?.height ?? "",
      row.group || "",
      row.isBest ? "yes" : "no",
      taken,
    ];
    return cells.map(cell).join(",");
  });
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

function cell(value: string | number): string {
  const text = String(value);
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
