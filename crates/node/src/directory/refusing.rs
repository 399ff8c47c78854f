//! What members send that is not taken: counted by its code, told with who sent it, and a member that sends too much of
//! it is not read for a while.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_registry::Refusal;
use dawn_registry::delta::Delta;
use serde_json::json;

use super::Directory;
use super::journal::Note;
use crate::shares::{Pace, Seldom};
use crate::sync::Counts;

/// What of one member may be refused within [`SPAN`] before nothing more of it is read until that is over: what it is to
/// blame for, fewer than the gossip takes of a neighbour before it gives the link up; and whatever it is.
const BLAMED: u32 = 30;
const REFUSED: u32 = 600;
const SPAN: Duration = Duration::from_secs(60);
/// Characters of the words that are told and kept.
const WORDS: usize = 256;

#[derive(Debug)]
pub(super) struct Refusing {
    blamed: Pace,
    refused: Pace,
    told: Seldom<(NodeId, &'static str)>,
    counts: Counts,
}

impl Default for Refusing {
    fn default() -> Self {
        Self {
            blamed: Pace::new(BLAMED, SPAN),
            refused: Pace::new(REFUSED, SPAN),
            told: Seldom::default(),
            counts: Counts::default(),
        }
    }
}

impl Refusing {
    pub(super) fn count(&self, code: &'static str) {
        self.counts.count(code);
    }

    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        self.counts.all()
    }

    /// Whether a member is not read for now; that something of it was left unread is counted.
    pub(super) fn is_limited(&self, from: NodeId) -> bool {
        let is_limited = self.is_spent(from);
        if is_limited {
            self.counts.count("limited");
        }
        is_limited
    }

    /// The same, where nothing is left unread yet.
    pub(super) fn is_spent(&self, from: NodeId) -> bool {
        self.blamed.is_spent(from) || self.refused.is_spent(from)
    }
}

/// Whether who passed something on is to blame for it: whoever is honest would have refused it too. What is missing, who
/// is a member, and how much there is room for, each knows for itself alone; how often a node spoke and what the time is,
/// too, so that only the node itself is to blame for that.
fn is_blamed(refusal: &Refusal, is_own: impl FnOnce() -> bool) -> bool {
    match refusal {
        Refusal::Gap(_)
        | Refusal::NoMember(_)
        | Refusal::Full
        | Refusal::Expired(_)
        | Refusal::TooManyHeads
        | Refusal::OtherVersion(_) => false,
        Refusal::TooOften | Refusal::FromTheFuture(_) => is_own(),
        _ => true,
    }
}

impl Directory {
    /// Takes note of a delta that is refused; whether its sender is to blame.
    pub(super) async fn refuse_delta(&self, from: NodeId, delta: &[u8], refusal: &Refusal) -> bool {
        if let Refusal::Gap(_) = refusal {
            // What is missing is fetched.
            self.refuse_unblamed(from, refusal.code()).await;
            return false;
        }
        let is_own = || Delta::speaker(delta) == Some(from);
        let is_blamed = is_blamed(refusal, is_own);
        self.refuse(from, refusal.code(), &refusal.to_string(), is_blamed).await;
        is_blamed
    }

    /// Takes note of something that is refused, and of whether its sender is to blame.
    pub(super) async fn refuse(&self, from: NodeId, code: &'static str, message: &str, is_blamed: bool) {
        let refusing = &self.0.refusing;
        refusing.count(code);
        let message: String = message.chars().take(WORDS).collect();
        if refusing.told.may_speak_of((from, code)) {
            tracing::warn!(%from, code, message, "what a member sent is refused");
            let sender = json!({ "id": from, "name": self.name_of(from) });
            let data = json!({ "from": sender, "code": code, "message": message });
            self.0.events.say("registry.refused", &data);
            let content = json!({ "code": code, "message": message });
            self.note(Note::new(from, "delta.refused", content)).await;
        }
        self.count_of(from, is_blamed).await;
    }

    /// Takes note of what is refused without a word: it may happen often where all are honest.
    pub(super) async fn refuse_unblamed(&self, from: NodeId, code: &'static str) {
        self.0.refusing.count(code);
        self.count_of(from, false).await;
    }

    async fn count_of(&self, from: NodeId, is_blamed: bool) {
        let refusing = &self.0.refusing;
        let refused = refusing.refused.count(from);
        let blamed = if is_blamed { refusing.blamed.count(from) } else { 0 };
        if blamed == BLAMED || refused == REFUSED {
            self.tell_limited(from, refused.into()).await;
        }
    }

    /// A member of which so much was refused is not read for a while.
    pub(super) async fn tell_limited(&self, from: NodeId, refused: u64) {
        tracing::warn!(%from, "a member sends too much that is refused; it is not read for a while");
        let sender = json!({ "id": from, "name": self.name_of(from) });
        let data = json!({ "from": sender, "refused": refused });
        self.0.events.say("registry.limited", &data);
        self.note(Note::new(from, "member.limited", json!({ "refused": refused })))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::UnixTime;

    use super::*;

    #[test]
    fn who_passes_on_what_it_could_not_know_to_be_wrong_is_not_to_blame() {
        let node = NodeId::from_bytes([1; 32]);
        for refusal in [Refusal::Gap(node), Refusal::NoMember(String::new()), Refusal::Full] {
            assert!(!is_blamed(&refusal, || true) && !is_blamed(&refusal, || false));
        }
        for refusal in [Refusal::TooOften, Refusal::FromTheFuture(UnixTime(1))] {
            assert!(is_blamed(&refusal, || true) && !is_blamed(&refusal, || false));
        }
        assert!(is_blamed(&Refusal::BadSignature, || false) && is_blamed(&Refusal::NotSigned, || false));
    }

    #[test]
    fn a_member_of_which_too_much_is_refused_is_not_read_for_a_while_and_others_are() {
        let (refusing, liar) = (Refusing::default(), NodeId::from_bytes([1; 32]));
        for _ in 0..BLAMED {
            assert!(!refusing.is_limited(liar));
            refusing.blamed.count(liar);
        }
        assert!(refusing.is_limited(liar) && !refusing.is_limited(NodeId::from_bytes([2; 32])));
        assert_eq!(refusing.all(), [("limited", 1)]);
    }
}
