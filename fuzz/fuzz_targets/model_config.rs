//! The configuration of a model: six files, one behind the other, with a byte between them that is in no text.
#![no_main]

use dawn_infer::Shape;
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 6] = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
];

fuzz_target!(|bytes: &[u8]| {
    let files: Vec<&[u8]> = bytes.split(|byte| *byte == 0xff).collect();
    let read = |name: &str| {
        let at = FILES.iter().position(|file| *file == name);
        Ok(at.and_then(|at| files.get(at)).filter(|file| !file.is_empty()).map(|file| file.to_vec()))
    };
    if let Ok(shape) = Shape::read(&read) {
        assert!(shape.tokens >= 1 && shape.tokens <= shape.positions);
        assert!(shape.hidden % 64 == 0 && shape.hidden % shape.heads == 0);
    }
});
