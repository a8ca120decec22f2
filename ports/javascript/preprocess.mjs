/**
 * The resize before a pocketiqa student: RGB bytes in, RGB bytes out, equal to `pocketiqa score` to the byte.
 *
 * Plain JavaScript for browsers and Node.js, without dependencies. The specification is docs/preprocess.md; the comments
 * below name its steps.
 *
 *     const { data, height, width } = resize(rgb, 768, 1024, 288, 64); // data: Uint8Array, height * width * 3
 */

const BITS = 22; // fraction bits of the integer coefficients
const GAP = 2; // whole pixels are averaged first where the reduction is at least twice this
const A = Math.fround(0.54); // as 32-bit floats
const B = Math.fround(0.46);

/** Step 1. Half-way cases go to the even neighbour. */
function scaled(side, scale) {
  const value = side * scale;
  const low = Math.floor(value);
  const rest = value - low;
  const rounded = rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
  return Math.max(1, rounded);
}

/**
 * Height and width of the student's input.
 *
 * @param {number} height of the image, upright
 * @param {number} width
 * @param {number} maxSide `preprocess.max_side` of the model's contract
 * @param {number} minSide `preprocess.min_side`
 * @returns {[number, number]} height and width
 */
export function inputSize(height, width, maxSide, minSide) {
  const longer = Math.max(height, width);
  const shorter = Math.min(height, width);
  const scale = Math.min(1, maxSide / longer);
  let newLonger = scaled(longer, scale);
  let newShorter = scaled(shorter, scale);
  if (newShorter < minSide) {
    newShorter = minSide;
    newLonger = Math.min(maxSide, Math.max(minSide, scaled(longer, minSide / shorter)));
  }
  return height >= width ? [newLonger, newShorter] : [newShorter, newLonger];
}

/** Step 2. Mean of blocks of fx x fy pixels; blocks at the right and lower edge may be smaller. */
function reduce(rgb, height, width, fy, fx) {
  const rows = Math.ceil(height / fy);
  const columns = Math.ceil(width / fx);
  const out = new Uint8Array(rows * columns * 3);
  for (let y = 0; y < rows; y++) {
    const bottom = Math.min((y + 1) * fy, height);
    for (let x = 0; x < columns; x++) {
      const right = Math.min((x + 1) * fx, width);
      const count = (bottom - y * fy) * (right - x * fx);
      const multiplier = Math.floor(Math.fround(4294967296 / Math.fround(256 * count)));
      for (let c = 0; c < 3; c++) {
        let sum = count >> 1;
        for (let yy = y * fy; yy < bottom; yy++) {
          for (let xx = x * fx; xx < right; xx++) sum += rgb[(yy * width + xx) * 3 + c];
        }
        // The product has up to 32 bits: exact as a double, unlike with JavaScript's signed shifts.
        out[(y * columns + x) * 3 + c] = Math.floor((sum * multiplier) / 16777216);
      }
    }
  }
  return out;
}

function hamming(x) {
  x = Math.abs(x);
  if (x === 0) return 1;
  if (x >= 1) return 0;
  x *= Math.PI;
  return (Math.sin(x) / x) * (A + B * Math.cos(x));
}

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** Step 3. First source pixel, number of source pixels and integer coefficients of each of `out` pixels of a line. */
function coefficients(size, extent, out, grows) {
  const filter = grows ? bicubic : hamming;
  const scale = extent / out;
  const stretch = Math.max(1, scale);
  const support = (grows ? 2 : 1) * stretch;
  const room = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(out);
  const count = new Int32Array(out);
  const k = new Int32Array(out * room);
  const weight = new Float64Array(room);
  for (let at = 0; at < out; at++) {
    const centre = (at + 0.5) * scale;
    const low = Math.max(0, Math.trunc(centre - support + 0.5));
    const high = Math.min(size, Math.trunc(centre + support + 0.5));
    let total = 0;
    for (let i = 0; i < high - low; i++) total += weight[i] = filter((i + low - centre + 0.5) * (1 / stretch));
    for (let i = 0; i < high - low; i++) {
      const value = (total !== 0 ? weight[i] / total : weight[i]) * (1 << BITS);
      k[at * room + i] = Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
    }
    first[at] = low;
    count[at] = high - low;
  }
  return { first, count, k, room };
}

/** One direction of step 3; `step` is the distance of neighbours along a line, `start` that of lines, in pixels. */
function pass(source, result, { lines, size, extent, out, grows, step, sourceStart, resultStart }) {
  const { first, count, k, room } = coefficients(size, extent, out, grows);
  for (let line = 0; line < lines; line++) {
    for (let at = 0; at < out; at++) {
      for (let c = 0; c < 3; c++) {
        let sum = 1 << (BITS - 1);
        for (let i = 0; i < count[at]; i++) {
          sum += k[at * room + i] * source[(line * sourceStart + (first[at] + i) * step) * 3 + c];
        }
        // 32-bit integers do: the coefficients add up to about 1.
        result[(line * resultStart + at * step) * 3 + c] = Math.min(255, Math.max(0, sum >> BITS));
      }
    }
  }
}

/**
 * The whole resize.
 *
 * @param {Uint8Array | Uint8ClampedArray} rgb `height * width * 3` bytes: red, green, blue, row by row from the top
 * @param {number} height
 * @param {number} width
 * @param {number} maxSide see `inputSize`
 * @param {number} minSide see `inputSize`
 * @returns {{data: Uint8Array, height: number, width: number}}
 * @throws {RangeError} the bytes are not those of such an image
 */
export function resize(rgb, height, width, maxSide, minSide) {
  if (!(height > 0 && width > 0) || rgb.length !== height * width * 3) {
    throw new RangeError(`${rgb.length} bytes are no RGB image of ${width}x${height}: give width * height * 3`);
  }
  const [outHeight, outWidth] = inputSize(height, width, maxSide, minSide);
  // Bicubic where a side grows, else Hamming: decided before step 2.
  const grows = outHeight > height || outWidth > width;
  const fx = Math.trunc(width / outWidth / GAP) || 1;
  const fy = Math.trunc(height / outHeight / GAP) || 1;
  let image = fx > 1 || fy > 1 ? reduce(rgb, height, width, fy, fx) : Uint8Array.from(rgb);
  let rows = Math.ceil(height / fy);
  let columns = Math.ceil(width / fx);
  const extentY = Math.fround(height / fy);
  const extentX = Math.fround(width / fx);
  // A direction in which nothing changes is left out; one with a cut last block changes.
  const across = columns !== outWidth || extentX !== outWidth;
  const down = rows !== outHeight || extentY !== outHeight;
  // Rounding between the passes makes their order matter: down first where the height falls by far more.
  const downFirst = rows > outHeight && rows - outHeight > 2 * (columns - outWidth);
  for (const vertical of downFirst ? [true, false] : [false, true]) {
    if (vertical ? !down : !across) continue;
    const next = new Uint8Array((vertical ? outHeight * columns : rows * outWidth) * 3);
    const plan = vertical
      ? { lines: columns, size: rows, extent: extentY, out: outHeight, step: columns, sourceStart: 1, resultStart: 1 }
      : { lines: rows, size: columns, extent: extentX, out: outWidth, step: 1, sourceStart: columns, resultStart: outWidth };
    pass(image, next, { ...plan, grows });
    image = next;
    if (vertical) rows = outHeight;
    else columns = outWidth;
  }
  return { data: image, height: outHeight, width: outWidth };
}
