//! What went wrong, as problem details (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::RequestId;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What `type` of a problem begins with; its code follows.
const TYPE: &str = "urn:dawn:control:";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What kind of problem it is. Codes are stable: programs decide by them. A code that this version does not know is
        /// read as [`Code::Unknown`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// One that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// All that a control plane says.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its text.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The status of an answer with it.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// The same for all problems of this kind.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                    Self::Unknown => "an unknown problem",
                }
            }
        }
    };
}

codes! {
    /// The body, the query, the path or a header is not what it has to be.
    Malformed = "malformed", 400, "the request is malformed";
    /// The body is no JSON of the type that belongs here.
    WrongType = "wrong_media_type", 415, "the body has to be application/json";
    /// A value is not allowed: too long, too many, out of range.
    Invalid = "invalid", 422, "a value is not allowed";
    /// The body is longer than is read.
    TooLarge = "too_large", 413, "the request is too large";
    /// The headers are longer than is read.
    HeadersTooLarge = "headers_too_large", 431, "the headers of the request are too large";
    /// The request did not come in time.
    TooSlow = "too_slow", 408, "the request did not come in time";
    /// There is no such path.
    NoSuchPath = "no_such_path", 404, "there is nothing at this path";
    /// The path does not take this method.
    MethodNotAllowed = "method_not_allowed", 405, "the method is not allowed here";
    /// Nothing says who asks.
    Unauthenticated = "unauthenticated", 401, "the request has to be signed by a device, or to carry a token";
    /// The token is unknown, expired or was revoked: it is not told which.
    BadToken = "bad_token", 401, "the token is not accepted";
    /// The signature is malformed, or does not cover what it has to.
    BadSignatureForm = "malformed_signature", 401, "the signature of the request is malformed";
    /// The signature does not fit the request.
    BadSignature = "bad_signature", 401, "the signature does not fit the request";
    /// The content digest does not fit the body.
    BadDigest = "bad_digest", 401, "the digest does not fit the body";
    /// The request was signed too long ago, or in the future, or for too long.
    BadTime = "bad_time", 401, "the time of the signature is not accepted";
    /// The request came before, or its nonce did.
    Replayed = "replayed", 401, "the request came before";
    /// The request is signed for another control plane.
    WrongAuthority = "wrong_authority", 421, "the request is for another control plane";
    /// A device acts for another one.
    OtherDevice = "other_device", 403, "a device acts only for itself";
    /// The token has not got the scope, or is for another network.
    Forbidden = "forbidden", 403, "the token does not allow this";
    /// The device is not registered.
    NotRegistered = "not_registered", 403, "the device is not registered";
    /// The device waits for approval.
    NotApproved = "not_approved", 403, "the device is not approved yet";
    /// A person said no to the device.
    Denied = "denied", 403, "the device was denied";
    /// The device was put out.
    Revoked = "revoked", 403, "the device was put out of the network";
    /// The device's own certificate has expired, or is not one of this network.
    BadCertificate = "bad_certificate", 403, "the certificate is not accepted";
    /// The challenge is unknown, was answered before, or its time is over.
    ChallengeExpired = "challenge_expired", 409, "the challenge cannot be answered any more";
    /// The challenge was not signed with the device's key.
    BadChallenge = "bad_challenge", 403, "the challenge was not answered with the device's key";
    /// The invite is unknown or its secret is wrong.
    InviteUnknown = "invite_unknown", 403, "there is no such invite";
    /// The invite has expired.
    InviteExpired = "invite_expired", 403, "the invite has expired";
    /// The invite has been used up.
    InviteUsedUp = "invite_used_up", 403, "the invite has been used up";
    /// The invite was withdrawn.
    InviteRevoked = "invite_revoked", 403, "the invite was withdrawn";
    /// There is no such thing.
    NotFound = "not_found", 404, "there is no such thing";
    /// There is one already, or it is in another state.
    Conflict = "conflict", 409, "the state of things does not allow this";
    /// A device of that name is in the network.
    NameTaken = "name_taken", 409, "the name is taken";
    /// What was to be changed has changed meanwhile.
    PreconditionFailed = "precondition_failed", 412, "it has changed meanwhile";
    /// A change without `If-Match` that needs one.
    PreconditionRequired = "precondition_required", 428, "the request has to say what it changes";
    /// The idempotency key was used for another request.
    IdempotencyMismatch = "idempotency_mismatch", 422, "the idempotency key belongs to another request";
    /// A request with the same idempotency key is being answered.
    InProgress = "in_progress", 409, "the same request is being answered";
    /// The control plane may not issue for the network: its owner has not authorised it, or not lately.
    NotAuthorised = "not_authorised", 409, "the control plane is not authorised by the network's owner";
    /// The document is not signed by who may.
    BadDocument = "bad_document", 422, "the document is not accepted";
    /// The document is dated after now: it is taken later.
    NotYet = "not_yet", 409, "the document is dated in the future";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "too many requests";
    /// The server has no room at present.
    Busy = "busy", 503, "the control plane is busy";
    /// The server is ending.
    Draining = "draining", 503, "the control plane is ending";
    /// The server failed.
    Internal = "internal", 500, "the control plane failed";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A problem: the body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:dawn:control:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem, in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What kind of problem, for programs.
    pub code: Code,
    /// What it is this time, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do next, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("{TYPE}{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: None,
            next: None,
            request: None,
        }
    }

    /// With what it is this time.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail.as_deref().unwrap_or(&self.title))
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_one_text_each_and_it_is_the_same_in_json() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code}");
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn a_problem_is_rfc_9457_and_one_of_a_later_version_is_read() {
        let problem = Problem::new(Code::Replayed).detail("it came at 3").next("sign it anew");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:dawn:control:replayed");
        assert_eq!(
            (json["status"].as_u64(), json["code"].as_str()),
            (Some(401), Some("replayed"))
        );
        assert_eq!(serde_json::from_value::<Problem>(json.clone()).unwrap(), problem);
        let mut later = json;
        later["code"] = "flooded".into();
        later["water"] = 3.into();
        assert_eq!(serde_json::from_value::<Problem>(later).unwrap().code, Code::Unknown);
    }
}
