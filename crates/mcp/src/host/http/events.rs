//! Event streams of servers, bounded before they are parsed: a parser keeps an event until its end comes.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

/// Beyond its data an event may have so many bytes: names of fields, ids, comments.
const BESIDES: usize = 64 << 10;

/// Why an event stream ends before its server ends it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The connection failed.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// An event that is too long.
    #[error("an event of more than {0} bytes")]
    TooLong(usize),
}

/// Counts the bytes since the last event ended.
#[derive(Debug, Default)]
struct Counter {
    bytes: usize,
    /// The line so far is empty.
    is_empty: bool,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_return: bool,
}

impl Counter {
    /// The bytes of the longest event that these bytes go on with or hold.
    fn longest(&mut self, bytes: &[u8]) -> usize {
        let (mut longest, mut begin) = (0, 0);
        for at in memchr::memchr2_iter(b'\n', b'\r', bytes) {
            if at > begin {
                self.is_empty = false;
                self.after_return = false;
            }
            self.bytes += at + 1 - begin;
            begin = at + 1;
            longest = longest.max(self.bytes);
            if bytes[at] == b'\n' && self.after_return {
                self.after_return = false;
                continue;
            }
            self.after_return = bytes[at] == b'\r';
            if self.is_empty {
                self.bytes = 0;
            }
            self.is_empty = true;
        }
        if begin < bytes.len() {
            self.is_empty = false;
            self.after_return = false;
            self.bytes += bytes.len() - begin;
        }
        longest.max(self.bytes)
    }
}

/// The body of a response, until an event of it is longer than `limit` and what goes with it.
pub(super) fn bounded(response: reqwest::Response, limit: usize) -> impl Stream<Item = Result<Bytes, Broken>> + Unpin {
    let mut counter = Counter::default();
    response.bytes_stream().map(move |chunk| {
        let chunk = chunk?;
        if counter.longest(&chunk) > limit + BESIDES {
            return Err(Broken::TooLong(limit));
        }
        Ok(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(chunks: &[&str]) -> usize {
        let mut counter = Counter::default();
        chunks
            .iter()
            .map(|chunk| counter.longest(chunk.as_bytes()))
            .max()
            .unwrap()
    }

    #[test]
    fn an_event_is_counted_to_its_empty_line_however_lines_end_and_chunks_break() {
        for end in ["\n", "\r", "\r\n"] {
            let event = format!("data: 0123456789{end}data: 0123456789{end}{end}");
            let stream = event.repeat(10);
            assert!(longest(&[&stream]) <= event.len(), "{end:?}");
            let bytes: Vec<String> = stream.chars().map(String::from).collect();
            let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert!(longest(&bytes) <= event.len(), "{end:?}");
        }
    }

    #[test]
    fn an_event_without_an_end_grows() {
        for lines in [
            "data: 0123456789\n",
            "data: 0123456789\r\n",
            "data: 0123456789\r",
            ":\n",
            "x",
        ] {
            let stream = lines.repeat(100);
            assert_eq!(longest(&[&stream]), stream.len(), "{lines:?}");
        }
    }
}
