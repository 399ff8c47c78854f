//! Bounds on what comes from outside. What a person may want to set is in [`Limits`], with its default.

/// Bytes of the header of `model.safetensors`.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes of `config.json` and of each other small file of a model.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Bytes of `tokenizer.json`.
pub const MAX_TOKENIZER_BYTES: u64 = 32 << 20;
/// Bytes of any file of a model.
pub const MAX_FILE_BYTES: u64 = 16 << 30;
/// Layers of a network.
pub const MAX_LAYERS: usize = 48;
/// Width of a token's vector.
pub const MAX_HIDDEN: usize = 4_096;
/// Width between the two linear layers behind attention.
pub const MAX_INNER: usize = 16_384;
/// Tokens that a tokenizer knows.
pub const MAX_VOCABULARY: usize = 1_000_000;
/// Tokens of a text that a network can place.
pub const MAX_POSITIONS: usize = 8_192;
/// Kinds of segments of a text.
pub const MAX_TYPES: usize = 16;

/// What an owner allows models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a text, before it becomes tokens.
    pub text_bytes: usize,
    /// Texts of one call.
    pub texts: usize,
    /// Bytes of memory of one model.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 256 << 10,
            texts: 2_048,
            memory: 4 << 30,
        }
    }
}
