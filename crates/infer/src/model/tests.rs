//! Models as they come: whole, damaged, of other kinds.

use std::path::Path;

use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::*;
use crate::tiny::{self, HIDDEN, POSITIONS, Tiny, VOCABULARY};

fn load(folder: &Path) -> Result<Model, LoadError> {
    Model::load(&tiny::plain(), folder, Arithmetic::I16, Limits::default())
}

/// The tiny model with another configuration.
fn with_config(change: impl FnOnce(&mut Value)) -> Result<Model, LoadError> {
    let tiny = Tiny::new();
    let mut config = tiny::config();
    change(&mut config);
    tiny::write_json(tiny.folder.path(), "config.json", &config);
    load(tiny.folder.path())
}

/// The tiny model with other tensors.
fn with_tensors(change: impl FnOnce(&mut Vec<tiny::Raw>)) -> Result<Model, LoadError> {
    let tiny = Tiny::new();
    let mut raw = tiny::raw(&tiny::tensors());
    change(&mut raw);
    tiny::write_tensors(tiny.folder.path(), &raw);
    load(tiny.folder.path())
}

fn named<'a>(raw: &'a mut [tiny::Raw], name: &str) -> &'a mut tiny::Raw {
    raw.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

#[test]
fn a_text_is_read_between_its_special_tokens_and_cut_before_the_last() {
    let model = load(Tiny::new().folder.path()).unwrap();
    let tokens = model.tokenize("The sun rises.", Cut::Never).unwrap();
    assert_eq!(
        tokens,
        Tokens {
            ids: vec![2, 77, 78, 79, 80, 3],
            cut: false
        }
    );
    let long = "a ".repeat(200);
    let tokens = model.tokenize(&long, Cut::End).unwrap();
    assert_eq!(
        (tokens.ids.len(), tokens.ids.first(), tokens.ids.last(), tokens.cut),
        (150, Some(&2), Some(&3), true)
    );
    let error = model.tokenize(&long, Cut::Never);
    assert_eq!(
        error,
        Err(InferError::TooLong {
            length: 202,
            allowed: 150,
            unit: "tokens"
        })
    );
    assert_eq!(model.tokenize("", Cut::End), Err(InferError::Empty));
    let bytes = Limits::default().text_bytes + 1;
    let error = model.tokenize(&"a".repeat(bytes), Cut::End).unwrap_err();
    assert_eq!(
        (error.code(), error),
        (
            "too_long",
            InferError::TooLong {
                length: bytes,
                allowed: bytes - 1,
                unit: "bytes"
            }
        )
    );
}

#[test]
fn tokens_from_elsewhere_get_special_ones_once_and_must_be_the_models() {
    let model = load(Tiny::new().folder.path()).unwrap();
    let text = model.tokenize("the sun", Cut::Never).unwrap();
    assert_eq!(model.tokens(&[77, 78], Cut::Never).unwrap(), text);
    assert_eq!(model.tokens(&text.ids, Cut::Never).unwrap(), text);
    assert_eq!(model.tokens(&[], Cut::End), Err(InferError::Empty));
    let error = model.tokens(&[97], Cut::End).unwrap_err();
    assert_eq!(
        error,
        InferError::Token {
            id: 97,
            vocabulary: VOCABULARY
        }
    );
    assert!(model.tokens(&[8; 200], Cut::End).unwrap().cut);
}

#[test]
fn a_call_with_too_many_texts_or_foreign_tokens_is_refused() {
    let engine = tiny::plain();
    let tiny = Tiny::new();
    let limits = Limits {
        texts: 2,
        ..Limits::default()
    };
    let model = Model::load(&engine, tiny.folder.path(), Arithmetic::I16, limits).unwrap();
    let embed = |ids: Vec<Vec<u32>>| {
        let texts: Vec<Tokens> = ids.into_iter().map(|ids| Tokens { ids, cut: false }).collect();
        model.embed(&engine, &texts, &Control::default()).unwrap_err()
    };
    assert_eq!(
        embed(vec![vec![2]; 3]),
        InferError::TooManyTexts { texts: 3, allowed: 2 }
    );
    assert_eq!(embed(vec![vec![2], vec![]]), InferError::Empty);
    assert_eq!(embed(vec![vec![500]]).code(), "unknown_token");
    assert_eq!(embed(vec![vec![2; 151]]).code(), "too_long");
}

