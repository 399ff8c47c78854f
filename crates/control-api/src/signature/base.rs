//! The signature base (RFC 9421, section 2.5): what exactly is signed, and how a request says it.

use std::fmt::Write as _;

use dawn_identity::{NodeId, UnixTime};
use sfv::{BareItem, Dictionary, InnerList, Item, Key, ListEntry, ListSerializer, Parameters, Parser};

use super::{COVERED_HEADERS, MAX_VALUE_BYTES, Parts, SignatureError, TAG};
use crate::challenge::Nonce;
use crate::digest::CONTENT_DIGEST;

/// The algorithm, as the parameter `alg` names it.
const ALGORITHM: &str = "ed25519";

/// A component of a request: its identifier and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Component<'a> {
    pub(super) name: &'static str,
    pub(super) value: std::borrow::Cow<'a, str>,
}

fn component<'a>(
    name: &'static str,
    value: impl Into<std::borrow::Cow<'a, str>>,
) -> Result<Component<'a>, SignatureError> {
    let value = value.into();
    if value.len() > MAX_VALUE_BYTES {
        return Err(SignatureError::Unsignable("a part is too long"));
    }
    // Another line would be another component.
    if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(SignatureError::Unsignable(
            "a part has other characters than those of a request",
        ));
    }
    Ok(Component { name, value })
}

/// Everything of a request that its signature covers, in the order in which it is signed here.
pub(super) fn components<'a>(
    parts: &Parts<'a>,
    content_digest: Option<&'a str>,
) -> Result<Vec<Component<'a>>, SignatureError> {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_token(parts.method) {
        return Err(SignatureError::Unsignable("the method"));
    }
    let is_lower = |text: &str| !text.is_empty() && !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b' ');
    if !is_lower(parts.authority) {
        return Err(SignatureError::Unsignable("the authority"));
    }
    let has_no = |text: &str, bytes: &[u8]| !text.bytes().any(|byte| bytes.contains(&byte));
    if !parts.path.starts_with('/') || !has_no(parts.path, b" ?#") {
        return Err(SignatureError::Unsignable("the path"));
    }
    if !parts.query.is_none_or(|query| has_no(query, b" #")) {
        return Err(SignatureError::Unsignable("the query"));
    }
    let mut all = vec![
        component("@method", parts.method)?,
        component("@authority", parts.authority)?,
        component("@path", parts.path)?,
        component("@query", format!("?{}", parts.query.unwrap_or_default()))?,
    ];
    if let Some(header) = content_digest {
        all.push(component(CONTENT_DIGEST, header.trim())?);
    }
    for name in COVERED_HEADERS {
        let mut values = parts.headers.iter().filter(|(known, _)| *known == name);
        if let Some((_, value)) = values.next() {
            all.push(component(name, value.trim())?);
        }
        if values.next().is_some() {
            return Err(SignatureError::Unsignable("a header that is there twice"));
        }
    }
    if parts.headers.iter().any(|(name, _)| !COVERED_HEADERS.contains(name)) {
        return Err(SignatureError::Unsignable(
            "a header that is not among those that are covered",
        ));
    }
    Ok(all)
}

fn key(name: &'static str) -> Result<Key, SignatureError> {
    Key::from_string(name.to_owned()).map_err(|_| SignatureError::Unsignable("a parameter"))
}

fn string(text: &str) -> Result<BareItem, SignatureError> {
    let text = sfv::String::from_string(text.to_owned());
    Ok(BareItem::String(
        text.map_err(|_| SignatureError::Unsignable("a parameter"))?,
    ))
}

fn seconds(time: UnixTime) -> Result<BareItem, SignatureError> {
    let seconds = i64::try_from(time.0).ok();
    let integer = seconds.and_then(|seconds| sfv::Integer::try_from(seconds).ok());
    integer
        .map(BareItem::Integer)
        .ok_or(SignatureError::Unsignable("a time beyond what a signature can say"))
}

/// An inner list as it is serialized: the value of `@signature-params`.
fn serialized(list: &InnerList) -> Result<String, SignatureError> {
    let mut serializer = ListSerializer::new();
    serializer.members(&[ListEntry::InnerList(list.clone())]);
    serializer.finish().ok_or(SignatureError::Malformed("an empty list"))
}

