//! Times, durations, sizes and foreign texts as people read them.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

/// A text from elsewhere without the control characters that would steer a terminal.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(steers) {
        Cow::Owned(text.replace(steers, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A node's name, with the person it calls for.
pub(crate) fn caller<'a>(node: &'a str, user: Option<&str>) -> Cow<'a, str> {
    match user {
        Some(user) => Cow::Owned(format!("{user} (at {node})")),
        None => Cow::Borrowed(node),
    }
}

/// A text from elsewhere in one line, cleaned.
pub(crate) fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `12 ms`, `0.3 ms`, or a dash.
pub(crate) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "–".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

/// A duration in its largest unit, `3 min`.
pub(crate) fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // To the nearest: a day that began a second ago is a day.
    let in_units = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3570 => format!("{} min", in_units(60)),
        3570..84_600 => format!("{} h", in_units(3600)),
        _ => format!("{} d", in_units(86_400)),
    }
}

/// A time as seen from `now`: `3 min ago`, `in 6 d`.
pub(crate) fn relative(time: Timestamp, now: Timestamp) -> String {
    let span = time.duration_since(now);
    let rough = roughly(span.unsigned_abs());
    if span.is_negative() {
        format!("{rough} ago")
    } else {
        format!("in {rough}")
    }
}

/// A time as seen from now, or a dash.
pub(crate) fn when(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| relative(time, Timestamp::now()))
}

/// `512 B`, `1.5 KiB`, `3.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// The beginning of a text that is too long for a cell.
pub(crate) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or(text).trim_end()),
        None => text.to_owned(),
    }
}

/// `1 tool`, `3 tools`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// What to do where a node is no member any more.
pub(crate) const REJOIN: &str = "`dawn down`, `dawn leave`, then join with a new invite";

/// What a node waits for that the network lock keeps out, and what lets it in, where that is why it is no member. To leave
/// would help nobody: the next identity would wait, too.
pub(crate) fn waits(why: &str) -> Option<(&str, &str)> {
    why.starts_with("the network lock")
        .then(|| why.rsplit_once("; ").unwrap_or((why, "dawn lock status")))
}

/// Says that this node is no member any more, or none yet, why, and what to do.
pub(crate) fn no_member(why: &str) -> String {
    if waits(why).is_some() {
        return format!("This node waits: {}.", one_line(why));
    }
    format!(
        "This node is no member of its network any more: {}; {REJOIN}.",
        one_line(why)
    )
}

/// That a node is away, by this word for it (such as "offline"), and since when this node knows.
pub(crate) fn away(word: &str, last_seen: Option<Timestamp>) -> String {
    match last_seen {
        Some(_) => format!("{word}, seen {}", when(last_seen)),
        None => format!("{word}, not heard yet"),
    }
}

/// A list in one cell, or a dash.
pub(crate) fn list(items: &[String]) -> String {
    if items.is_empty() {
        "–".to_owned()
    } else {
        items.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_network_lock_is_not_told_to_leave() {
        let why = "the network lock keeps it out, says home; on a node with a lock key: dawn lock sign 12D3";
        assert_eq!(
            waits(why),
            Some((
                "the network lock keeps it out, says home",
                "on a node with a lock key: dawn lock sign 12D3"
            ))
        );
        assert!(!no_member(why).contains("leave"));
        assert_eq!(waits("it was put out of the network (revoked)"), None);
        assert!(no_member("it was put out").contains("`dawn leave`"));
    }

    #[test]
    fn a_text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(
            clean("\u{1b}]52;c;x\u{7}a\n\tb\u{9b}"),
            "\u{fffd}]52;c;x\u{fffd}a\n\tb\u{fffd}"
        );
        assert!(matches!(clean("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        for (time, words) in [
            ("2029-12-31T23:57:00Z", "3 min ago"),
            ("2030-01-07T11:00:00Z", "in 6 d"),
            ("2030-01-01T23:59:59Z", "in 1 d"),
            ("2030-01-01T00:00:00Z", "in 0 s"),
        ] {
            assert_eq!(relative(time.parse().unwrap(), now), words);
        }
    }

    #[test]
    fn sizes_and_latencies_have_their_units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5120.0 GiB");
        assert_eq!(milliseconds(Some(0.25)), "0.2 ms");
        assert_eq!(milliseconds(Some(120.4)), "120 ms");
        assert_eq!(milliseconds(None), "–");
    }
}
