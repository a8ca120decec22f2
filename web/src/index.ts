/**
 * Scores photographs in the browser with a student of pocketiqa; no picture leaves the device.
 *
 *     const scorer = await Scorer.load("pocket-m-w8.onnx");
 *     const { score, map } = await scorer.score(file);
 */

import type { Answer, Contract, LoadRequest, Picture, Result, ScoreRequest } from "./types.ts";

export type { Contract, Picture, QualityMap, Result } from "./types.ts";

export interface LoadOptions {
  /** Address of onnxruntime-web's `ort.wasm.bundle.min.mjs`; beside the model if not given. */
  runtime?: string;
  /** Address of `ort-wasm-simd-threaded.wasm`, or of that as .lzma; beside the model if not given. */
  wasm?: string;
  /** Called with the number of bytes that have arrived. */
  onProgress?: (bytes: number) => void;
}

interface Waiting {
  resolve: (value: never) => void;
  reject: (error: Error) => void;
  onProgress?: ((bytes: number) => void) | undefined;
}

export class Scorer {
  /** What the model promises: name, scale, preprocessing. */
  contract!: Contract;
  private readonly waiting = new Map<number, Waiting>();
  private requests = 0;
  private ended: Error | undefined;

  private constructor(private readonly worker: Worker) {
    worker.onmessage = (event: MessageEvent<Answer>) => this.receive(event.data);
    worker.onerror = (event) => this.end(new Error(`the scoring thread ended: ${event.message || "not loaded"}`));
  }

  /**
   * Load a student.
   *
   * @param model address of a file that `pocketiqa export` wrote, or of that as .lzma
   * @throws Error something is missing or altered, or this browser has no WebAssembly with SIMD
   */
  static async load(model: string | URL, options: LoadOptions = {}): Promise<Scorer> {
    const scorer = new Scorer(new Worker(new URL(/* @vite-ignore */ "./worker.js", import.meta.url), { type: "module" }));
    const at = new URL(model, document.baseURI).href;
    const beside = (given: string | undefined, name: string): string =>
      given === undefined ? new URL(name, at).href : new URL(given, document.baseURI).href;
    const request: LoadRequest = {
      kind: "load",
      model: at,
      runtime: beside(options.runtime, "ort.wasm.bundle.min.mjs"),
      wasm: beside(options.wasm, "ort-wasm-simd-threaded.wasm"),
    };
    try {
      scorer.contract = await scorer.ask<Contract>(request, options.onProgress);
    } catch (error) {
      scorer.close();
      throw error;
    }
    return scorer;
  }

  /**
   * Score a picture. Calls may overlap: they are worked off in turn.
   *
   * @param picture an image file, or pixels
   * @param options `preview`: also make a thumbnail, a hash of its look, and the time of its EXIF
   * @throws Error the picture cannot be used; the message says why
   */
  score(picture: Picture, options: { preview?: boolean } = {}): Promise<Result> {
    return this.ask<Result>({ kind: "score", picture, preview: options.preview ?? false });
  }

  /** End the thread and free its memory; pictures in work are refused. */
  close(): void {
    this.worker.terminate();
    this.end(new Error("the scorer was closed"));
  }

  private ask<Value>(request: LoadRequest | ScoreRequest, onProgress?: (bytes: number) => void): Promise<Value> {
    if (this.ended) return Promise.reject(this.ended);
    const id = this.requests++;
    return new Promise<Value>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting["resolve"], reject, onProgress });
      this.worker.postMessage({ ...request, id });
    });
  }

  private receive(message: Answer): void {
    const one = this.waiting.get(message.id);
    if (one === undefined) return;
    if (message.kind === "progress") return one.onProgress?.(message.done);
    this.waiting.delete(message.id);
    if (message.kind === "done") one.resolve(message.value as never);
    else one.reject(new Error(message.reason));
  }

  private end(reason: Error): void {
    this.ended = reason;
    for (const one of this.waiting.values()) one.reject(reason);
    this.waiting.clear();
  }
}
