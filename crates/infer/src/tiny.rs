//! A model for tests: two layers, 64 wide, 97 tokens, from a seed. Every processor writes the same file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

use crate::class::Arithmetic;
use crate::engine::Engine;
use crate::limits::Limits;
use crate::model::Model;
use crate::{Level, product};

pub(crate) const HIDDEN: usize = 64;
pub(crate) const INNER: usize = 192;
pub(crate) const HEADS: usize = 2;
pub(crate) const LAYERS: usize = 2;
pub(crate) const VOCABULARY: usize = 97;
pub(crate) const POSITIONS: usize = 160;
pub(crate) const EPSILON: f32 = 1e-12;

/// The error function in f64, by a series of which all terms have one sign.
pub(crate) fn erf(x: f64) -> f64 {
    let (mut term, mut total, mut n) = (x, x, 0.0);
    while term.abs() > total.abs() * 1e-17 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        total += term;
    }
    total * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

/// Tensors by name, with their shapes.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers of a seed.
#[derive(Debug)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between −1 and 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}

/// Adds a tensor: its name, its shape, around what and how far its numbers lie.
type Add<'a> = &'a mut dyn FnMut(String, &[usize], f32, f32);

/// The weights. Some channels are ten times the others, as in trained networks.
pub(crate) fn tensors() -> Tensors {
    let mut seed = Seed(7);
    let mut all = Tensors::new();
    let mut add = |name: String, shape: &[usize], around: f32, spread: f32| {
        let numbers = (0..shape.iter().product())
            .map(|_| around + spread * seed.number())
            .collect();
        all.insert(name, (shape.to_vec(), numbers));
    };
    let norm = |add: Add<'_>, name: &str| {
        add(format!("{name}.weight"), &[HIDDEN], 1.0, 0.5);
        add(format!("{name}.bias"), &[HIDDEN], 0.0, 0.3);
    };
    for (name, rows) in [("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)] {
        add(
            format!("embeddings.{name}_embeddings.weight"),
            &[rows, HIDDEN],
            0.0,
            0.5,
        );
    }
    norm(&mut add, "embeddings.LayerNorm");
    for layer in 0..LAYERS {
        let at = |rest: &str| format!("encoder.layer.{layer}.{rest}");
        for (name, inputs, outputs) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", HIDDEN, INNER),
            ("output.dense", INNER, HIDDEN),
        ] {
            add(at(&format!("{name}.weight")), &[outputs, inputs], 0.0, 0.25);
            add(at(&format!("{name}.bias")), &[outputs], 0.0, 0.1);
        }
        norm(&mut add, &at("attention.output.LayerNorm"));
        norm(&mut add, &at("output.LayerNorm"));
    }
    if let Some((_, gain)) = all.get_mut("encoder.layer.0.output.LayerNorm.weight") {
        gain[11] = 9.0;
        gain[40] = -11.0;
    }
    all
}

/// The tensors of a model's file that are F32.
pub(crate) fn read_tensors(folder: &Path) -> Tensors {
    let file = std::fs::read(folder.join("model.safetensors")).expect("the file can be read");
    let file = safetensors::SafeTensors::deserialize(&file).expect("the file is sound");
    let numbers = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let f32s = file.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32);
    f32s.map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), numbers(tensor.data()))))
        .collect()
}

/// A tensor of a file: name, form, shape and bytes.
pub(crate) type Raw = (String, Dtype, Vec<usize>, Vec<u8>);

pub(crate) fn raw(tensors: &Tensors) -> Vec<Raw> {
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors
        .iter()
        .map(|(name, (shape, numbers))| (name.clone(), Dtype::F32, shape.clone(), bytes(numbers)))
        .collect()
}

pub(crate) fn write_tensors(folder: &Path, raw: &[Raw]) {
    let view = |(name, form, shape, bytes): &'_ Raw| (name.clone(), (*form, shape.clone(), bytes.clone()));
    let owned: Vec<_> = raw.iter().map(view).collect();
    let views = owned.iter().map(|(name, (form, shape, bytes))| {
        (
            name.clone(),
            TensorView::new(*form, shape.clone(), bytes).expect("shape and bytes agree"),
        )
    });
    let file = serialize(views, None).expect("views are of one file");
    std::fs::write(folder.join("model.safetensors"), file).expect("the folder can be written");
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": EPSILON,
        "position_embedding_type": "absolute", "architectures": ["BertModel"],
    })
}

/// WordPiece over letters and digits; with padding and cutting, which must not count.
pub(crate) fn tokenizer() -> Value {
    let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(str::to_owned)
        .to_vec();
    for c in ('a'..='z').chain('0'..='9') {
        words.extend([c.to_string(), format!("##{c}")]);
    }
    words.extend(["the", "sun", "rises", ".", ",", "?", "!"].map(str::to_owned));
    assert!(words.len() <= VOCABULARY);
    let vocabulary: BTreeMap<&String, usize> = words.iter().zip(0..).collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0 },
        "padding": {
            "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    })
}

/// With keys in order, whatever the crate of JSON does with them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut all: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(all.into_iter().collect())
        }
        Value::Array(all) => all.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

pub(crate) fn write_json(folder: &Path, name: &str, value: &Value) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder can be made");
    std::fs::write(path, sorted(value).to_string()).expect("the folder can be written");
}

/// Writes all files of the model.
pub(crate) fn write(folder: &Path) {
    write_tensors(folder, &raw(&tensors()));
    write_json(folder, "config.json", &config());
    write_json(folder, "tokenizer.json", &tokenizer());
    let module = |path: &str, kind: &str| json!({ "idx": 0, "name": "0", "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let modules = [
        module("", "Transformer"),
        module("1_Pooling", "Pooling"),
        module("2_Normalize", "Normalize"),
    ];
    write_json(folder, "modules.json", &json!(modules));
    write_json(
        folder,
        "1_Pooling/config.json",
        &json!({ "pooling_mode_mean_tokens": true }),
    );
    write_json(
        folder,
        "sentence_bert_config.json",
        &json!({ "max_seq_length": 150, "do_lower_case": false }),
    );
}

/// The model, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Tiny {
    pub(crate) folder: tempfile::TempDir,
}

impl Tiny {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        write(folder.path());
        Self { folder }
    }

    pub(crate) fn load(&self, engine: &Engine) -> Model {
        Model::load(engine, self.folder.path(), Arithmetic::I16, Limits::default()).expect("the tiny model loads")
    }
}

/// Engines of every product and level of this processor, alone and with four threads.
pub(crate) fn engines() -> Vec<Engine> {
    let mut all = Vec::new();
    for product in product::available() {
        for level in Level::available() {
            for threads in [1, 4].map(NonZeroUsize::new).into_iter().flatten() {
                all.push(Engine::with(threads, product.clone(), level).expect("threads start"));
            }
        }
    }
    all
}

/// The slowest way of all: what the others are held against.
pub(crate) fn plain() -> Engine {
    let product = std::sync::Arc::new(product::Portable);
    Engine::with(NonZeroUsize::MIN, product, Level::baseline()).expect("a thread starts")
}

/// Arrays of tokens of the vocabulary, of lengths around every edge: tiles, blocks, panels, groups.
pub(crate) fn texts() -> Vec<Vec<u32>> {
    let mut seed = Seed(11);
    [
        1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 96, 97, 127, 128, 129, 150,
    ]
    .map(|length| (0..length).map(|_| (seed.next() % VOCABULARY as u64) as u32).collect())
    .to_vec()
}