/// What `Signature-Input` says behind its label.
pub(super) fn input(
    covered: &[Component<'_>],
    created: UnixTime,
    expires: UnixTime,
    nonce: Nonce,
    node: NodeId,
) -> Result<String, SignatureError> {
    let mut items = Vec::with_capacity(covered.len());
    for component in covered {
        items.push(Item::new(string(component.name)?));
    }
    let mut params = Parameters::new();
    params.insert(key("created")?, seconds(created)?);
    params.insert(key("expires")?, seconds(expires)?);
    params.insert(key("nonce")?, string(&nonce.to_string())?);
    params.insert(key("keyid")?, string(&node.to_string())?);
    params.insert(key("alg")?, string(ALGORITHM)?);
    params.insert(key("tag")?, string(TAG)?);
    serialized(&InnerList::with_params(items, params))
}

/// The signature base of components and the value of `@signature-params`.
pub(super) fn base(covered: &[Component<'_>], input: &str) -> String {
    let mut base = String::with_capacity(512);
    for Component { name, value } in covered {
        // Writing to a string does not fail.
        let _ = writeln!(base, "\"{name}\": {value}");
    }
    let _ = write!(base, "\"@signature-params\": {input}");
    base
}

/// What a `Signature-Input` says.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) label: String,
    pub(super) covered: Vec<String>,
    /// The value of `@signature-params`.
    pub(super) input: String,
    pub(super) created: UnixTime,
    pub(super) expires: UnixTime,
    pub(super) nonce: Nonce,
    pub(super) node: NodeId,
}

/// The only member of a dictionary.
fn only(header: &str) -> Result<(Key, ListEntry), SignatureError> {
    let members: Dictionary = Parser::new(header)
        .parse()
        .map_err(|_| SignatureError::Malformed("not a dictionary of structured fields"))?;
    let mut members = members.into_iter();
    match (members.next(), members.next()) {
        (Some(member), None) => Ok(member),
        _ => Err(SignatureError::Malformed("not exactly one signature")),
    }
}

/// Reads a `Signature-Input`.
pub(super) fn read(header: &str) -> Result<Read, SignatureError> {
    let (label, ListEntry::InnerList(list)) = only(header)? else {
        return Err(SignatureError::Malformed("no list of what is covered"));
    };
    let input = serialized(&list)?;
    let mut covered = Vec::with_capacity(list.items.len());
    for item in list.items {
        let BareItem::String(name) = item.bare_item else {
            return Err(SignatureError::Malformed("a component that is no text"));
        };
        let name = String::from(name);
        if !item.params.is_empty() || covered.contains(&name) {
            return Err(SignatureError::Malformed("a component with parameters, or twice"));
        }
        covered.push(name);
    }
    let mut params = list.params;
    let mut take = |name: &str| params.shift_remove(name);
    let time = |item: Option<BareItem>, missing| match item {
        Some(BareItem::Integer(seconds)) => u64::try_from(i64::from(seconds))
            .map(UnixTime)
            .map_err(|_| SignatureError::Malformed(missing)),
        _ => Err(SignatureError::Malformed(missing)),
    };
    let text = |item: Option<BareItem>, missing| match item {
        Some(BareItem::String(text)) => Ok(String::from(text)),
        _ => Err(SignatureError::Malformed(missing)),
    };
    let created = time(take("created"), "no valid `created`")?;
    let expires = time(take("expires"), "no valid `expires`")?;
    let nonce = text(take("nonce"), "no valid `nonce`")?;
    let node = text(take("keyid"), "no valid `keyid`")?;
    let algorithm = text(take("alg"), "no valid `alg`")?;
    let tag = text(take("tag"), "no valid `tag`")?;
    if !params.is_empty() {
        return Err(SignatureError::Malformed("a parameter that is not known"));
    }
    if algorithm != ALGORITHM || tag != TAG {
        return Err(SignatureError::Malformed(
            "another algorithm than ed25519, or another tag than dawn-control",
        ));
    }
    Ok(Read {
        label: label.as_str().to_owned(),
        covered,
        input,
        created,
        expires,
        nonce: nonce
            .parse()
            .map_err(|_| SignatureError::Malformed("no valid `nonce`"))?,
        node: node
            .parse()
            .map_err(|_| SignatureError::Malformed("`keyid` is no node id"))?,
    })
}

/// The signature of this label. There is one way to write it, so that damage to any bit of the header is seen: structured
/// fields leave it to the reader whether the bits at the end of a base64 text count.
pub(super) fn signature(header: &str, label: &str) -> Result<[u8; 64], SignatureError> {
    let bytes = match only(header)? {
        (found, ListEntry::Item(item)) if found.as_str() == label && item.params.is_empty() => match item.bare_item {
            BareItem::ByteSequence(bytes) => bytes,
            _ => return Err(SignatureError::Malformed("a signature that is no byte sequence")),
        },
        _ => return Err(SignatureError::Malformed("no signature of that label")),
    };
    if header.trim() != written(label, &bytes) {
        return Err(SignatureError::Malformed("a signature that is written in another way"));
    }
    bytes
        .try_into()
        .map_err(|_| SignatureError::Malformed("a signature of a wrong length"))
}

/// A `Signature` of this label.
pub(super) fn written(label: &str, signature: &[u8]) -> String {
    format!("{label}=:{}:", data_encoding::BASE64.encode(signature))
}

/// The covered components with their values, in the order in which they are named; all that there are have to be.
pub(super) fn choose<'a>(
    covered: &[String],
    available: &[Component<'a>],
) -> Result<Vec<Component<'a>>, SignatureError> {
    let missing = available.iter().find(|it| !covered.iter().any(|name| name == it.name));
    if let Some(missing) = missing {
        return Err(SignatureError::NotCovered(missing.name));
    }
    let find = |name: &String| available.iter().find(|it| it.name == name).cloned();
    let chosen: Option<Vec<Component<'a>>> = covered.iter().map(find).collect();
    chosen.ok_or(SignatureError::Malformed(
        "a component that the request has not, or that is not known here",
    ))
}
