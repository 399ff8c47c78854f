//! What all signed statements have in common: a CWT claims set (RFC 8392) in a tagged COSE_Sign1 (RFC 9052), signed with
//! EdDSA. Certificates and revocations are made of it, and what other crates of this floor sign.
//!
//! The protected header holds the algorithm and the type of the statement (RFC 9596), so that one kind is never taken
//! for the other. Only the one encoding that Dawn itself makes is read, and only claims of bounded number.

use std::fmt;

use ciborium::Value;
use coset::cwt::{ClaimsSet, Timestamp};
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, Header, HeaderBuilder, TaggedCborSerializable, iana};

use crate::key::{SIGNATURE_BYTES, verify};
use crate::shape::has_at_most;
use crate::{Keypair, NetworkId, NodeId, UnixTime};

pub mod claims;

/// The COSE header parameter `typ` (RFC 9596).
const TYPE_LABEL: i64 = 16;
/// A tag, a list, and the four parts of a COSE_Sign1.
const STATEMENT_ITEMS: u64 = 6;
/// Most items of CBOR that the claims of a statement are made of.
const MAX_CLAIM_ITEMS: u64 = 256;

/// What a statement says, as a media type; it is part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(&'static str);

impl Kind {
    pub(crate) const CERTIFICATE: Self = Self("application/dawn-membership+cwt");
    pub(crate) const REVOCATION: Self = Self("application/dawn-revocation+cwt");
    pub(crate) const RELAY_TOKEN: Self = Self("application/dawn-relay-token+cwt");

    /// The kind of this media type, `application/dawn-…+cwt`. No two kinds share one.
    pub const fn new(media_type: &'static str) -> Self {
        Self(media_type)
    }

    /// Whether these bytes begin as every statement of this kind does.
    pub fn begins(self, bytes: &[u8]) -> bool {
        self.front().is_some_and(|front| bytes.starts_with(&front))
    }

    fn header(self) -> Header {
        HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .value(TYPE_LABEL, Value::Text(self.0.to_owned()))
            .build()
    }

    /// The first bytes of every statement of this kind: the tag of a COSE_Sign1, a list of four, the protected header,
    /// and an unprotected one that is empty.
    fn front(self) -> Option<Vec<u8>> {
        let header = self.header().to_vec().ok()?;
        let mut front = vec![0xd2, 0x84];
        ciborium::into_writer(&Value::Bytes(header), &mut front).ok()?;
        front.push(0xa0);
        Some(front)
    }
}

/// Whose key signed a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Issuer {
    /// The network key.
    Network(NetworkId),
    /// The key of a node, an admin.
    Node(NodeId),
}

impl Issuer {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(network) => Some(Self::Network(network)),
            Err(_) => text.parse().ok().map(Self::Node),
        }
    }
}

/// The id of the network or of the node.
impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Node(node) => node.fmt(f),
        }
    }
}

/// Why bytes are no statement, or claims cannot be made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the statement is malformed: {0}")]
pub struct Malformed(pub &'static str);

/// The bytes of a statement with what is needed to check its signature. Its key decides whether it is to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    bytes: Vec<u8>,
    to_be_signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

impl Signed {
    /// Signs `claims` with `key`.
    ///
    /// # Errors
    /// [`Malformed`] if the claims cannot be encoded.
    pub fn sign(kind: Kind, claims: ClaimsSet, key: &Keypair) -> Result<Self, Malformed> {
        let payload = claims.to_vec().map_err(|_| Malformed("the claims cannot be encoded"))?;
        let unsigned = CoseSign1Builder::new()
            .protected(kind.header())
            .payload(payload)
            .build();
        let to_be_signed = unsigned.tbs_data(&[]);
        let signature = key.sign(&to_be_signed);
        let signed = CoseSign1 {
            signature: signature.to_vec(),
            ..unsigned
        };
        let bytes = signed
            .to_tagged_vec()
            .map_err(|_| Malformed("the statement cannot be encoded"))?;
        Ok(Self {
            bytes,
            to_be_signed,
            signature,
        })
    }

    /// Reads a statement of this kind. The signature is not checked yet. The caller bounds the length of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if it is another kind of statement, none, or not in the one encoding that is read.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<(Self, ClaimsSet), Malformed> {
        if !has_at_most(STATEMENT_ITEMS, bytes) {
            return Err(Malformed("not a COSE_Sign1"));
        }
        if !kind.begins(bytes) {
            return Err(Malformed("another kind of statement, or another header"));
        }
        let message = CoseSign1::from_tagged_slice(bytes).map_err(|_| Malformed("not a COSE_Sign1"))?;
        let signature = message
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| Malformed("a signature of a wrong length"))?;
        let claims = message
            .payload
            .as_deref()
            .filter(|payload| has_at_most(MAX_CLAIM_ITEMS, payload))
            .and_then(|payload| ClaimsSet::from_slice(payload).ok())
            .ok_or(Malformed("not a CWT claims set"))?;
        let to_be_signed = message.tbs_data(&[]);
        // The same content has other encodings (longer integers, indefinite lengths); they are refused, or somebody
        // could alter the bytes without breaking the signature.
        if message.to_tagged_vec().ok().as_deref() != Some(bytes) {
            return Err(Malformed("not in its shortest encoding"));
        }
        let signed = Self {
            bytes: bytes.to_vec(),
            to_be_signed,
            signature,
        };
        Ok((signed, claims))
    }

    /// Whether the holder of `public` made this statement.
    pub fn is_signed_by(&self, public: &[u8; 32]) -> bool {
        verify(public, &self.to_be_signed, &self.signature).is_ok()
    }

    /// Checks that it says what it says as `claims`, made of what was read of it, would say it: nothing more, in the same
    /// order, each number in its shortest form.
    ///
    /// # Errors
    /// [`Malformed`] if it says it in other bytes, or says more.
    pub fn check_canonical(&self, claims: ClaimsSet) -> Result<(), Malformed> {
        const OTHER: Malformed = Malformed("not in the one encoding of what it says");
        let written = CoseSign1::from_tagged_slice(&self.bytes).map_err(|_| OTHER)?;
        let meant = claims.to_vec().map_err(|_| OTHER)?;
        if written.payload.as_deref() == Some(&meant[..]) {
            Ok(())
        } else {
            Err(OTHER)
        }
    }

    /// The statement, CBOR.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What its signature covers, and nothing else: the statement without the signature, which stands at its end. Who
    /// signs can make many signatures of one text, so that an id is made of this.
    pub fn covered(&self) -> &[u8] {
        let length = self.bytes.len().saturating_sub(SIGNATURE_BYTES);
        self.bytes.get(..length).unwrap_or(&self.bytes)
    }
}

