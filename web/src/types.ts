/** What passes between a page and the worker that scores, and what a caller gets. */

/** The parts of a student's contract that a page needs; `docs/architecture.md` of pocketiqa tells the rest. */
export interface Contract {
  format: number;
  name: string;
  /** What the score's scale is, such as "MOS of BIQ2021, (MOS - 1) / 4". */
  scale: string;
  meaning: string;
  preprocess: { max_side: number; min_side: number };
  /** Raw score to score by a broken line; null where the raw score is the score. */
  calibration: { knots: [number, number][] } | null;
  student: { grid?: number };
  /** Present where the file can look at large pictures a second time; here all are looked at once. */
  look?: { default: boolean };
}

/** Quality of the parts of a picture. */
export interface QualityMap {
  /** `rows * columns` values in [0, 1], row by row from the top, on the scale of the score. */
  data: Float32Array;
  /** How much each of these counts in the score; only ratios within one picture mean something. */
  weights: Float32Array;
  rows: number;
  columns: number;
  /** Rows and columns that the picture fills: the last ones may reach beyond it. */
  extent: [number, number];
}

export interface Result {
  /** Quality in [0, 1], 1 best. */
  score: number;
  map: QualityMap;
  /** Of the upright picture, in pixels. */
  width: number;
  height: number;
  /** What should be known about this score; mostly empty. */
  note: string;
  /** With `preview`: a small JPEG, upright. */
  thumbnail?: Blob;
  /** With `preview`: 64 bits that are alike for pictures that look alike, as 16 hexadecimal digits. */
  hash?: string;
  /** With `preview`: when it was taken by its EXIF, in milliseconds of an unknown time zone; null if it does not say. */
  taken?: number | null;
}

export type Picture = Blob | ImageBitmap | ImageData;

export interface LoadRequest {
  kind: "load";
  model: string;
  runtime: string;
  wasm: string;
}

export interface ScoreRequest {
  kind: "score";
  picture: Picture;
  preview: boolean;
}

export type Request = (LoadRequest | ScoreRequest) & { id: number };

export type Answer =
  | { id: number; kind: "progress"; done: number }
  | { id: number; kind: "done"; value: Contract | Result }
  | { id: number; kind: "failed"; reason: string };
