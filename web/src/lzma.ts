/**
 * Expands LZMA with the header of 13 bytes (".lzma" files, `lzma.FORMAT_ALONE` in Python), of stated size.
 *
 * Browsers expand gzip by themselves, but it leaves WebAssembly 1.6 times as large. The names are those of the LZMA
 * specification (Igor Pavlov, 2015, public domain).
 */

const HEADER = 13;
const PROBABILITY_BITS = 11;
const MOVE = 5;
const LEAST_RANGE = 2 ** 24;
const LITERAL = 0x300; // probabilities of a literal
const END = 0xffffffff; // the distance that ends a stream
const LEAST_LENGTH = 2;
const ALIGN_BITS = 4;
const FIRST_ALIGNED_SLOT = 14;

const even = (count: number): Uint16Array => new Uint16Array(count).fill(1 << (PROBABILITY_BITS - 1));

/** Probabilities of the lengths of matches. */
const lengths = () => ({ choice: even(2), low: even(16 << 3), middle: even(16 << 3), high: even(1 << 8) });

/** The content; an Error where it is cut or altered, as far as that can be seen. */
export function expand(packed: Uint8Array): Uint8Array<ArrayBuffer> {
  if (packed.length < HEADER + 5 || packed[0]! >= 9 * 5 * 5) throw new Error("it is no LZMA file");
  const view = new DataView(packed.buffer, packed.byteOffset);
  const lc = packed[0]! % 9;
  const lp = Math.floor(packed[0]! / 9) % 5;
  const pb = Math.floor(packed[0]! / 45);
  const size = view.getUint32(5, true);
  if (view.getUint32(9, true) !== 0) throw new Error("the LZMA file does not state its size");
  const out = new Uint8Array(size);

  let at = HEADER + 5;
  let range = 2 ** 32 - 1;
  let code = view.getUint32(HEADER + 1);

  // Numbers of 32 bits without sign, as doubles: their products stay exact.
  function normalise(): void {
    if (range >= LEAST_RANGE) return;
    if (at >= packed.length) throw new Error("the LZMA file is cut");
    range *= 256;
    code = code * 256 + packed[at++]!;
  }
  function bit(probabilities: Uint16Array, index: number): number {
    const probability = probabilities[index]!;
    const bound = (range >>> PROBABILITY_BITS) * probability;
    const one = code >= bound;
    if (one) {
      range -= bound;
      code -= bound;
      probabilities[index] = probability - (probability >> MOVE);
    } else {
      range = bound;
      probabilities[index] = probability + (((1 << PROBABILITY_BITS) - probability) >> MOVE);
    }
    normalise();
    return one ? 1 : 0;
  }
  function tree(probabilities: Uint16Array, start: number, bits: number): number {
    let node = 1;
    for (let i = 0; i < bits; i++) node = 2 * node + bit(probabilities, start + node);
    return node - (1 << bits);
  }
  function reversedTree(probabilities: Uint16Array, start: number, bits: number): number {
    let value = 0;
    for (let i = 0, node = 1; i < bits; i++) {
      const one = bit(probabilities, start + node);
      node = 2 * node + one;
      value += one << i;
    }
    return value;
  }
  function directBits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      range = Math.floor(range / 2);
      const one = code >= range;
      if (one) code -= range;
      value = 2 * value + (one ? 1 : 0);
      normalise();
    }
    return value;
  }

  const isMatch = even(12 << 4);
  const isRep = even(12);
  const isRepG0 = even(12);
  const isRepG1 = even(12);
  const isRepG2 = even(12);
  const isRep0Long = even(12 << 4);
  const literals = even(LITERAL << (lc + lp));
  const slots = even(4 << 6);
  const positions = even(1 + 128 - FIRST_ALIGNED_SLOT);
  const align = even(1 << ALIGN_BITS);
  const matchLengths = lengths();
  const repLengths = lengths();
  let state = 0;
  let position = 0;
  let [rep0, rep1, rep2, rep3] = [0, 0, 0, 0];

  function literal(): number {
    const before = position > 0 ? out[position - 1]! : 0;
    const start = LITERAL * (((position & ((1 << lp) - 1)) << lc) + (before >> (8 - lc)));
    let symbol = 1;
    if (state >= 7) {
      let match = out[position - rep0 - 1]!;
      while (symbol < 0x100) {
        const expected = (match >> 7) & 1;
        match <<= 1;
        const one = bit(literals, start + ((1 + expected) << 8) + symbol);
        symbol = 2 * symbol + one;
        if (one !== expected) break;
      }
    }
    while (symbol < 0x100) symbol = 2 * symbol + bit(literals, start + symbol);
    return symbol & 0xff;
  }
  function length({ choice, low, middle, high }: ReturnType<typeof lengths>, aligned: number): number {
    if (!bit(choice, 0)) return tree(low, aligned << 3, 3);
    if (!bit(choice, 1)) return 8 + tree(middle, aligned << 3, 3);
    return 16 + tree(high, 0, 8);
  }
  function distance(matched: number): number {
    const slot = tree(slots, Math.min(matched, 3) << 6, 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) * 2 ** bits;
    if (slot < FIRST_ALIGNED_SLOT) return base + reversedTree(positions, base - slot, bits);
    return base + directBits(bits - ALIGN_BITS) * (1 << ALIGN_BITS) + reversedTree(align, 0, ALIGN_BITS);
  }
  function copy(count: number): void {
    if (rep0 >= position || position + count > size) throw new Error("the LZMA file was altered");
    for (let i = 0; i < count; i++, position++) out[position] = out[position - rep0 - 1]!;
  }

  for (;;) {
    const aligned = position & ((1 << pb) - 1);
    if (!bit(isMatch, (state << 4) + aligned)) {
      if (position >= size) throw new Error("the LZMA file was altered");
      out[position] = literal();
      position++;
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
      continue;
    }
    if (!bit(isRep, state)) {
      [rep3, rep2, rep1] = [rep2, rep1, rep0];
      const matched = length(matchLengths, aligned);
      state = state < 7 ? 7 : 10;
      rep0 = distance(matched);
      if (rep0 === END) break;
      copy(matched + LEAST_LENGTH);
      continue;
    }
    if (!bit(isRepG0, state)) {
      if (!bit(isRep0Long, (state << 4) + aligned)) {
        state = state < 7 ? 9 : 11;
        copy(1);
        continue;
      }
    } else if (!bit(isRepG1, state)) [rep0, rep1] = [rep1, rep0];
    else if (!bit(isRepG2, state)) [rep0, rep1, rep2] = [rep2, rep0, rep1];
    else [rep0, rep1, rep2, rep3] = [rep3, rep0, rep1, rep2];
    const repeated = length(repLengths, aligned);
    state = state < 7 ? 8 : 11;
    copy(repeated + LEAST_LENGTH);
  }
  if (position !== size || code !== 0) throw new Error("the LZMA file was altered");
  return out;
}
