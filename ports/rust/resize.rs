//! resize HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB: the command by which the port is tested.
mod preprocess;

use std::io::{Read, Write};

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let [height, width, max_side, min_side] = sizes[..] else {
        eprintln!("usage: resize HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB");
        std::process::exit(2);
    };
    let mut rgb = Vec::new();
    std::io::stdin().read_to_end(&mut rgb).expect("standard input can be read");
    let (data, _, _) = preprocess::resize(&rgb, height, width, max_side, min_side);
    std::io::stdout().write_all(&data).expect("standard output can be written");
}
