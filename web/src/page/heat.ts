/**
 * The heat map: orange where a picture is worse than its score, blue where it is better; no eye confuses the two.
 *
 * What hardly counts in the score, such as the border of a picture with many students, is pale.
 */

import type { Result } from "../index.ts";

const WORSE = [214, 96, 0] as const;
const BETTER = [0, 104, 190] as const;
/** Smaller differences within a picture than this are shown pale. */
const CLEAR_DIFFERENCE = 0.06;
const MOST_OPAQUE = 0.7;

/** Draw on a canvas of a pixel a cell; the style sheet stretches it, and what reaches beyond the picture is cut off. */
export function drawHeat(canvas: HTMLCanvasElement, { map, score }: Result): void {
  canvas.width = map.columns;
  canvas.height = map.rows;
  canvas.style.width = `${(100 * map.columns) / map.extent[1]}%`;
  canvas.style.height = `${(100 * map.rows) / map.extent[0]}%`;
  const pixels = new ImageData(map.columns, map.rows);
  const mean = map.weights.reduce((sum, weight) => sum + weight, 0) / map.weights.length;
  const parts = map.data.map((value, cell) => (value - score) * Math.min(1, map.weights[cell]! / mean));
  const most = parts.reduce((found, part) => Math.max(found, Math.abs(part)), CLEAR_DIFFERENCE);
  parts.forEach((part, cell) => {
    const opacity = Math.round((255 * MOST_OPAQUE * Math.abs(part)) / most);
    pixels.data.set([...(part < 0 ? WORSE : BETTER), opacity], 4 * cell);
  });
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
}
