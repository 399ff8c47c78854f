//! Proofs that who shows a token has the key that the token is bound to.
//! Source: RFC 9449 (DPoP), section 4.3.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::refusal::Refusal;
use super::token::{Header, seconds, signed};

/// How old a proof may be, seconds.
const WINDOW: u64 = 60;
/// Proofs that are remembered, so that none is used twice: of all keys, and of one.
const SEEN: usize = 200_000;
const OF_KEY: usize = 20_000;
/// Longest proof, bytes.
const LONGEST: usize = 8 << 10;

#[derive(Deserialize)]
struct Proof {
    jti: String,
    htm: String,
    htu: String,
    iat: f64,
    ath: String,
}

/// What a proof is to prove.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// The address of the endpoint.
    pub(super) resource: &'a str,
    pub(super) token: &'a str,
    /// The thumbprint that the token is bound to.
    pub(super) thumbprint: &'a str,
    /// By how much clocks may differ, seconds.
    pub(super) leeway: u64,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// The proofs that were seen, each with the time until which it would be taken again.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    by_key: HashMap<String, HashMap<[u8; 32], u64>>,
    all: usize,
    /// When what is over was last taken out, seconds since 1970.
    swept: u64,
}

impl Seen {
    fn sweep(&mut self, now: u64) {
        for proofs in self.by_key.values_mut() {
            proofs.retain(|_, until| *until >= now);
        }
        self.by_key.retain(|_, proofs| !proofs.is_empty());
        self.all = self.by_key.values().map(HashMap::len).sum();
        self.swept = now;
    }
}

impl Proofs {
    /// Takes a proof, once.
    ///
    /// # Errors
    /// It proves something else, or was used before.
    pub(super) fn check(&self, proof: &str, request: Request<'_>) -> Result<(), Refusal> {
        let no = |why| Err(Refusal::InvalidProof(why));
        if proof.len() > LONGEST {
            return no("the DPoP proof is too long");
        }
        let Some(header) = Header::read(proof).filter(|header| header.kind().as_deref() == Some("dpop+jwt")) else {
            return no("the DPoP proof is none: a JWT of type dpop+jwt with a signature of a public key");
        };
        let Some(jwk) = header.raw.get("jwk").filter(|jwk| jwk.get("d").is_none()) else {
            return no("the DPoP proof has no public key, or shows a private one");
        };
        let Ok(key) = serde_json::from_value::<Jwk>(jwk.clone()) else {
            return no("the key of the DPoP proof is of a kind that is not known here");
        };
        if !key
            .thumbprint(ThumbprintHash::SHA256)
            .is_ok_and(|thumbprint| thumbprint == request.thumbprint)
        {
            return no("the DPoP proof is of another key than the token's");
        }
        let Some(claims) = signed::<Proof>(proof, &header, std::iter::once(&key)) else {
            return no("the signature of the DPoP proof is wrong, or claims are missing");
        };
        if claims.htm != request.method || !is_same(&claims.htu, request.resource) {
            return no("the DPoP proof is for another request");
        }
        if claims.ath != BASE64URL_NOPAD.encode(&Sha256::digest(request.token)) {
            return no("the DPoP proof is for another token");
        }
        let issued = seconds(Some(claims.iat)).unwrap_or_default();
        let oldest = request.now.saturating_sub(WINDOW + request.leeway);
        let newest = request.now.saturating_add(request.leeway);
        if !(oldest..=newest).contains(&issued) {
            return no("the DPoP proof is too old, or of the future");
        }
        let until = issued.saturating_add(WINDOW + request.leeway);
        let id = Sha256::digest(&claims.jti).into();
        self.once(request.thumbprint, id, until, request.now)
    }

    fn once(&self, thumbprint: &str, id: [u8; 32], until: u64, now: u64) -> Result<(), Refusal> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |seen: &Seen| {
            let own = seen.by_key.get(thumbprint).map_or(0, HashMap::len);
            seen.all < SEEN && own < OF_KEY
        };
        // At most once a second: it looks at every proof.
        if !has_room(&seen) && seen.swept != now {
            seen.sweep(now);
        }
        if !has_room(&seen) {
            return Err(Refusal::Unavailable(
                "too many DPoP proofs came within a minute".to_owned(),
            ));
        }
        match seen.by_key.entry(thumbprint.to_owned()).or_default().insert(id, until) {
            // It would be refused for its age by now.
            Some(before) if before >= now => Err(Refusal::InvalidProof("the DPoP proof was used before")),
            Some(_) => Ok(()),
            None => {
                seen.all += 1;
                Ok(())
            }
        }
    }
}