/// Shows how long the statement is; what it says is for its reader to show.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.bytes.len())
    }
}

/// A time as a CWT numeric date.
///
/// # Errors
/// [`Malformed`] if it is beyond what a date can say.
pub fn date(time: UnixTime) -> Result<Timestamp, Malformed> {
    i64::try_from(time.0)
        .map(Timestamp::WholeSeconds)
        .map_err(|_| Malformed("a time beyond what a certificate can say"))
}

/// The time of a CWT numeric date.
///
/// # Errors
/// [`Malformed`] with the words of `missing` if there is none, or none in whole seconds since 1970.
pub fn time(date: Option<&Timestamp>, missing: &'static str) -> Result<UnixTime, Malformed> {
    match date {
        Some(Timestamp::WholeSeconds(seconds)) => u64::try_from(*seconds).map(UnixTime).map_err(|_| Malformed(missing)),
        _ => Err(Malformed(missing)),
    }
}

/// The value that the text of a claim stands for.
///
/// # Errors
/// [`Malformed`] with the words of `missing` if there is no text, or it stands for no such value.
pub fn parsed<T: std::str::FromStr>(text: Option<String>, missing: &'static str) -> Result<T, Malformed> {
    text.and_then(|text| text.parse().ok()).ok_or(Malformed(missing))
}

/// CBOR of `[statement]` or `[statement, issuer's certificate]`.
pub(crate) fn encode_pair(statement: &[u8], issuer: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(statement.len() + issuer.map_or(0, <[u8]>::len) + 8);
    bytes.push(if issuer.is_some() { 0x82 } else { 0x81 });
    for item in [Some(statement), issuer].into_iter().flatten() {
        // RFC 8949, section 3: a byte string, major type 2, its length in the fewest bytes. A statement is
        // some hundred bytes long, as its parts have bounds; what is read has less than 4 KiB.
        match item.len() {
            length @ 0..=23 => bytes.push(0x40 | length as u8),
            length @ 24..=0xff => bytes.extend([0x58, length as u8]),
            length => {
                bytes.push(0x59);
                bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        bytes.extend(item);
    }
    bytes
}

/// The parts of what [`encode_pair`] made.
pub(crate) fn decode_pair(bytes: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Malformed> {
    let mut rest = bytes;
    let value: Value = ciborium::from_reader(&mut rest).map_err(|_| Malformed("not CBOR"))?;
    let mut items = value
        .into_array()
        .map_err(|_| Malformed("not a list"))?
        .into_iter()
        .map(Value::into_bytes);
    let pair = match (items.next(), items.next(), items.next()) {
        (Some(Ok(statement)), None, None) => (statement, None),
        (Some(Ok(statement)), Some(Ok(issuer)), None) => (statement, Some(issuer)),
        _ => return Err(Malformed("not one or two byte strings")),
    };
    if encode_pair(&pair.0, pair.1.as_deref()) != bytes {
        return Err(Malformed("not in its shortest encoding"));
    }
    Ok(pair)
}

/// Serde as unpadded base64url where a person reads, as a byte string elsewhere. The type has `encode(&self) ->
/// Vec<u8>` and `decode(&[u8]) -> Result<Self, _>`.
macro_rules! serde_encoded {
    ($type:ident, $expecting:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&data_encoding::BASE64URL_NOPAD.encode(&self.encode()))
                } else {
                    serializer.serialize_bytes(&self.encode())
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        let bytes = data_encoding::BASE64URL_NOPAD
                            .decode(text.as_bytes())
                            .map_err(E::custom)?;
                        self.visit_bytes(&bytes)
                    }

                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$type, E> {
                        $type::decode(bytes).map_err(E::custom)
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_byte_buf(Visitor)
                }
            }
        }
    };
}
pub(crate) use serde_encoded;

