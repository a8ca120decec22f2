/** An opened student: pixels in, score and map out. */

import type * as ort from "onnxruntime-web";
import { resize } from "../../ports/javascript/preprocess.mjs";
import { calibrate, readContract } from "./model.ts";
import type { Contract, QualityMap } from "./types.ts";

/** A picture as the student sees it: RGB bytes. */
export interface Input {
  data: Uint8Array;
  height: number;
  width: number;
}

export class Student {
  private constructor(
    private readonly runtime: typeof ort,
    private readonly session: ort.InferenceSession,
    readonly contract: Contract,
  ) {}

  static async open(runtime: typeof ort, file: Uint8Array): Promise<Student> {
    const contract = await readContract(file);
    const session = await runtime.InferenceSession.create(file, { executionProviders: ["wasm"] });
    return new Student(runtime, session, contract);
  }

  /** The resize of `pocketiqa score`, to the byte. */
  input(rgb: Uint8Array, height: number, width: number): Input {
    const { max_side, min_side } = this.contract.preprocess;
    return resize(rgb, height, width, max_side, min_side);
  }

  async score({ data, height, width }: Input): Promise<{ score: number; map: QualityMap }> {
    const rgb = new this.runtime.Tensor("uint8", data, [1, height, width, 3]);
    const outputs = await this.session.run({ rgb }, ["score", "quality_map", "weight_map"]);
    const [score, quality, weight] = [outputs["score"]!, outputs["quality_map"]!, outputs["weight_map"]!];
    const raw = (score.data as Float32Array)[0]!;
    if (!Number.isFinite(raw)) throw new Error("the model gave no finite score");
    const [, rows, columns] = quality.dims as [number, number, number];
    const { calibration, student } = this.contract;
    const map = {
      data: (quality.data as Float32Array).map((value) => calibrate(value, calibration)),
      weights: (weight.data as Float32Array).slice(),
      rows,
      columns,
      extent: extentOf(rows, columns, { height, width }, student.grid ?? 0),
    };
    // In float32 a weighted mean of numbers up to 1 may round to just above 1.
    return { score: calibrate(Math.min(1, Math.max(0, raw)), calibration), map };
  }
}

/** Rows and columns of cells that the picture fills; all of them where the map has not the stated stride. */
export function extentOf(
  rows: number,
  columns: number,
  { height, width }: { height: number; width: number },
  stride: number,
): [number, number] {
  const fits = stride >= 1 && Math.ceil(height / stride) === rows && Math.ceil(width / stride) === columns;
  return fits ? [height / stride, width / stride] : [rows, columns];
}
