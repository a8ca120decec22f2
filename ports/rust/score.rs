//! score LIBONNXRUNTIME MODEL.onnx PHOTO.ppm...: prints the score of each photograph, 0 worst, 1 best.
//!
//!     rustc --edition 2021 -O -o score score.rs
//!     ./score libonnxruntime.so.1 pocket-m.onnx photo.ppm
//!
//! Without any crate: the library of ONNX Runtime 1.1 or newer is opened, and the few functions that are needed are
//! taken from their places in the table of its C API, which never change. Photographs are binary PPM files (P6):
//! decode yours upright, in sRGB. Large ones are looked at once, as by `pocketiqa score --look quick`.
mod preprocess;

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::mem::transmute;
use std::ptr::null_mut;

type Result<T> = std::result::Result<T, String>;
/// An object of the library, or a function in its table.
type Object = *mut c_void;
type Text = *const c_char;

#[link(name = "dl")]
extern "C" {
    fn dlopen(path: Text, flags: c_int) -> Object;
    fn dlsym(library: Object, name: Text) -> Object;
}

/// `OrtApiBase`.
#[repr(C)]
struct Base {
    table: extern "C" fn(u32) -> *const Object,
    version: extern "C" fn() -> Text,
}
const API_VERSION: u32 = 2;
const RTLD_NOW: c_int = 2;
const WARNING: c_int = 2;
const UINT8: c_int = 2;

/// Calls a function of the table: its place there, the types of its arguments, the arguments. A status is an error.
macro_rules! call {
    ($table:expr, $place:expr, ($($kind:ty),*), $($value:expr),*) => {{
        let status = transmute::<Object, extern "C" fn($($kind),*) -> Object>(*$table.add($place))($($value),*);
        if !status.is_null() {
            let message: extern "C" fn(Object) -> Text = transmute(*$table.add(2)); // GetErrorMessage
            return Err(CStr::from_ptr(message(status)).to_string_lossy().into_owned());
        }
    }};
}

/// Opens library and model, and prints the score of each photograph; the model is there until the process ends.
fn run(library: &str, model: &str, photos: &[String]) -> Result<()> {
    let path = CString::new(library).map_err(|error| error.to_string())?;
    let file = CString::new(model).map_err(|error| error.to_string())?;
    let (mut env, mut options, mut session): (Object, Object, Object) = (null_mut(), null_mut(), null_mut());
    let (mut metadata, mut allocator, mut memory): (Object, Object, Object) = (null_mut(), null_mut(), null_mut());
    let mut value: *mut c_char = null_mut();
    unsafe {
        let handle = dlopen(path.as_ptr(), RTLD_NOW);
        let entry = if handle.is_null() { null_mut() } else { dlsym(handle, c"OrtGetApiBase".as_ptr()) };
        if entry.is_null() {
            return Err(format!("{library} is not the library of ONNX Runtime"));
        }
        let t = ((*transmute::<Object, extern "C" fn() -> *const Base>(entry)()).table)(API_VERSION);
        if t.is_null() {
            return Err(format!("{library}: ONNX Runtime 1.1 or newer is needed"));
        }
        // CreateEnv, CreateSessionOptions, CreateSession, SessionGetModelMetadata, GetAllocatorWithDefaultOptions,
        // ModelMetadataLookupCustomMetadataMap, CreateCpuMemoryInfo
        call!(t, 3, (c_int, Text, *mut Object), WARNING, c"pocketiqa".as_ptr(), &mut env);
        call!(t, 10, (*mut Object), &mut options);
        call!(t, 7, (Object, Text, Object, *mut Object), env, file.as_ptr(), options, &mut session);
        call!(t, 111, (Object, *mut Object), session, &mut metadata);
        call!(t, 78, (*mut Object), &mut allocator);
        let key = c"pocketiqa.contract".as_ptr();
        call!(t, 116, (Object, Object, Text, *mut *mut c_char), metadata, allocator, key, &mut value);
        call!(t, 69, (c_int, c_int, *mut Object), 0, 0, &mut memory);
        if value.is_null() {
            return Err(format!("{model} holds no contract: it is no student of pocketiqa"));
        }
        let contract = CStr::from_ptr(value).to_string_lossy();
        let (max_side, min_side) = (number(&contract, "\"max_side\":")?, number(&contract, "\"min_side\":")?);
        for photo in photos {
            let (rgb, height, width) = read_ppm(photo)?;
            let (mut input, rows, columns) = preprocess::resize(&rgb, height, width, max_side, min_side);
            let (shape, n) = ([1i64, rows as i64, columns as i64, 3], input.len());
            let (names, outputs) = ([c"rgb".as_ptr()], [c"score".as_ptr()]);
            let (mut tensor, mut result, mut data): (Object, Object, *mut f32) = (null_mut(), null_mut(), null_mut());
            // CreateTensorWithDataAsOrtValue, Run, GetTensorMutableData, ReleaseValue
            call!(t, 49, (Object, *mut u8, usize, *const i64, usize, c_int, *mut Object),
                  memory, input.as_mut_ptr(), n, shape.as_ptr(), 4, UINT8, &mut tensor);
            call!(t, 9, (Object, Object, *const Text, *const Object, usize, *const Text, usize, *mut Object),
                  session, null_mut(), names.as_ptr(), &tensor, 1, outputs.as_ptr(), 1, &mut result);
            call!(t, 51, (Object, *mut *mut f32), result, &mut data);
            println!("{:.6} {photo}", calibrated(&contract, f64::from(*data)));
            let release: extern "C" fn(Object) = transmute(*t.add(96));
            release(tensor);
            release(result);
        }
    }
    Ok(())
}