#[test]
fn a_prompt_of_the_model_is_put_before_every_text() {
    let tiny = Tiny::new();
    let prompts = json!({ "prompts": { "query": "the " }, "default_prompt_name": "query" });
    tiny::write_json(tiny.folder.path(), "config_sentence_transformers.json", &prompts);
    let model = load(tiny.folder.path()).unwrap();
    assert_eq!(model.tokenize("sun", Cut::Never).unwrap().ids, [2, 77, 78, 3]);
    let prompts = json!({ "prompts": {}, "default_prompt_name": "query" });
    tiny::write_json(tiny.folder.path(), "config_sentence_transformers.json", &prompts);
    assert_eq!(load(tiny.folder.path()).unwrap_err().code(), "broken_model");
}

#[test]
fn networks_that_are_not_computed_here_are_refused_by_their_name() {
    for (key, value, what) in [
        ("model_type", json!("modernbert"), "model type `modernbert`"),
        ("hidden_act", json!("silu"), "activation `silu`"),
        (
            "position_embedding_type",
            json!("relative_key"),
            "a position embedding that is not absolute",
        ),
        ("is_decoder", json!(true), "a decoder"),
        ("num_hidden_layers", json!(49), "layers: 49"),
        ("num_hidden_layers", json!(0), "layers: 0"),
        ("num_attention_heads", json!(3), "3 heads in 64"),
        ("hidden_size", json!(72), "72 wide, 192 inside"),
        ("vocab_size", json!(1_000_001), "vocabulary: 1000001"),
        ("layer_norm_eps", json!(1.0), "layer_norm_eps 1"),
    ] {
        match with_config(|config| config[key] = value) {
            Err(LoadError::Unsupported { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{key}: {other:?}"),
        }
    }
    for (bytes, code) in [
        ("{", "broken_model"),
        ("{}", "unsupported_model"),
        (r#"{"model_type":"bert"}"#, "broken_model"),
    ] {
        let tiny = Tiny::new();
        std::fs::write(tiny.folder.path().join("config.json"), bytes).unwrap();
        assert_eq!(load(tiny.folder.path()).unwrap_err().code(), code, "{bytes}");
    }
}

#[test]
fn modules_say_how_a_text_is_pooled_and_others_are_refused() {
    let shape = |modules: &[(&str, &str)], pooling: Value| {
        let tiny = Tiny::new();
        let module = |(path, kind): &(&str, &str)| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
        let modules: Vec<Value> = modules.iter().map(module).collect();
        tiny::write_json(tiny.folder.path(), "modules.json", &json!(modules));
        tiny::write_json(tiny.folder.path(), "1_Pooling/config.json", &pooling);
        load(tiny.folder.path()).map(|model| (model.shape().pooling, model.shape().normalise))
    };
    let two = [("", "Transformer"), ("1_Pooling", "Pooling")];
    let three = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Normalize", "Normalize"),
    ];
    use crate::Pooling::{First, Max, Mean};
    assert_eq!(
        shape(&two, json!({ "pooling_mode_cls_token": true })).unwrap(),
        (First, false)
    );
    assert_eq!(
        shape(&three, json!({ "pooling_mode_max_tokens": true })).unwrap(),
        (Max, true)
    );
    assert_eq!(shape(&three, json!({ "pooling_mode": "mean" })).unwrap(), (Mean, true));
    let refused = |modules: &[(&str, &str)], pooling| {
        assert_eq!(shape(modules, pooling).unwrap_err().code(), "unsupported_model");
    };
    refused(
        &two,
        json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }),
    );
    refused(&two, json!({ "pooling_mode_lasttoken": true }));
    refused(&two, json!({}));
    refused(
        &[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")],
        json!({ "pooling_mode_cls_token": true }),
    );
    refused(
        &[("", "Transformer"), ("../../other", "Pooling")],
        json!({ "pooling_mode_cls_token": true }),
    );
    let tiny = Tiny::new();
    std::fs::remove_file(tiny.folder.path().join("modules.json")).unwrap();
    let model = load(tiny.folder.path()).unwrap();
    assert_eq!((model.shape().pooling, model.shape().normalise), (Mean, false));
}

#[test]
fn tensors_that_are_missing_misshapen_or_not_finite_are_told_by_their_name() {
    const KEY: &str = "encoder.layer.1.attention.self.key.weight";
    match with_tensors(|raw| raw.retain(|tensor| tensor.0 != KEY)) {
        Err(LoadError::Tensor { name, .. }) => assert_eq!(name, KEY),
        other => panic!("{other:?}"),
    }
    let error = with_tensors(|raw| {
        let tensor = named(raw, KEY);
        (tensor.2, tensor.3) = (vec![HIDDEN, HIDDEN / 2], tensor.3[..HIDDEN * HIDDEN * 2].to_vec());
    });
    assert!(matches!(error, Err(LoadError::Tensor { name, .. }) if name == KEY));
    let error = with_tensors(|raw| named(raw, KEY).1 = Dtype::I32);
    assert!(matches!(error, Err(LoadError::Tensor { name, .. }) if name == KEY));
    for name in [KEY, "encoder.layer.0.output.dense.bias", "embeddings.LayerNorm.weight"] {
        let error = with_tensors(|raw| named(raw, name).3[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
        assert!(matches!(error, Err(LoadError::NotFinite { tensor }) if tensor == name));
    }
}

#[test]
fn words_that_are_not_finite_show_when_a_model_is_examined_or_used() {
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let at = |word: usize| word * HIDDEN * 4..word * HIDDEN * 4 + 4;
    let model = with_tensors(|raw| named(raw, WORDS).3[at(90)].copy_from_slice(&f32::INFINITY.to_le_bytes())).unwrap();
    let engine = tiny::plain();
    assert!(matches!(model.examine(&engine), Err(LoadError::NotFinite { tensor }) if tensor == WORDS));
    let text = model.tokens(&[90], Cut::Never).unwrap();
    assert_eq!(
        model.embed(&engine, &[text], &Control::default()),
        Err(InferError::NotFinite)
    );
    load(Tiny::new().folder.path()).unwrap().examine(&engine).unwrap();
}

#[test]
fn halves_give_the_vectors_of_the_same_numbers_in_whole() {
    let engine = tiny::plain();
    let texts = [Tokens {
        ids: vec![2, 20, 21, 3],
        cut: false,
    }];
    let embed = |form: Dtype, write: fn(f32) -> Vec<u8>, round: fn(f32) -> f32| {
        let change = |raw: &mut Vec<tiny::Raw>, form: Dtype, write: &dyn Fn(f32) -> Vec<u8>| {
            for tensor in raw {
                let numbers = tensor.3.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                (tensor.1, tensor.3) = (form, numbers.flat_map(write).collect());
            }
        };
        let half = with_tensors(|raw| change(raw, form, &write)).unwrap();
        let whole = with_tensors(|raw| change(raw, Dtype::F32, &|x| round(x).to_le_bytes().to_vec())).unwrap();
        let [half, whole] = [half, whole].map(|model| model.embed(&engine, &texts, &Control::default()).unwrap());
        assert_eq!(half.to_bytes(), whole.to_bytes());
    };
    embed(
        Dtype::F16,
        |x| half::f16::from_f32(x).to_le_bytes().to_vec(),
        |x| half::f16::from_f32(x).to_f32(),
    );
    embed(
        Dtype::BF16,
        |x| half::bf16::from_f32(x).to_le_bytes().to_vec(),
        |x| half::bf16::from_f32(x).to_f32(),
    );
}

#[test]
fn a_fingerprint_is_of_what_decides_the_answers_and_of_nothing_else() {
    let right = load(Tiny::new().folder.path()).unwrap().class().model;
    let same = with_tensors(|raw| {
        raw.push(("embeddings.position_ids".to_owned(), Dtype::I64, vec![1], vec![0; 8]));
        raw.iter_mut()
            .filter(|tensor| tensor.1 == Dtype::F32)
            .for_each(|tensor| tensor.0 = format!("bert.{}", tensor.0));
    });
    assert_eq!(
        same.unwrap().class().model,
        right,
        "a prefix and tensors that are not used"
    );
    assert_eq!(
        with_config(|config| config["architectures"] = json!([]))
            .unwrap()
            .class()
            .model,
        right
    );
    let other = |raw: &mut Vec<tiny::Raw>| named(raw, "embeddings.word_embeddings.weight").3[0] ^= 1;
    assert_ne!(with_tensors(other).unwrap().class().model, right, "one bit of a weight");
    assert_ne!(
        with_config(|config| config["layer_norm_eps"] = json!(1e-5))
            .unwrap()
            .class()
            .model,
        right
    );
    assert_ne!(
        with_config(|config| config["hidden_act"] = json!("gelu_new"))
            .unwrap()
            .class()
            .model,
        right
    );
    let tiny = Tiny::new();
    tiny::write_json(
        tiny.folder.path(),
        "sentence_bert_config.json",
        &json!({ "max_seq_length": 149 }),
    );
    assert_ne!(
        load(tiny.folder.path()).unwrap().class().model,
        right,
        "tokens that are read"
    );
    let mut tokenizer = tiny::tokenizer();
    tokenizer["normalizer"]["lowercase"] = json!(false);
    tiny::write_json(tiny.folder.path(), "tokenizer.json", &tokenizer);
    tiny::write_json(
        tiny.folder.path(),
        "sentence_bert_config.json",
        &json!({ "max_seq_length": 150 }),
    );
    assert_ne!(load(tiny.folder.path()).unwrap().class().model, right, "the tokenizer");
}

#[test]
fn a_tokenizer_that_does_not_fit_the_network_is_refused() {
    let refused = |change: fn(&mut Value)| {
        let tiny = Tiny::new();
        let mut tokenizer = tiny::tokenizer();
        change(&mut tokenizer);
        tiny::write_json(tiny.folder.path(), "tokenizer.json", &tokenizer);
        assert!(matches!(load(tiny.folder.path()), Err(LoadError::Tokenizer { .. })));
    };
    refused(|tokenizer| tokenizer["model"]["vocab"]["beyond"] = json!(VOCABULARY));
    refused(|tokenizer| tokenizer["model"] = json!("none"));
    let tiny = Tiny::new();
    std::fs::remove_file(tiny.folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(load(tiny.folder.path()), Err(LoadError::Tokenizer { .. })));
}

#[test]
fn a_model_that_needs_more_memory_than_is_allowed_is_not_begun() {
    let needs = load(Tiny::new().folder.path()).unwrap().bytes();
    let limits = Limits {
        memory: needs - 1,
        ..Limits::default()
    };
    let error = Model::load(&tiny::plain(), Tiny::new().folder.path(), Arithmetic::I16, limits).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { needs: found, allowed } if found == needs && allowed == needs - 1));
}

#[test]
fn a_header_that_lies_about_its_length_is_refused_before_anything_is_read() {
    for header in [u64::MAX, 1 << 63, 2 << 20, 1_000] {
        let tiny = Tiny::new();
        let mut file = header.to_le_bytes().to_vec();
        file.extend(b"{}");
        std::fs::write(tiny.folder.path().join("model.safetensors"), file).unwrap();
        assert!(
            matches!(load(tiny.folder.path()), Err(LoadError::Malformed { .. })),
            "{header}"
        );
    }
    let tiny = Tiny::new();
    std::fs::write(tiny.folder.path().join("model.safetensors"), b"").unwrap();
    assert_eq!(load(tiny.folder.path()).unwrap_err().code(), "broken_model");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn files_of_any_bytes_are_refused_and_break_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        which in 0..4_usize,
    ) {
        let tiny = Tiny::new();
        let name = ["config.json", "model.safetensors", "modules.json", "sentence_bert_config.json"][which];
        let path = tiny.folder.path().join(name);
        let mut file = std::fs::read(&path).unwrap();
        // Somewhere in the first kilobyte, where the structure is.
        let at = at.index(file.len().min(1_024));
        let to = file.len().min(at + bytes.len());
        file[at..to].copy_from_slice(&bytes[..to - at]);
        std::fs::write(&path, file).unwrap();
        if let Ok(model) = load(tiny.folder.path()) {
            prop_assert!(model.shape().tokens <= POSITIONS);
        }
    }
}
