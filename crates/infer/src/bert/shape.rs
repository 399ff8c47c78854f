//! What `config.json` and the files beside it say of a model: parsed once, and refused where it is not computed here.

use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::limits::{MAX_HIDDEN, MAX_INNER, MAX_LAYERS, MAX_POSITIONS, MAX_TYPES, MAX_VOCABULARY};
use crate::product::PANEL;

/// The function between the two linear layers behind attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU by the error function.
    Gelu,
    /// GELU by the hyperbolic tangent.
    GeluTanh,
}

/// How vectors of tokens become the vector of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    First,
    /// The greatest of each dimension.
    Max,
}

/// All that decides a model's answers but its weights and its tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Width of a token's vector, and dimensions of the answer: a multiple of 64.
    pub hidden: usize,
    /// Heads of attention, each 16, 32, 64 or 128 wide.
    pub heads: usize,
    /// Width between the two linear layers behind attention: a multiple of 64.
    pub inner: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Tokens of a text that have a place.
    pub positions: usize,
    /// Kinds of segments.
    pub types: usize,
    /// Added to variances.
    pub epsilon: f32,
    /// Between the linear layers.
    pub activation: Activation,
    /// From tokens to a text.
    pub pooling: Pooling,
    /// Whether an answer has length 1.
    pub normalise: bool,
    /// Tokens of a text that are read, with the special ones.
    pub tokens: usize,
    /// Put before every text.
    pub prompt: String,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

#[derive(Deserialize)]
struct Modes {
    #[serde(default)]
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "yes")]
    include_prompt: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
struct Sentence {
    #[serde(default)]
    max_seq_length: Option<usize>,
}

#[derive(Deserialize, Default)]
struct Tokenizer {
    /// Some write 10³⁰ for "no bound".
    #[serde(default)]
    model_max_length: Option<f64>,
}

#[derive(Deserialize, Default)]
struct Prompts {
    #[serde(default)]
    prompts: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    default_prompt_name: Option<String>,
}

/// Reads a file of a model by its path in it; `None` where there is none.
pub type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, LoadError>;

fn unsupported(what: impl Into<String>, supported: &'static str) -> LoadError {
    LoadError::Unsupported {
        what: what.into(),
        supported,
    }
}

fn parse<T: for<'a> Deserialize<'a>>(file: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|error| LoadError::Malformed {
        file: file.to_owned(),
        problem: error.to_string(),
    })
}

fn parse_or_default<T: for<'a> Deserialize<'a> + Default>(read: Read<'_>, file: &str) -> Result<T, LoadError> {
    read(file)?.map_or_else(|| Ok(T::default()), |bytes| parse(file, &bytes))
}

impl Shape {
    /// Reads `config.json`, and beside it what sentence-transformers writes.
    ///
    /// # Errors
    /// A file is missing or malformed, or says that the model is of a kind that is not computed here.
    pub fn read(read: Read<'_>) -> Result<Self, LoadError> {
        let missing = || LoadError::Malformed {
            file: "config.json".to_owned(),
            problem: "there is none".to_owned(),
        };
        let config: Config = kind(&read("config.json")?.ok_or_else(missing)?)?;
        let activation = match config.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => {
                return Err(unsupported(
                    format!("activation `{other}`"),
                    "gelu, gelu_new, gelu_pytorch_tanh",
                ));
            }
        };
        if config
            .position_embedding_type
            .as_deref()
            .is_some_and(|kind| kind != "absolute")
        {
            return Err(unsupported(
                "a position embedding that is not absolute",
                "absolute positions",
            ));
        }
        if config.is_decoder || config.add_cross_attention {
            return Err(unsupported("a decoder", "encoders"));
        }
        let sentence: Sentence = parse_or_default(read, "sentence_bert_config.json")?;
        let tokenizer: Tokenizer = parse_or_default(read, "tokenizer_config.json")?;
        let prompts: Prompts = parse_or_default(read, "config_sentence_transformers.json")?;
        let prompt = prompts.default_prompt_name.map_or_else(
            || Ok(String::new()),
            |name| {
                prompts.prompts.get(&name).cloned().ok_or_else(|| LoadError::Malformed {
                    file: "config_sentence_transformers.json".to_owned(),
                    problem: format!("its default prompt `{name}` is not among its prompts"),
                })
            },
        )?;
        let (pooling, normalise) = modules(read, !prompt.is_empty())?;
        let tokens = sentence
            .max_seq_length
            // Saturates, and what is no number is 0.
            .or_else(|| tokenizer.model_max_length.map(|most| most as usize))
            .unwrap_or(config.max_position_embeddings)
            .min(config.max_position_embeddings);
        let shape = Self {
            layers: config.num_hidden_layers,
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            vocabulary: config.vocab_size,
            positions: config.max_position_embeddings,
            types: config.type_vocab_size,
            epsilon: config.layer_norm_eps,
            activation,
            pooling,
            normalise,
            tokens,
            prompt,
        };
        shape.check()?;
        Ok(shape)
    }

    /// Whether all of it is within what is computed here.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let within = |what: &str, number: usize, most: usize| {
            let supported = "1 to 48 layers, 4,096 wide, 16,384 inside, 1,000,000 tokens, 8,192 positions, 16 types";
            if (1..=most).contains(&number) {
                Ok(())
            } else {
                Err(unsupported(format!("{what}: {number}"), supported))
            }
        };
        within("layers", self.layers, MAX_LAYERS)?;
        within("width", self.hidden, MAX_HIDDEN)?;
        within("inner width", self.inner, MAX_INNER)?;
        within("vocabulary", self.vocabulary, MAX_VOCABULARY)?;
        within("positions", self.positions, MAX_POSITIONS)?;
        within("types", self.types, MAX_TYPES)?;
        within("tokens of a text", self.tokens, self.positions)?;
        if !self.hidden.is_multiple_of(PANEL) || !self.inner.is_multiple_of(PANEL) {
            return Err(unsupported(
                format!("{} wide, {} inside", self.hidden, self.inner),
                "multiples of 64",
            ));
        }
        if ![16, 32, 64, 128]
            .iter()
            .any(|width| self.heads.checked_mul(*width) == Some(self.hidden))
        {
            return Err(unsupported(
                format!("{} heads in {}", self.heads, self.hidden),
                "heads 16, 32, 64 or 128 wide",
            ));
        }
        if !(self.epsilon >= 0.0 && self.epsilon < 1.0) {
            return Err(unsupported(format!("layer_norm_eps {}", self.epsilon), "0 to 1"));
        }
        Ok(())
    }
}

