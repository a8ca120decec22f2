//! The resize before a pocketiqa student: RGB bytes in, RGB bytes out, equal to `pocketiqa score` to the byte.
//!
//! The standard library alone. The specification is docs/preprocess.md; the comments below name its steps.
//!
//! ```ignore
//! let (input, height, width) = preprocess::resize(&rgb, 768, 1024, 288, 64);
//! ```

const BITS: u32 = 22; // fraction bits of the integer coefficients
const GAP: f64 = 2.0; // whole pixels are averaged first where the reduction is at least twice this

/// Step 1. Half-way cases go to the even neighbour.
fn scaled(side: usize, scale: f64) -> usize {
    let value = side as f64 * scale;
    let (low, rest) = (value.floor(), value - value.floor());
    let up = rest > 0.5 || (rest == 0.5 && low as u64 % 2 == 1);
    (low as usize + usize::from(up)).max(1)
}

/// Height and width of the student's input; `max_side` and `min_side` are those of the model's contract.
pub fn input_size(height: usize, width: usize, max_side: usize, min_side: usize) -> (usize, usize) {
    let (longer, shorter) = (height.max(width), height.min(width));
    let scale = (max_side as f64 / longer as f64).min(1.0);
    let (mut new_longer, mut new_shorter) = (scaled(longer, scale), scaled(shorter, scale));
    if new_shorter < min_side {
        new_shorter = min_side;
        new_longer = scaled(longer, min_side as f64 / shorter as f64).max(min_side).min(max_side);
    }
    if height >= width { (new_longer, new_shorter) } else { (new_shorter, new_longer) }
}

/// Step 2. Mean of blocks of fx x fy pixels; blocks at the right and lower edge may be smaller.
fn reduce(rgb: &[u8], height: usize, width: usize, fy: usize, fx: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(height.div_ceil(fy) * width.div_ceil(fx) * 3);
    for top in (0..height).step_by(fy) {
        let bottom = (top + fy).min(height);
        for left in (0..width).step_by(fx) {
            let right = (left + fx).min(width);
            let count = ((bottom - top) * (right - left)) as u32;
            // f32, as in the specification: of 24 bits.
            let multiplier = (4294967296.0f32 / (256 * count) as f32) as u32;
            for c in 0..3 {
                let mut sum = count / 2;
                for y in top..bottom {
                    for x in left..right {
                        sum += u32::from(rgb[(y * width + x) * 3 + c]);
                    }
                }
                out.push((sum.wrapping_mul(multiplier) >> 24) as u8);
            }
        }
    }
    out
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x * (f64::from(0.54f32) + f64::from(0.46f32) * x.cos())
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Step 3. First source pixel and integer coefficients of each of `out` pixels of a line of `size` pixels, of which
/// `extent` are the picture.
fn coefficients(size: usize, extent: f32, out: usize, grows: bool) -> Vec<(usize, Vec<i32>)> {
    let filter = if grows { bicubic } else { hamming };
    let scale = f64::from(extent) / out as f64;
    let stretch = scale.max(1.0);
    let support = if grows { 2.0 } else { 1.0 } * stretch;
    (0..out)
        .map(|at| {
            let centre = (at as f64 + 0.5) * scale;
            let low = (centre - support + 0.5).max(0.0) as usize;
            let high = ((centre + support + 0.5) as usize).min(size);
            let weights: Vec<f64> =
                (low..high).map(|i| filter((i as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            // Added in this order, as rounding depends on it.
            let total: f64 = weights.iter().fold(0.0, |sum, weight| sum + weight);
            let integers = weights.iter().map(|weight| {
                let value = if total != 0.0 { weight / total } else { *weight } * f64::from(1 << BITS);
                (if value < 0.0 { value - 0.5 } else { value + 0.5 }) as i32
            });
            (low, integers.collect())
        })
        .collect()
}

/// One direction of step 3: the pixel at `i` of `line` lies at `line * start + i * step`.
struct Pass {
    lines: usize,
    size: usize,
    extent: f32,
    out: usize,
    step: usize,
    source_start: usize,
    result_start: usize,
}

fn run(pass: &Pass, source: &[u8], grows: bool) -> Vec<u8> {
    let plan = coefficients(pass.size, pass.extent, pass.out, grows);
    let mut result = vec![0; pass.lines * pass.out * 3];
    for line in 0..pass.lines {
        for (at, (first, k)) in plan.iter().enumerate() {
            for c in 0..3 {
                let mut sum = 1i32 << (BITS - 1);
                for (i, weight) in k.iter().enumerate() {
                    sum += weight * i32::from(source[(line * pass.source_start + (first + i) * pass.step) * 3 + c]);
                }
                result[(line * pass.result_start + at * pass.step) * 3 + c] = (sum >> BITS).clamp(0, 255) as u8;
            }
        }
    }
    result
}

/// The whole resize: pixels, height and width of the student's input.
///
/// # Panics
/// `rgb` does not hold `height * width * 3` bytes, or has no pixel.
pub fn resize(rgb: &[u8], height: usize, width: usize, max_side: usize, min_side: usize) -> (Vec<u8>, usize, usize) {
    assert!(!rgb.is_empty() && rgb.len() == height * width * 3, "no RGB image of {width}x{height}");
    let (out_height, out_width) = input_size(height, width, max_side, min_side);
    // Bicubic where a side grows, else Hamming: decided before step 2.
    let grows = out_height > height || out_width > width;
    let fx = ((width as f64 / out_width as f64 / GAP) as usize).max(1);
    let fy = ((height as f64 / out_height as f64 / GAP) as usize).max(1);
    let mut image = if fx > 1 || fy > 1 { reduce(rgb, height, width, fy, fx) } else { rgb.to_vec() };
    let (mut rows, mut columns) = (height.div_ceil(fy), width.div_ceil(fx));
    let (extent_y, extent_x) = ((height as f64 / fy as f64) as f32, (width as f64 / fx as f64) as f32);
    // A direction in which nothing changes is left out; one with a cut last block changes.
    let across = columns != out_width || extent_x != out_width as f32;
    let down = rows != out_height || extent_y != out_height as f32;
    // Rounding between the passes makes their order matter: down first where the height falls by far more.
    let falls = |from: usize, to: usize| from as i64 - to as i64;
    let down_first = rows > out_height && falls(rows, out_height) > 2 * falls(columns, out_width);
    for vertical in [down_first, !down_first] {
        if vertical && down {
            let (lines, size) = (columns, rows);
            let pass = Pass { lines, size, extent: extent_y, out: out_height, step: columns, source_start: 1, result_start: 1 };
            image = run(&pass, &image, grows);
            rows = out_height;
        } else if !vertical && across {
            let (lines, size, source_start) = (rows, columns, columns);
            let pass = Pass { lines, size, extent: extent_x, out: out_width, step: 1, source_start, result_start: out_width };
            image = run(&pass, &image, grows);
            columns = out_width;
        }
    }
    (image, out_height, out_width)
}
