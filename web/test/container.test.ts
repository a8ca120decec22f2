import { describe, expect, it } from "vitest";
import { inspect } from "../src/container.ts";

const bytes = (...parts: (string | number[])[]): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...Buffer.from(part, "latin1")] : part)));

/** EXIF with nothing but DateTimeOriginal: 2026:11:29 12:34:56, big-endian. */
const exif = bytes(
  "MM\0*", [0, 0, 0, 8],
  [0, 1, 0x87, 0x69, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0],
  [0, 1, 0x90, 0x03, 0, 2, 0, 0, 0, 20, 0, 0, 0, 44, 0, 0, 0, 0],
  "2026:11:29 12:34:56\0",
); // prettier-ignore
const upright = { orientation: 1, unturned: null };
const when = Date.UTC(2026, 10, 29, 12, 34, 56);

function segment(marker: number, content: Uint8Array): number[] {
  const length = content.length + 2;
  return [0xff, marker, length >> 8, length & 255, ...content];
}

const frame = (components: number): number[] => segment(0xc0, bytes([8, 0, 9, 0, 9, components]));
const scan = [...segment(0xda, bytes([1, 1, 0, 0, 63, 0])), 1, 2, 0xff, 0, 3];
const start = [0xff, 0xd8];
const end = [0xff, 0xd9];

function chunk(name: string, content: Uint8Array): number[] {
  return [...bytes([0, 0, 0, content.length], name), ...content, 0, 0, 0, 0];
}

const signature = [...bytes("\x89PNG\r\n\x1a\n")];

describe("inspect", () => {
  it("reads time, profile and inks of a JPEG", () => {
    const plain = bytes(start, frame(3), scan, end);
    expect(inspect(plain)).toEqual({ ...upright, declaresColour: false, taken: null, cut: false, isCmyk: false });
    const rich = bytes(
      start,
      segment(0xe1, bytes("Exif\0\0", [...exif])),
      segment(0xe2, bytes("ICC_PROFILE\0", [1, 1])),
      [0xff, 0xff], // fill bytes
      frame(4),
      scan,
      end,
    );
    expect(inspect(rich)).toEqual({ ...upright, declaresColour: true, taken: when, cut: false, isCmyk: true });
  });

  it("sees that a JPEG is cut, in its data or before, also where its thumbnail is whole", () => {
    const thumbnail = segment(0xe1, bytes("Exif\0\0", [...exif], start, end));
    expect(inspect(bytes(start, thumbnail, frame(3), scan)).cut).toBe(true);
    expect(inspect(bytes(start, thumbnail, frame(3)).slice(0, -3)).cut).toBe(true);
    expect(inspect(bytes(start, thumbnail, frame(3), scan, end, [0, 0])).cut).toBe(false);
  });

  it("reads what a PNG declares: sRGB is nothing to convert", () => {
    const png = (...chunks: number[][]): Uint8Array<ArrayBuffer> => bytes(signature, ...chunks, chunk("IEND", bytes()));
    expect(inspect(png(chunk("gAMA", bytes([0, 0, 0, 1])))).declaresColour).toBe(true);
    expect(inspect(png(chunk("sRGB", bytes([0])), chunk("gAMA", bytes([0, 0, 0, 1])))).declaresColour).toBe(false);
    expect(inspect(png(chunk("iCCP", bytes([0])))).declaresColour).toBe(true);
    expect(inspect(png(chunk("eXIf", exif))).taken).toBe(when);
    expect(inspect(bytes(signature, chunk("IDAT", bytes([1])))).cut).toBe(true);
  });

  it("reads chunks of WebP", () => {
    const webp = (...chunks: number[]): Uint8Array<ArrayBuffer> =>
      bytes("RIFF", [chunks.length + 4, 0, 0, 0], "WEBP", chunks);
    const part = (name: string, content: Uint8Array): number[] => [...bytes(name, [content.length, 0, 0, 0]), ...content];
    expect(inspect(webp(...part("ICCP", bytes([1, 2])), ...part("EXIF", exif)))).toEqual({
      ...upright,
      declaresColour: true,
      taken: when,
      cut: false,
      isCmyk: false,
    });
    expect(inspect(webp(...part("VP8 ", bytes([1, 2]))).slice(0, -1)).cut).toBe(true);
  });

  it("takes the turn out of the file, so that every browser shows what is stored", async () => {
    // Little-endian, orientation 6 alone.
    const turn = bytes("II*\0", [8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
    const content = async (file: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> => {
      const { orientation, unturned } = inspect(file);
      expect(orientation).toBe(6);
      return new Uint8Array(await new Blob(unturned!).arrayBuffer());
    };
    const jpeg = bytes(start, segment(0xe1, bytes("Exif\0\0", [...turn])), frame(3), scan, end);
    const shown = await content(jpeg.slice());
    expect(inspect(shown)).toMatchObject(upright);
    expect(shown.filter((byte, at) => byte !== jpeg[at])).toEqual(bytes([1]));
    const png = bytes(signature, chunk("eXIf", turn), chunk("IDAT", bytes([1])), chunk("IEND", bytes()));
    expect(await content(png)).toEqual(bytes(signature, chunk("IDAT", bytes([1])), chunk("IEND", bytes())));
  });

  it("knows nothing of other files, and does not fail on any", () => {
    for (const file of [bytes(), bytes("no picture"), bytes(start), bytes([0xff, 0xd8, 0xff]), bytes(signature)]) {
      expect(() => inspect(file)).not.toThrow();
    }
    expect(inspect(bytes([0, 0, 0, 20], "ftypheic")).declaresColour).toBe(true);
  });
});
