import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { calibrate, readContract } from "../src/model.ts";

const contract = { format: 1, name: "tiny", preprocess: { max_side: 128, min_side: 64 }, calibration: null };

/** A field of a protobuf message with a length below 2^14. */
function field(number: number, content: Buffer): Buffer {
  const { length } = content;
  const size = length < 128 ? [length] : [(length & 127) | 128, length >> 7];
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...size]), content]);
}

function entry(key: string, value: string): Buffer {
  return field(14, Buffer.concat([field(1, Buffer.from(key)), field(2, Buffer.from(value))]));
}

function sealed(...parts: Buffer[]): Buffer {
  const model = Buffer.concat(parts);
  const digest = createHash("sha256").update(model).digest("hex");
  return Buffer.concat([model, entry("pocketiqa.sha256", digest)]);
}

// A version (a number), a graph, an operator set.
const graph = [Buffer.from([8, 10]), field(7, Buffer.alloc(300, 7)), field(8, Buffer.from([16, 17]))];

describe("readContract", () => {
  it("finds the contract among the fields of the file", async () => {
    const file = sealed(...graph, entry("other", "x"), entry("pocketiqa.contract", JSON.stringify(contract)));
    expect(await readContract(file)).toEqual(contract);
  });

  it("refuses a file that was altered, cut, has no contract or a newer one", async () => {
    const file = sealed(...graph, entry("pocketiqa.contract", JSON.stringify(contract)));
    const altered = Buffer.from(file);
    altered[50]! ^= 1;
    await expect(readContract(altered)).rejects.toThrow("was altered");
    await expect(readContract(file.subarray(0, -1))).rejects.toThrow(/altered|cut/);
    await expect(readContract(Buffer.from("<html>not found</html>"))).rejects.toThrow("was cut, or is none");
    await expect(readContract(sealed(...graph))).rejects.toThrow("holds no contract");
    const newer = entry("pocketiqa.contract", JSON.stringify({ ...contract, format: 9 }));
    await expect(readContract(sealed(...graph, newer))).rejects.toThrow("contract format 9");
  });
});

describe("calibrate", () => {
  const calibration = { knots: [[0, 0.1], [0.5, 0.2], [1, 0.9]] as [number, number][] };

  it("follows the broken line and stays at its ends", () => {
    expect([0, 0.25, 0.5, 0.75, 1].map((raw) => calibrate(raw, calibration))).toEqual(
      [0.1, 0.15, 0.2, 0.55, 0.9].map((value) => expect.closeTo(value, 6)),
    );
  });

  it("leaves raw scores alone where there is none", () => {
    expect(calibrate(0.3, null)).toBe(0.3);
  });
});