#[cfg(test)]
mod tests {
    use coset::cwt::ClaimsSetBuilder;

    use super::*;

    const KIND: Kind = Kind::new("application/dawn-test+cwt");

    fn with_list_of(length: u64) -> Signed {
        let list = (0..length).map(Value::from).collect();
        let claims = ClaimsSetBuilder::new()
            .private_claim(-70_000, Value::Array(list))
            .build();
        Signed::sign(KIND, claims, &Keypair::from_seed([1; 32])).unwrap()
    }

    #[test]
    fn claims_have_a_bounded_number_of_items() {
        // The map, the label and the list itself.
        let most = MAX_CLAIM_ITEMS - 3;
        assert!(Signed::parse(KIND, with_list_of(most).bytes()).is_ok());
        for more in [most + 1, 100_000] {
            let refused = Signed::parse(KIND, with_list_of(more).bytes()).unwrap_err();
            assert_eq!(refused, Malformed("not a CWT claims set"));
        }
    }

    #[test]
    fn a_statement_has_one_encoding() {
        let bytes = with_list_of(1).bytes().to_vec();
        // The same signature, its length written in two bytes instead of one.
        let (front, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
        let longer = [&front[..front.len() - 2], &[0x59, 0, 0x40], signature].concat();
        assert!(CoseSign1::from_tagged_slice(&longer).is_ok());
        let refused = Malformed("not in its shortest encoding");
        assert_eq!(Signed::parse(KIND, &longer), Err(refused));
        assert_eq!(
            Signed::parse(KIND, &[&bytes[..], &[0]].concat()),
            Err(Malformed("not a COSE_Sign1"))
        );
    }

    #[test]
    fn what_is_said_in_other_bytes_or_beside_more_is_not_canonical() {
        let claims = |more: &[(i64, Value)]| {
            let said = ClaimsSetBuilder::new().private_claim(-70_000, 1.into());
            let add = |said: ClaimsSetBuilder, (label, value)| said.private_claim(label, value);
            more.iter().cloned().fold(said, add).build()
        };
        let check = |written: ClaimsSet| {
            let signed = Signed::sign(KIND, written, &Keypair::from_seed([1; 32])).unwrap();
            let (read, _) = Signed::parse(KIND, signed.bytes()).unwrap();
            read.check_canonical(claims(&[]))
        };
        let refused = Err(Malformed("not in the one encoding of what it says"));
        assert_eq!(check(claims(&[])), Ok(()));
        assert_eq!(check(claims(&[(-70_001, Value::Null)])), refused);
        // At the end of what is covered the very bytes that were meant, in a claim that nobody asked for.
        let meant = claims(&[]).to_vec().unwrap();
        assert_eq!(check(claims(&[(-70_001, Value::Bytes(meant))])), refused);
    }

    #[test]
    fn what_is_signed_of_the_shortest_statement_is_longer_than_what_no_key_may_sign() {
        let shortest = Kind::new("application/dawn-a+cwt");
        for kind in [shortest, Kind::CERTIFICATE, Kind::REVOCATION, Kind::RELAY_TOKEN] {
            let signed = Signed::sign(kind, ClaimsSet::default(), &Keypair::from_seed([1; 32])).unwrap();
            assert!(signed.to_be_signed.len() > 32, "{kind:?}");
        }
    }

    #[test]
    fn an_id_is_of_all_but_the_signature() {
        let signed = with_list_of(1);
        let (covered, signature) = signed.bytes().split_at(signed.bytes().len() - SIGNATURE_BYTES);
        assert_eq!(signed.covered(), covered);
        assert_eq!(signature, signed.signature);
    }

    #[test]
    fn a_header_has_nothing_but_algorithm_and_kind() {
        let bytes = with_list_of(1).bytes().to_vec();
        assert!(bytes.starts_with(&KIND.front().unwrap()));
        let other = Kind::new("application/dawn-tests+cwt");
        let refused = Malformed("another kind of statement, or another header");
        assert_eq!(Signed::parse(other, &bytes), Err(refused));
        // An unprotected header: a content type, which no signature covers.
        let mut message = CoseSign1::from_tagged_slice(&bytes).unwrap();
        message.unprotected = HeaderBuilder::new().content_type("text/plain".to_owned()).build();
        let bytes = message.to_tagged_vec().unwrap();
        assert!(Signed::parse(KIND, &bytes).is_err());
    }
}