/// Whether a proof's address is the endpoint's, without query and fragment (RFC 9449, 4.3, 9).
fn is_same(htu: &str, resource: &str) -> bool {
    let (Ok(mut htu), Ok(resource)) = (htu.parse::<Url>(), resource.parse::<Url>()) else {
        return false;
    };
    htu.set_query(None);
    htu.set_fragment(None);
    htu == resource
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey};
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    type Change = fn(&mut Value, &mut Value);
    const RESOURCE: &str = "https://mcp.example/mcp";

    /// An Ed25519 private key in PKCS #8 (RFC 8410, section 10.3), and its public half.
    fn key() -> (EncodingKey, Value) {
        let der = data_encoding::HEXLOWER
            .decode(b"302e020100300506032b657004220420d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842")
            .unwrap();
        let public = data_encoding::HEXLOWER
            .decode(b"19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
            .unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(&public) });
        (EncodingKey::from_ed_der(&der), jwk)
    }

    fn proof(change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let (key, jwk) = key();
        let mut header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
        let ath = BASE64URL_NOPAD.encode(&Sha256::digest("the-token"));
        let mut claims = json!({ "jti": "1", "htm": "POST", "htu": RESOURCE, "iat": NOW, "ath": ath });
        change(&mut header, &mut claims);
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn check(proofs: &Proofs, proof: &str) -> Result<(), Refusal> {
        let (_, jwk) = key();
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        let request = Request {
            method: "POST",
            resource: RESOURCE,
            token: "the-token",
            thumbprint: &jwk.thumbprint(ThumbprintHash::SHA256).unwrap(),
            leeway: 5,
            now: NOW,
        };
        proofs.check(proof, request)
    }

    #[test]
    fn a_proof_is_taken_once() {
        let proofs = Proofs::default();
        let good = proof(|_, claims| claims["htu"] = format!("{RESOURCE}?tools=search#x").into());
        check(&proofs, &good).unwrap();
        assert_eq!(
            check(&proofs, &good),
            Err(Refusal::InvalidProof("the DPoP proof was used before"))
        );
        check(&proofs, &proof(|_, claims| claims["jti"] = "2".into())).unwrap();
    }

    #[test]
    fn a_proof_of_anything_else_is_refused() {
        let changes: [(&str, Change); 11] = [
            ("none", |header, _| header["typ"] = "JWT".into()),
            ("none", |header, _| header["alg"] = "none".into()),
            ("private", |header, _| header["jwk"]["d"] = "AAAA".into()),
            ("another key", |header, _| {
                header["jwk"]["x"] = BASE64URL_NOPAD.encode(&[7; 32]).into();
            }),
            ("another request", |_, claims| claims["htm"] = "GET".into()),
            ("another request", |_, claims| {
                claims["htu"] = "https://mcp.example/mcp/".into();
            }),
            ("another request", |_, claims| {
                claims["htu"] = "http://mcp.example/mcp".into();
            }),
            ("another token", |_, claims| claims["ath"] = "AAAA".into()),
            ("old", |_, claims| claims["iat"] = (NOW - WINDOW - 6).into()),
            ("future", |_, claims| claims["iat"] = (NOW + 6).into()),
            ("missing", |_, claims| claims["jti"] = Value::Null),
        ];
        for (named, change) in changes {
            let refusal = check(&Proofs::default(), &proof(change)).unwrap_err().to_string();
            assert!(refusal.contains(named), "{named}: {refusal}");
        }
        let mut forged = proof(|_, _| {}).into_bytes();
        let last = forged.len() - 2;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        let refusal = check(&Proofs::default(), std::str::from_utf8(&forged).unwrap()).unwrap_err();
        assert!(refusal.to_string().contains("signature"), "{refusal}");
    }
}
