/** A student's file: its contract and its checksum, read from the metadata of the ONNX file (a protobuf message). */

import type { Contract } from "./types.ts";

const METADATA = 14; // ModelProto.metadata_props, entries of a key (1) and a value (2)
const CONTRACT = "pocketiqa.contract";
const CHECKSUM = "pocketiqa.sha256";
const HEX = 64;
const NEWEST_FORMAT = 6;
// Tag and length of the entry, tags and lengths of its key and value: six bytes in all.
const TAIL = 6 + CHECKSUM.length + HEX;

/** The contract of a file that `pocketiqa export` wrote. */
export async function readContract(file: Uint8Array): Promise<Contract> {
  await verify(file);
  let text: string | undefined;
  for (const [number, value] of fields(file)) {
    if (number !== METADATA) continue;
    const entry = new Map([...fields(value)].map(([part, bytes]) => [part, decode(bytes)]));
    if (entry.get(1) === CONTRACT) text = entry.get(2);
  }
  if (text === undefined) throw new Error("the model holds no contract: export it with `pocketiqa export`");
  const contract = JSON.parse(text) as Contract;
  if (!(contract.format >= 1 && contract.format <= NEWEST_FORMAT)) {
    throw new Error(`the model has contract format ${contract.format}, this page reads 1 to ${NEWEST_FORMAT}: update it`);
  }
  return contract;
}

/** Raw scores to scores by the contract's broken line, as float32. */
export function calibrate(raw: number, calibration: Contract["calibration"]): number {
  if (calibration === null) return raw;
  const { knots } = calibration;
  const above = knots.findIndex(([input]) => raw < input);
  if (above < 0) return Math.fround(knots[knots.length - 1]![1]);
  if (above === 0) return Math.fround(knots[0]![1]);
  const [x0, y0] = knots[above - 1]!;
  const [x1, y1] = knots[above]!;
  return Math.fround(((y1 - y0) / (x1 - x0)) * (raw - x0) + y0);
}

async function verify(file: Uint8Array): Promise<void> {
  const stated = decode(file.subarray(-HEX));
  if (!decode(file.subarray(-TAIL)).includes(CHECKSUM)) {
    throw new Error("the model does not end with a checksum of pocketiqa: it was cut, or is none");
  }
  // Browsers have this on https and on localhost alone.
  if (!globalThis.crypto?.subtle) return;
  const bytes = file.slice(0, -TAIL);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const actual = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (actual !== stated) throw new Error("the model was altered on its way here: load the page again");
}

/** Number and bytes of each field of a protobuf message that has a length; the others are passed over. */
function* fields(message: Uint8Array): Generator<[number, Uint8Array]> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new Error("the model ends within a field: it was cut");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const kind = key & 7;
    if (kind === 0) varint();
    else if (kind === 2) {
      const length = varint();
      yield [Math.floor(key / 8), message.subarray(at, (at += length))];
    } else if (kind === 1 || kind === 5) at += kind === 1 ? 8 : 4;
    else throw new Error("the model is no ONNX file");
  }
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
