/** Small things that a list of photographs needs: a thumbnail, and a hash of what the picture looks like. */

import type { Input } from "./student.ts";

const ACROSS = 9;
const DOWN = 8;

/**
 * The difference hash of a picture: whether each of 8x8 fields is darker than its right neighbour.
 *
 * Fields are means of whole pixels of the student's input. 16 hexadecimal digits.
 */
export function differenceHash({ data, height, width }: Input): string {
  let hash = "";
  for (let row = 0; row < DOWN; row++) {
    const fields = Array.from({ length: ACROSS }, (_, column) => {
      const [top, bottom] = span(row, DOWN, height);
      const [left, right] = span(column, ACROSS, width);
      let sum = 0;
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) {
          const at = (y * width + x) * 3;
          sum += 299 * data[at]! + 587 * data[at + 1]! + 114 * data[at + 2]!; // BT.601
        }
      }
      return sum / ((bottom - top) * (right - left));
    });
    let bits = 0;
    for (let column = 0; column < ACROSS - 1; column++) bits = 2 * bits + Number(fields[column]! < fields[column + 1]!);
    hash += bits.toString(16).padStart(2, "0");
  }
  return hash;
}

function span(index: number, count: number, side: number): [number, number] {
  const start = Math.floor((index * side) / count);
  return [start, Math.max(start + 1, Math.floor(((index + 1) * side) / count))];
}

/** The student's input as a JPEG: small, upright, already there. */
export async function thumbnail({ data, height, width }: Input): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser gives no canvas to a worker");
  const picture = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; to += 4) {
    picture.data[to] = data[from++]!;
    picture.data[to + 1] = data[from++]!;
    picture.data[to + 2] = data[from++]!;
    picture.data[to + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
}