/// The whole number behind the first `key` of JSON text.
fn number(json: &str, key: &str) -> Result<usize> {
    let digits = json.split(key).nth(1).and_then(|behind| behind.trim_start().split([',', '}']).next());
    digits.and_then(|digits| digits.parse().ok()).ok_or(format!("the model's contract has no number as {key}"))
}

/// The calibration, a broken line through the knots `[[raw, score], ...]`; a contract with null has none.
fn calibrated(json: &str, raw: f64) -> f64 {
    let text = json.split("\"knots\": [[").nth(1).and_then(|behind| behind.split("]]").next());
    let Some(text) = text else { return raw };
    let values: Vec<f64> = text.split(['[', ']', ',', ' ']).filter_map(|value| value.parse().ok()).collect();
    let knots: Vec<&[f64]> = values.chunks_exact(2).collect();
    let next = knots.iter().position(|knot| raw <= knot[0]).unwrap_or(knots.len() - 1).max(1);
    let (low, high) = (knots[next - 1], knots[next]);
    low[1] + (high[1] - low[1]) * ((raw - low[0]) / (high[0] - low[0])).clamp(0.0, 1.0)
}

/// Pixels, height and width of a binary PPM file with 8 bits and without comments.
fn read_ppm(path: &str) -> Result<(Vec<u8>, usize, usize)> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let header: Vec<&[u8]> = bytes.splitn(5, u8::is_ascii_whitespace).collect();
    let words: Vec<&str> = header.iter().take(4).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let sides = || Some((words.get(2)?.parse::<usize>().ok()?, words.get(1)?.parse::<usize>().ok()?));
    let (Some((height, width)), Some(&"P6"), Some(&"255"), 5) = (sides(), words.first(), words.get(3), header.len())
    else {
        return Err(format!("{path}: no binary PPM file (P6) with 8 bits and without comments"));
    };
    let pixels = header[4].get(..height * width * 3).ok_or(format!("{path}: shorter than its header says"))?;
    Ok((pixels.to_vec(), height, width))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.len() < 3 {
        eprintln!("usage: score LIBONNXRUNTIME MODEL.onnx PHOTO.ppm...");
        std::process::exit(2);
    }
    if let Err(reason) = run(&words[0], &words[1], &words[2..]) {
        eprintln!("{reason}");
        std::process::exit(1);
    }
}
