/** Any picture that this browser can show, to upright sRGB bytes. */

import { inspect } from "./container.ts";
import type { Picture } from "./types.ts";

/** As in `pocketiqa score`. */
const MOST_PIXELS = 100_000_000;
const LEAST_SIDE = 64;
// A canvas of a whole photograph exceeds what phones allow (16 megapixels on some); strips never do.
const STRIP_PIXELS = 2_000_000;

export interface Pixels {
  /** `height * width * 3` bytes. */
  rgb: Uint8Array;
  height: number;
  width: number;
  taken: number | null;
  note: string;
}

/** Decode; a picture that cannot be used is an Error whose message is the reason. */
export async function decode(picture: Picture): Promise<Pixels> {
  if (!(picture instanceof Blob)) {
    const bitmap = picture instanceof ImageBitmap ? picture : await createImageBitmap(picture);
    return { ...read(bitmap, 1), taken: null, note: "" };
  }
  if (picture.size === 0) throw new Error("the file has zero bytes");
  const facts = inspect(new Uint8Array(await picture.arrayBuffer()));
  if (facts.cut) throw new Error("the file is cut: its end is missing");
  const bitmap = await opened(facts.unturned ? new Blob(facts.unturned) : picture, facts.declaresColour);
  try {
    const note = facts.isCmyk ? "CMYK: its colours are converted by the browser, and the score may differ" : "";
    return { ...read(bitmap, facts.orientation), taken: facts.taken, note };
  } finally {
    bitmap.close();
  }
}

async function opened(file: Blob, declaresColour: boolean): Promise<ImageBitmap> {
  try {
    // Without a declaration samples are sRGB, whatever the screen is: nothing may touch them.
    return await createImageBitmap(file, { colorSpaceConversion: declaresColour ? "default" : "none" });
  } catch {
    throw new Error("no picture that this browser can decode: save it as JPEG, PNG or WebP");
  }
}

/** Where stored pixels go in the upright picture: the index of the first, and what a column and a row add to it. */
export function turned(orientation: number, width: number, height: number): [number, number, number] {
  const last = width * height - 1;
  const places: Record<number, [number, number, number]> = {
    2: [width - 1, -1, width],
    3: [last, -1, -width],
    4: [last - width + 1, 1, -width],
    5: [0, height, 1],
    6: [height - 1, height, -1],
    7: [last, -height, -1],
    8: [last - height + 1, -height, 1],
  };
  return places[orientation] ?? [0, 1, width];
}

function read(bitmap: ImageBitmap, orientation: number): { rgb: Uint8Array; height: number; width: number } {
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Error(`${width}x${height} pixels are above the limit of ${MOST_PIXELS}`);
  if (Math.min(width, height) < LEAST_SIDE) {
    throw new Error(`${width}x${height} pixels: a side is below the limit of ${LEAST_SIDE}`);
  }
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (context === null) throw new Error("this browser gives no canvas to a worker");
  context.fillStyle = "#fff"; // transparency lies on white
  const rgb = new Uint8Array(width * height * 3);
  const [first, column, row] = turned(orientation, width, height);
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, count);
    for (let y = 0, from = 0; y < count; y++) {
      let to = (first + (top + y) * row) * 3;
      for (let x = 0; x < width; x++, from += 4, to += 3 * column) {
        rgb[to] = data[from]!;
        rgb[to + 1] = data[from + 1]!;
        rgb[to + 2] = data[from + 2]!;
      }
    }
  }
  return orientation > 4 ? { rgb, height: width, width: height } : { rgb, height, width };
}
