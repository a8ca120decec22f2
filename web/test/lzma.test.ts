import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { expand } from "../src/lzma.ts";

/** By Python: lzma.compress(text, format=lzma.FORMAT_ALONE), with its size in the header. */
const PACKED = [
  "XQAAgAAmFQAAAAAAAAAqGgiiAyVm8Ut4xaIF/y7m2dIgGq00+OId6EE2+twGabs85BA0Jwnrs2bj7TeY7ZKt1SdFCDBeXXEg5dNK",
  "AF8TxpmQUJ89wVs/g4IbtGjc87ft0qnbUIc9MnThk26Wtzj58v/aWTtdne7G5V3ts6KuFV17+YvoF91lUDxwTFfkDwXEtCviGXUx",
  "lhD7FN3JXBLY7+O1kZrDgXTTzjxByr4B3LJ2WXxTwXDYnmQpawx87///0803AA==",
].join("");
const SIZE = 5414;
const DIGEST = "59b8a5c50e616aad6526e59888bc1b63e8c8347cde70f4d391e28d8116ed2a48";

const packed = (): Uint8Array => new Uint8Array(Buffer.from(PACKED, "base64"));

describe("expand", () => {
  it("gives what Python compressed: literals, matches near and far, repeats", () => {
    const content = expand(packed());
    expect(content.length).toBe(SIZE);
    expect(createHash("sha256").update(content).digest("hex")).toBe(DIGEST);
    expect(Buffer.from(content.subarray(0, 20)).toString()).toBe("The quick brown fox ");
  });

  it("refuses what is cut at any place, states no size or another, or is something else", () => {
    for (let length = 0; length < packed().length; length += 7) {
      expect(() => expand(packed().subarray(0, length))).toThrow(/cut|no LZMA|altered/);
    }
    for (const size of [SIZE - 1, SIZE + 1, 2 ** 32 - 1]) {
      const other = packed();
      new DataView(other.buffer).setUint32(5, size, true);
      if (size === 2 ** 32 - 1) new DataView(other.buffer).setUint32(9, size, true);
      expect(() => expand(other)).toThrow(/altered|does not state its size/);
    }
    expect(() => expand(new Uint8Array(Buffer.from("<!doctype html><p>not found</p>")))).toThrow();
  });
});
