//! How a node works, and what it never exceeds.

use std::time::Duration;

/// How a node works. All nodes of a network should have the same idea of `ping` and `suspicion`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Members, this node included, up to which everybody is linked with everybody.
    pub full: usize,
    /// Beyond that: links that a node has of its own choosing.
    pub wanted: usize,
    /// Beyond that: links that it has at most, those that others chose included.
    pub most: usize,
    /// How long a try of a link may take.
    pub patience: Duration,
    /// Pause after the first failed try; it doubles with each, and half of it is chance.
    pub pause: Duration,
    /// The longest pause.
    pub pause_most: Duration,
    /// How often a link is given up for another, on average.
    pub rotate: Duration,
    /// How often a member that is thought to be offline is tried by somebody, on average, in a network that is not fully
    /// linked.
    pub reach: Duration,
    /// How long a link stays when its end has just come: it is not given up for one that has no other link.
    pub settle: Duration,

    /// After how long without a message an idle link carries a ping.
    pub ping: Duration,
    /// φ at which a link counts as silent: 8 is one error in 10⁸ intervals, if they were distributed normally.
    pub threshold: f64,
    /// After how long a link counts as silent, however irregular it is.
    pub silence: Duration,
    /// How long a lost link may take to come back before its end is accused.
    pub grace: Duration,
    /// How long an accused node has to refute it in a network of ten; times the decimal logarithm of its size in larger
    /// ones.
    pub suspicion: Duration,

    /// How often news may come to a node before links that bring them once more are made lazy.
    pub copies: usize,
    /// After how long news are announced on links that they are not sent on.
    pub announce: Duration,
    /// How long announced news may take to come by themselves; and, once asked for, before another is asked.
    pub graft: Duration,
    /// How often a node compares everything it knows with one neighbour.
    pub compare: Duration,
    /// How long news are kept for those who ask for them.
    pub keep: Duration,
    /// How long it is remembered that news were seen.
    pub remember: Duration,

    /// News that are kept for those who ask, in number.
    pub kept: usize,
    /// News that are kept for those who ask, and news that wait for a verdict, each, bytes.
    pub kept_bytes: usize,
    /// News that wait for a verdict, in number.
    pub pending: usize,
    /// Ids of news that are remembered.
    pub ids: usize,
    /// Announced news that are waited for.
    pub announced: usize,
    /// Members that are known; who comes when there are so many is not.
    pub members: usize,
    /// Words of nodes that are not known to be members yet.
    pub early: usize,

    /// Messages of one link in a second, on average; four times as many at once.
    pub messages_a_second: u32,
    /// Bytes of one link in a second, on average; four times as many at once.
    pub bytes_a_second: u32,
    /// Accusations of one node by all others in a minute.
    pub accused_a_minute: u32,
    /// Words of one node about itself in a minute. More than `accused_a_minute`, or it could not refute them.
    pub words_a_minute: u32,
    /// Refused messages of one node in a minute after which it is not heard any more.
    pub refused_a_minute: u32,
    /// How long it is not heard.
    pub mute: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            full: 32,
            wanted: 4,
            most: 12,
            patience: 20 * SECOND,
            pause: SECOND / 2,
            pause_most: 30 * SECOND,
            rotate: 5 * MINUTE,
            reach: 30 * SECOND,
            settle: 10 * SECOND,
            ping: 5 * SECOND,
            threshold: 8.0,
            silence: 30 * SECOND,
            grace: 2 * SECOND,
            suspicion: 4 * SECOND,
            copies: 2,
            announce: SECOND / 20,
            graft: SECOND / 10,
            compare: 30 * SECOND,
            keep: MINUTE,
            remember: 10 * MINUTE,
            kept: 4096,
            kept_bytes: 16 << 20,
            pending: 1024,
            ids: 32_768,
            announced: 4096,
            members: 65_536,
            early: 64,
            messages_a_second: 512,
            bytes_a_second: 4 << 20,
            accused_a_minute: 8,
            words_a_minute: 40,
            refused_a_minute: 32,
            mute: 10 * MINUTE,
        }
    }
}

impl Config {
    /// Accusations of one author in a minute: as many as it may have links that break at once where everybody is linked
    /// with everybody, and 16 at least.
    #[must_use]
    pub fn accusations_a_minute(&self) -> u32 {
        u32::try_from(self.full).unwrap_or(u32::MAX).max(16)
    }
}
