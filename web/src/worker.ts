/** The thread that decodes, resizes and scores, one picture at a time, so that the page never waits. */

import type * as ort from "onnxruntime-web";
import { decode } from "./decode.ts";
import { download } from "./download.ts";
import { differenceHash, thumbnail } from "./preview.ts";
import { Student } from "./student.ts";
import type { Answer, Contract, LoadRequest, Request, Result, ScoreRequest } from "./types.ts";

let student: Student | undefined;
let last: Promise<void> = Promise.resolve();

function answer(message: Answer): void {
  postMessage(message);
}

async function load(request: LoadRequest & { id: number }): Promise<Contract> {
  let done = 0;
  const onBytes = (bytes: number): void => answer({ id: request.id, kind: "progress", done: (done += bytes) });
  const [runtime, wasm, model] = await Promise.all([
    import(/* @vite-ignore */ request.runtime) as Promise<typeof ort>,
    download(request.wasm, onBytes),
    download(request.model, onBytes),
  ]);
  runtime.env.wasm.wasmBinary = wasm.buffer as ArrayBuffer;
  // More threads brought nothing, and need headers that plain servers do not send.
  runtime.env.wasm.numThreads = 1;
  student = await Student.open(runtime, model);
  return student.contract;
}

async function score({ picture, preview }: ScoreRequest): Promise<Result> {
  if (student === undefined) throw new Error("no model is loaded");
  const { rgb, height, width, taken, note } = await decode(picture);
  const input = student.input(rgb, height, width);
  const { score: value, map } = await student.score(input);
  const result: Result = { score: value, map, width, height, note };
  if (preview) Object.assign(result, { thumbnail: await thumbnail(input), hash: differenceHash(input), taken });
  return result;
}

async function serve(request: Request): Promise<void> {
  const { id } = request;
  try {
    const value = request.kind === "load" ? await load(request) : await score(request);
    answer({ id, kind: "done", value });
  } catch (error) {
    answer({ id, kind: "failed", reason: error instanceof Error ? error.message : String(error) });
  }
}

addEventListener("message", (event: MessageEvent<Request>) => {
  // In turn: a photograph of 12 megapixels takes some 100 MB while it is decoded.
  last = last.then(() => serve(event.data));
});
