//! Times as the API writes them.

use dawn_identity::UnixTime;

/// RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(time: UnixTime) -> String {
    let seconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| time.0.to_string(), |timestamp| timestamp.to_string())
}
