//! How many texts a second a model embeds, for each number of texts and tokens: `speed FOLDER [SECONDS] [THREADS]`.
#![allow(clippy::print_stdout, reason = "a program for a person")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use dawn_infer::{Arithmetic, Control, Cut, Engine, Level, Limits, Model, Tokens, product};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("speed FOLDER [SECONDS] [THREADS]")?;
    let seconds = Duration::from_secs_f64(arguments.next().map_or(Ok(0.3), |s| s.parse())?);
    let threads = arguments.next().map_or_else(std::thread::available_parallelism, |n| {
        Ok(n.parse().unwrap_or(NonZeroUsize::MIN))
    })?;
    let engine = Engine::new(threads)?;
    let start = Instant::now();
    let model = Model::load(&engine, Path::new(&folder), Arithmetic::I16, Limits::default())?;
    println!(
        "{} on {} with {} threads, loaded in {:?}",
        model.class(),
        engine.product(),
        threads,
        start.elapsed()
    );
    let words = "the quick brown fox jumps over the lazy dog and the sun rises in the east ".repeat(40);
    let text = model.tokenize(&words, Cut::End)?;
    for length in [16, 128, 256_usize.min(model.shape().tokens)] {
        for texts in [1, 8, 32] {
            let batch = vec![
                Tokens {
                    ids: text.ids[..length].to_vec(),
                    cut: true
                };
                texts
            ];
            let (best, median) = measure(&engine, &model, &batch, seconds)?;
            println!(
                "{texts:3} texts of {length:3} tokens: {:8.1} texts/s at best, {:8.1} in the middle, {:.2} ms",
                texts as f64 / best,
                texts as f64 / median,
                median * 1e3
            );
        }
    }
    let batch = vec![
        Tokens {
            ids: text.ids[..128].to_vec(),
            cut: true
        };
        8
    ];
    for product in product::available() {
        let level = Level::available().first().copied().unwrap_or(Level::baseline());
        let engine = Engine::with(threads, product, level)?;
        let (best, _) = measure(&engine, &model, &batch, seconds)?;
        println!("{:12} {:8.1} texts/s of 128 tokens", engine.product(), 8.0 / best);
    }
    Ok(())
}

/// Seconds of the best and of the middle call.
fn measure(
    engine: &Engine,
    model: &Model,
    batch: &[Tokens],
    seconds: Duration,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut calls = Vec::new();
    let end = Instant::now() + seconds;
    while calls.len() < 3 || Instant::now() < end {
        let start = Instant::now();
        model.embed(engine, batch, &Control::default())?;
        calls.push(start.elapsed().as_secs_f64());
    }
    calls.sort_by(f64::total_cmp);
    Ok((calls[0], calls[calls.len() / 2]))
}
