// node resize.mjs HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB: the command by which the port is tested.
import { readFileSync, writeSync } from "node:fs";
import { resize } from "./preprocess.mjs";

const sizes = process.argv.slice(2).map(Number);
if (sizes.length !== 4 || !sizes.every((size) => Number.isInteger(size) && size > 0)) {
  console.error("usage: node resize.mjs HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB");
  process.exit(2);
}
const { data } = resize(new Uint8Array(readFileSync(0)), ...sizes);
for (let done = 0; done < data.length; ) done += writeSync(1, data, done);
