/** What an image file says beside its pixels: declared colour, turn, time, and whether it ends where it should. */

export interface Facts {
  /** An ICC profile or other declaration; without one, samples are sRGB. */
  declaresColour: boolean;
  /** EXIF DateTimeOriginal, in milliseconds as if it were UTC. */
  taken: number | null;
  /** EXIF orientation: 1 is upright, see TIFF 6.0, tag 274. */
  orientation: number;
  /**
   * The file without its orientation, where it has one other than 1: browsers apply that of JPEG, some that of PNG, few
   * that of WebP. Of this all show the pixels as they are stored.
   */
  unturned: BlobPart[] | null;
  /** The file ends early. Browsers would show the part that is there. */
  cut: boolean;
  /** A JPEG of four inks. */
  isCmyk: boolean;
}

const NOTHING: Facts = {
  declaresColour: false,
  taken: null,
  orientation: 1,
  unturned: null,
  cut: false,
  isCmyk: false,
};

/**
 * Read by content and never by name; of a format other than JPEG, PNG and WebP nothing is known.
 *
 * @param file all of its bytes, which are altered where they become `unturned`
 */
export function inspect(file: Uint8Array<ArrayBuffer>): Facts {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  try {
    if (starts(file, 0, "\xff\xd8\xff")) return jpeg(file, view);
    if (starts(file, 0, "\x89PNG\r\n\x1a\n")) return png(file, view);
    if (starts(file, 0, "RIFF") && starts(file, 8, "WEBP")) return webp(file, view);
    // HEIC and AVIF keep their profile in a box that begins so.
    if (starts(file, 4, "ftyp")) return { ...NOTHING, declaresColour: true };
    return NOTHING;
  } catch (error) {
    if (error instanceof RangeError) return { ...NOTHING, cut: true }; // read beyond the end
    throw error;
  }
}

function starts(file: Uint8Array, at: number, text: string): boolean {
  return [...text].every((letter, index) => file[at + index] === letter.charCodeAt(0));
}

function jpeg(file: Uint8Array<ArrayBuffer>, view: DataView): Facts {
  const facts = { ...NOTHING };
  let hasExif = false;
  let at = 2;
  for (;;) {
    while (view.getUint8(at) !== 0xff) at++; // rubbish between segments
    while (view.getUint8(at) === 0xff) at++; // and fill bytes
    const marker = view.getUint8(at++);
    if (marker === 0xd9) return facts;
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    const length = view.getUint16(at);
    if (!hasExif && marker === 0xe1 && starts(file, at + 2, "Exif\0\0")) {
      hasExif = true;
      readExif(file.subarray(at + 8, at + length), facts, [file]);
    }
    if (marker === 0xe2 && starts(file, at + 2, "ICC_PROFILE\0")) facts.declaresColour = true;
    if (marker >= 0xc0 && marker <= 0xc2) facts.isCmyk = view.getUint8(at + 7) === 4;
    at += length;
    if (marker === 0xda) return { ...facts, cut: !endsAfter(file, at) };
  }
}

/** Whether an end marker follows; image data hold none. */
function endsAfter(file: Uint8Array, start: number): boolean {
  for (let at = file.indexOf(0xff, start); at >= 0; at = file.indexOf(0xff, at + 1)) {
    if (file[at + 1] === 0xd9) return true;
  }
  return false;
}

function png(file: Uint8Array<ArrayBuffer>, view: DataView): Facts {
  const facts = { ...NOTHING };
  const names = new Set<string>();
  for (let at = 8; ; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...file.subarray(at + 4, at + 8));
    names.add(name);
    if (name === "eXIf") {
      // Left out as a whole, for it has a checksum.
      const rest = [file.subarray(0, at), file.subarray(at + 12 + length)];
      readExif(file.subarray(at + 8, at + 8 + length), facts, rest);
    }
    if (name === "IEND") break;
    at += 12 + length;
  }
  const isSrgb = names.has("sRGB");
  facts.declaresColour = names.has("iCCP") || names.has("cICP") || (!isSrgb && (names.has("gAMA") || names.has("cHRM")));
  return facts;
}

function webp(file: Uint8Array<ArrayBuffer>, view: DataView): Facts {
  const facts = { ...NOTHING };
  const end = 8 + view.getUint32(4, true);
  if (end > file.length) return { ...facts, cut: true };
  for (let at = 12; at + 8 <= end; ) {
    const length = view.getUint32(at + 4, true);
    if (starts(file, at, "ICCP")) facts.declaresColour = true;
    if (starts(file, at, "EXIF")) {
      const start = at + 8 + (starts(file, at + 8, "Exif\0\0") ? 6 : 0);
      readExif(file.subarray(start, at + 8 + length), facts, [file]);
    }
    at += 8 + length + (length % 2);
  }
  return facts;
}

/**
 * Orientation and DateTimeOriginal of EXIF data (a TIFF header, then folders of 12-byte entries) into `facts`.
 *
 * @param exif orientation becomes 1 in it
 * @param rest the file without an orientation
 */
function readExif(exif: Uint8Array, facts: Facts, rest: BlobPart[]): void {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = starts(exif, 0, "II");
  const entry = (folder: number, wanted: number): number | null => {
    const count = view.getUint16(folder, little);
    for (let at = folder + 2; at < folder + 2 + 12 * count; at += 12) {
      if (view.getUint16(at, little) === wanted) return at + 8;
    }
    return null;
  };
  try {
    const first = view.getUint32(4, little);
    const turn = entry(first, 0x0112);
    const orientation = turn === null ? 1 : view.getUint16(turn, little);
    if (turn !== null && orientation >= 2 && orientation <= 8) {
      Object.assign(facts, { orientation, unturned: rest });
      view.setUint16(turn, 1, little);
    }
    const folder = entry(first, 0x8769);
    const text = folder === null ? null : entry(view.getUint32(folder, little), 0x9003);
    if (text !== null) facts.taken = timeAt(exif, view.getUint32(text, little));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // corrupt EXIF says nothing about the pixels
  }
}

function timeAt(exif: Uint8Array, start: number): number | null {
  const stated = String.fromCharCode(...exif.subarray(start, start + 19));
  const [, date, time] = /^(\d{4}:\d\d:\d\d) (\d\d:\d\d:\d\d)$/.exec(stated) ?? [];
  const milliseconds = date ? Date.parse(`${date.replaceAll(":", "-")}T${time}Z`) : NaN;
  return Number.isNaN(milliseconds) ? null : milliseconds;
}
