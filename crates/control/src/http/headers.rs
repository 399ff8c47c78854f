//! The headers that matter. Each may be there once.

use axum::http::HeaderMap;
use dawn_control_api::signature::{self, COVERED_HEADERS, HeadersRef};
use dawn_control_api::{BearerToken, CONTENT_DIGEST, Code, limits};

use crate::refusal::Refusal;

/// What they say.
#[derive(Debug)]
pub(super) struct Headers<'a> {
    /// How long the body is to be.
    pub(super) length: Option<u64>,
    /// Whether it is to be JSON.
    pub(super) is_json: bool,
    /// For whom the request is.
    pub(super) host: Option<&'a str>,
    /// Its `Idempotency-Key`.
    pub(super) key: Option<&'a str>,
    /// Its `If-Match`.
    pub(super) if_match: Option<&'a str>,
    /// Its `If-None-Match`.
    pub(super) if_none_match: Option<&'a str>,
    /// Those that a signature covers.
    pub(super) covered: Vec<(&'a str, &'a str)>,
    authorization: Option<&'a str>,
    signature: Option<&'a str>,
    input: Option<&'a str>,
    digest: Option<&'a str>,
}

/// By what a request shows who asks.
#[derive(Debug)]
pub(super) enum Shown<'a> {
    /// By nothing.
    Nothing,
    /// By a token.
    Token(BearerToken),
    /// By a signature.
    Signature(HeadersRef<'a>),
}

/// A token is not accepted; it is not told why.
pub(super) fn bad_token() -> Refusal {
    Refusal::new(Code::BadToken).next("make one with `dawn control token create` on the control plane's machine")
}

fn one<'a>(map: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let mut values = map.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        let words = format!("there are several headers {name}");
        return Err(Refusal::because(Code::Malformed, words));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| Refusal::because(Code::Malformed, format!("the header {name} is no text")))
}

fn is_key(key: &str) -> bool {
    (1..=limits::MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<'a> Headers<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// One is there twice, or cannot be read.
    pub(super) fn read(map: &'a HeaderMap) -> Result<Self, Refusal> {
        let one = |name| one(map, name);
        let key = one("idempotency-key")?;
        if key.is_some_and(|key| !is_key(key)) {
            let most = limits::MAX_IDEMPOTENCY_KEY_BYTES;
            let words = format!("an Idempotency-Key has 1 to {most} visible characters");
            return Err(Refusal::because(Code::Malformed, words));
        }
        let mut covered = Vec::new();
        for name in COVERED_HEADERS {
            if let Some(value) = one(name)? {
                covered.push((name, value));
            }
        }
        let kind = one("content-type")?.unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        Ok(Self {
            length: one("content-length")?.and_then(|length| length.parse().ok()),
            is_json: kind.eq_ignore_ascii_case("application/json"),
            host: one("host")?,
            authorization: one("authorization")?,
            signature: one(signature::SIGNATURE)?,
            input: one(signature::SIGNATURE_INPUT)?,
            digest: one(CONTENT_DIGEST)?,
            key,
            if_match: one("if-match")?,
            if_none_match: one("if-none-match")?,
            covered,
        })
    }

    /// By what the request shows who asks.
    ///
    /// # Errors
    /// By too much, or by what is no token.
    pub(super) fn shown(&self) -> Result<Shown<'a>, Refusal> {
        match (self.authorization, self.signature, self.input) {
            (None, None, None) => Ok(Shown::Nothing),
            (Some(authorization), None, None) => {
                let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
                let token = token.trim().parse().ok();
                let token = token.filter(|_| scheme.eq_ignore_ascii_case("bearer"));
                token.map(Shown::Token).ok_or_else(bad_token)
            }
            (None, Some(signature), Some(signature_input)) => Ok(Shown::Signature(HeadersRef {
                content_digest: self.digest,
                signature_input,
                signature,
            })),
            (Some(_), _, _) => {
                let words = "a request carries a token or a signature, not both";
                Err(Refusal::because(Code::Malformed, words))
            }
            (None, _, _) => {
                let words = "Signature and Signature-Input belong together";
                Err(Refusal::because(Code::BadSignatureForm, words))
            }
        }
    }
}
