// node score.mjs MODEL.onnx PHOTO.ppm...: prints the score of each photograph, 0 worst, 1 best.
//
//     npm install onnxruntime-web        (onnxruntime-node does it as well, and faster: change the import)
//     node score.mjs pocket-m.onnx photo.ppm
//
// Photographs are binary PPM files (P6): decode yours upright, in sRGB. Large ones are looked at once, as by
// `pocketiqa score --look quick`. For browsers there is a package that decodes too: web/.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { resize } from "./preprocess.mjs";

// ModelProto.metadata_props, entries of a key (1) and a value (2): onnxruntime-web does not give them.
const METADATA = 14;
const CONTRACT = "pocketiqa.contract";

/** The fields of a protobuf message with a length: number and bytes of each. Students have no others but varints. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const value = varint();
    if (tag % 8 === 0) continue;
    if (tag % 8 !== 2) throw new Error("this is no ONNX file");
    yield [Math.floor(tag / 8), bytes.subarray(at, (at += value))];
  }
}

/** The contract of a student: its resize and its calibration, among much else. */
function readContract(model) {
  const text = new TextDecoder();
  for (const [number, entry] of fields(model)) {
    if (number !== METADATA) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(entry));
    if (text.decode(key) === CONTRACT) return JSON.parse(text.decode(value));
  }
  throw new Error("the model holds no contract: it is no student of pocketiqa");
}

/** The broken line through the knots [[raw, score], ...] of a contract; one without gives raw scores. */
function calibrated({ calibration }, raw) {
  if (calibration === null) return raw;
  const { knots } = calibration;
  const next = Math.max(1, knots.findIndex(([x]) => raw <= x));
  const [[x0, y0], [x1, y1]] = [knots[next - 1], knots[next]];
  return y0 + ((y1 - y0) * (raw - x0)) / (x1 - x0);
}

/** Pixels, height and width of a binary PPM file with 8 bits. */
function readPpm(path) {
  const bytes = readFileSync(path);
  const head = /^P6\s+(?:#.*\n)*(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 1024).toString("latin1"));
  if (head === null) throw new Error(`${path}: no binary PPM file (P6) with 8 bits`);
  const [width, height] = [Number(head[1]), Number(head[2])];
  const rgb = new Uint8Array(bytes.subarray(head[0].length, head[0].length + width * height * 3));
  if (rgb.length < width * height * 3) throw new Error(`${path}: shorter than its header says`);
  return { rgb, height, width };
}

const [path, ...photos] = process.argv.slice(2);
if (photos.length === 0) {
  console.error("usage: node score.mjs MODEL.onnx PHOTO.ppm...");
  process.exit(2);
}
try {
  const model = new Uint8Array(readFileSync(path));
  const contract = readContract(model);
  const { max_side: maxSide, min_side: minSide } = contract.preprocess;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(model);
  for (const photo of photos) {
    const { rgb, height, width } = readPpm(photo);
    const input = resize(rgb, height, width, maxSide, minSide);
    const tensor = new ort.Tensor("uint8", input.data, [1, input.height, input.width, 3]);
    const { score } = await session.run({ rgb: tensor }, ["score"]);
    console.log(`${calibrated(contract, score.data[0]).toFixed(6)} ${photo}`);
  }
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