/// Refuses other kinds by their name before their fields are missed.
fn kind(bytes: &[u8]) -> Result<Config, LoadError> {
    #[derive(Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    let kind: Kind = parse("config.json", bytes)?;
    match kind.model_type.as_deref() {
        Some("bert") => {
            let config: Config = parse("config.json", bytes)?;
            debug_assert_eq!(config.model_type, "bert");
            Ok(config)
        }
        Some(other) => Err(unsupported(format!("model type `{other}`"), "bert")),
        None => Err(unsupported("a configuration without `model_type`", "bert")),
    }
}

/// Pooling and normalising of `modules.json`; without it mean, and no normalising, as sentence-transformers does.
fn modules(read: Read<'_>, prompted: bool) -> Result<(Pooling, bool), LoadError> {
    const FILE: &str = "modules.json";
    const SUPPORTED: &str = "Transformer, then Pooling, then maybe Normalize";
    let Some(bytes) = read(FILE)? else {
        return Ok((Pooling::Mean, false));
    };
    let modules: Vec<Module> = parse(FILE, &bytes)?;
    let name = |module: &Module| module.r#type.rsplit('.').next().unwrap_or_default().to_owned();
    let names: Vec<String> = modules.iter().map(name).collect();
    let normalise = match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => return Err(unsupported(format!("modules {}", names.join(", ")), SUPPORTED)),
    };
    let folder = &modules[1].path;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if folder.is_empty() || folder.len() > 64 || !folder.chars().all(plain) || !modules[0].path.is_empty() {
        return Err(unsupported(
            "modules in other folders",
            "the network in the model's folder, pooling in one below",
        ));
    }
    let file = format!("{folder}/config.json");
    let missing = || LoadError::Malformed {
        file: file.clone(),
        problem: "there is none".to_owned(),
    };
    let modes: Modes = parse(&file, &read(&file)?.ok_or_else(missing)?)?;
    if prompted && !modes.include_prompt {
        return Err(unsupported("pooling without the prompt", "prompts that count as text"));
    }
    Ok((modes.pooling()?, normalise))
}

impl Modes {
    fn pooling(&self) -> Result<Pooling, LoadError> {
        let named = match self.pooling_mode.as_deref() {
            Some("mean") => return Ok(Pooling::Mean),
            Some("cls") => return Ok(Pooling::First),
            Some("max") => return Ok(Pooling::Max),
            Some(other) => Some(other),
            None => None,
        };
        let others = self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens
            || self.pooling_mode_lasttoken;
        match (
            self.pooling_mode_mean_tokens,
            self.pooling_mode_cls_token,
            self.pooling_mode_max_tokens,
            others,
            named,
        ) {
            (true, false, false, false, None) => Ok(Pooling::Mean),
            (false, true, false, false, None) => Ok(Pooling::First),
            (false, false, true, false, None) => Ok(Pooling::Max),
            _ => Err(unsupported("this pooling", "one of mean, cls and max")),
        }
    }
}
