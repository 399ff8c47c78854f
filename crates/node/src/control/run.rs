//! The two conversations with a control plane, while the node runs: beats, and the feed of changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dawn_control_api::{Code, Heartbeat, HeartbeatAnswer, RevocationView, State, paths};
use dawn_identity::Revocation;
use http::Method;
use tokio::time::Instant;

use super::{Control, ControlError, GOODBYE, Joined, SOFTWARE, register};
use crate::error::NodeError;
use crate::members::now;
use crate::sync::lock;

/// Pauses after failures, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// The shortest and the longest time between two beats that a control plane may ask for.
const BEAT: (u64, u64) = (2, 600);
/// Within this time a node that may not revoke tells the control plane of a revocation, if nobody else has.
pub(super) const OTHERS_TELL: Duration = Duration::from_secs(60);
/// What the control plane did not take is told again after this.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// A feed that is answered sooner, with nothing, does not wait; it is asked again after this.
const UNWILLING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The shortest time for a page of the feed, however fast it is answered.
const PAGE: Duration = Duration::from_millis(50);

/// Pauses between tries: they double, and half of each is chance, so that nobody stampedes when a control plane returns.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(PAUSE.0)
    }

    pub(super) fn after(&mut self, error: &NodeError) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(PAUSE.1);
        let jittered = pause.mul_f64(rand::random_range(0.5..1.0));
        let asked = match error {
            NodeError::Control(error) => error.retry_after(),
            _ => None,
        };
        asked.map_or(jittered, |asked| asked.max(jittered) + jittered / 4)
    }

    pub(super) fn reset(&mut self) {
        self.0 = PAUSE.0;
    }
}

/// With a tenth of chance.
pub(super) fn jittered(beat: Duration) -> Duration {
    beat.mul_f64(rand::random_range(0.9..1.1))
}

impl Control {
    /// Speaks with a control plane until it is to stop.
    pub(super) async fn run(self, joined: Joined) {
        if let Err(error) = self.recall(&joined).await {
            tracing::error!(%error, "what the control plane said before could not be read");
        }
        let all = Box::pin(async {
            self.meet_again(&joined).await;
            tokio::join!(
                self.beats(&joined),
                self.changes(&joined),
                self.tellings(&joined),
                self.policies(&joined),
                self.authorisation(&joined)
            )
        });
        // None ends by itself.
        let _ = joined.stop.run_until_cancelled(Box::pin(all)).await;
        let goodbye = Heartbeat {
            leaving: true,
            ..Heartbeat::default()
        };
        let is_known = lock(&joined.standing).reachable;
        if is_known {
            let path = self.beat_path(&joined);
            let said = joined.plane.post::<HeartbeatAnswer>(&path, &goodbye);
            // It finds out by itself, too.
            let _ = tokio::time::timeout(GOODBYE, said).await;
        }
    }

    fn beat_path(&self, joined: &Joined) -> String {
        paths::heartbeat(&self.0.parts.members.network(), &joined.plane.node())
    }

    async fn beats(&self, joined: &Joined) {
        let mut pauses = Pauses::new();
        let mut said = None;
        loop {
            let wait = match self.beat(joined, &mut said).await {
                Ok(next) => {
                    pauses.reset();
                    jittered(next)
                }
                Err(error) => {
                    // After a failure everything is said again.
                    said = None;
                    self.failed(joined, &error);
                    pauses.after(&error)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tells the control plane of revocations that it may not know: it is no member, and hears nothing in the mesh. Who
    /// may revoke does so at once; the others wait for some time of chance, and until its own feed tells of them or not,
    /// so that a thousand devices do not tell it the same.
    async fn tellings(&self, joined: &Joined) {
        let mut revoked = self.0.parts.members.revoked();
        loop {
            let patience = match self.0.parts.members.own().roles.may_revoke() {
                true => Duration::ZERO,
                false => OTHERS_TELL.mul_f64(rand::random_range(0.02..1.0)),
            };
            tokio::time::sleep(patience).await;
            let mut pauses = Pauses::new();
            let is_left = loop {
                match self.tell_revocations(joined).await {
                    Ok(is_left) => break is_left,
                    Err(error) => tokio::time::sleep(pauses.after(&error)).await,
                }
            };
            tokio::select! {
                changed = revoked.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = joined.anew.notified() => {}
                () = tokio::time::sleep(jittered(AGAIN)), if is_left => {}
            }
        }
    }

    /// One beat; how long until the next.
    async fn beat(&self, joined: &Joined, said: &mut Option<Vec<String>>) -> Result<Duration, NodeError> {
        let addresses = self.addresses();
        let is_new = said.as_ref() != Some(&addresses);
        let beat = Heartbeat {
            addresses: is_new.then(|| addresses.clone()),
            software: is_new.then(|| SOFTWARE.to_owned()),
            leaving: false,
        };
        let known = lock(&joined.standing).next;
        let answer = joined
            .plane
            .post::<HeartbeatAnswer>(&self.beat_path(joined), &beat)
            .await;
        let answer = match answer {
            Err(error) if error.problem() == Some(Code::NotRegistered) => {
                self.register(joined).await?;
                joined.plane.post(&self.beat_path(joined), &beat).await?
            }
            answer => answer?,
        };
        *said = Some(addresses);
        self.0.counters.beats.fetch_add(1, Ordering::Relaxed);
        self.compare(joined, &answer, known).await?;
        let was_away = {
            let mut standing = lock(&joined.standing);
            standing.last_beat = Some(now());
            standing.error = None;
            standing.state = Some(State::Approved);
            if answer.latest > standing.next {
                standing.up_to_date = false;
            }
            !std::mem::replace(&mut standing.reachable, true)
        };
        if was_away {
            let url = joined.plane.address();
            tracing::info!(%url, "the control plane answers");
            self.0
                .parts
                .events
                .say("control.up", &serde_json::json!({ "url": url }));
        }
        let next = u64::from(answer.next_seconds).clamp(BEAT.0, BEAT.1);
        Ok(Duration::from_secs(next))
    }

    /// Registers anew: the control plane does not know this node any more.
    async fn register(&self, joined: &Joined) -> Result<(), NodeError> {
        let info = register::meet(&joined.plane, joined.config.issuer).await?;
        let registered = register::register(&joined.plane, &info, &self.wanted(None)).await?;
        let _one = joined.taking.lock().await;
        let mut standing = lock(&joined.standing);
        standing.state = Some(registered.device.state);
        // What it knows may be older than what was heard.
        standing.next = 0;
        standing.up_to_date = false;
        Ok(())
    }

    async fn changes(&self, joined: &Joined) {
        let mut pauses = Pauses::new();
        loop {
            let begun = Instant::now();
            match self.hear(joined).await {
                Ok(heard) => {
                    pauses.reset();
                    let (least, pause) = UNWILLING;
                    if heard == 0 && begun.elapsed() < least {
                        tokio::time::sleep(jittered(pause)).await;
                    }
                    tokio::time::sleep_until(begun + PAGE).await;
                }
                Err(error) => {
                    self.failed(joined, &error);
                    tokio::time::sleep(pauses.after(&error)).await;
                }
            }
        }
    }

    /// Takes note of a failure; it is told once, when the control plane goes away or says something else than before.
    pub(super) fn failed(&self, joined: &Joined, error: &NodeError) {
        let NodeError::Control(error) = error else {
            tracing::error!(%error, "what the control plane said could not be kept");
            return;
        };
        self.0.counters.failed(error);
        let mut standing = lock(&joined.standing);
        match error.problem() {
            Some(Code::NotApproved) => standing.state = Some(State::Pending),
            Some(Code::Denied) => standing.state = Some(State::Denied),
            Some(Code::Revoked) => standing.state = Some(State::Revoked),
            _ => {}
        }
        let is_gone = matches!(error, ControlError::Unreachable(_));
        let is_news = standing.error.as_ref().map(ControlError::code) != Some(error.code());
        let was_reachable = standing.reachable;
        standing.reachable &= !is_gone;
        standing.error = Some(error.clone());
        drop(standing);
        if is_news || (was_reachable && is_gone) {
            let url = joined.plane.address();
            tracing::warn!(%url, %error, "the control plane does not do what is asked of it; this node goes on without it");
            let name = if is_gone { "control.away" } else { "control.refused" };
            let data = serde_json::json!({ "url": url, "code": error.code(), "message": error.to_string() });
            self.0.parts.events.say(name, &data);
        }
    }

    /// Tells what is not told yet; whether something is left, which the control plane does not take now.
    async fn tell_revocations(&self, joined: &Joined) -> Result<bool, NodeError> {
        let path = paths::revocations(&self.0.parts.members.network());
        let known = self.0.parts.members.revocations_encoded();
        joined.told.keep_only(&known);
        let (mut is_new, mut is_left) = (false, false);
        let mut outcome = Ok(());
        for bytes in known {
            let Ok(revocation) = Revocation::decode(&bytes) else {
                continue;
            };
            if !joined.told.wants(&bytes) {
                continue;
            }
            let at = revocation.at();
            let view = RevocationView {
                revocation,
                node: None,
                at: None,
            };
            let refused = joined.plane.tell(Method::POST, &path, &view).await.err();
            match refused.as_ref().map(|error| Refused::of(error, at > now())) {
                None => {}
                Some(Refused::ForGood) => {
                    tracing::warn!(error = ?refused, "the control plane does not take a revocation");
                }
                Some(Refused::ForNow) => {
                    tracing::debug!(error = ?refused, "the control plane does not take a revocation now");
                    is_left = true;
                    continue;
                }
                Some(Refused::Everything) => {
                    outcome = refused.map_or(Ok(()), |error| Err(error.into()));
                    break;
                }
            }
            joined.told.note(&bytes);
            is_new = true;
        }
        if is_new {
            joined.told.keep(&self.0.parts.store).await?;
        }
        outcome.map(|()| is_left)
    }
}

/// What is refused when a revocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// This one, now and later: it is not signed by who may.
    ForGood,
    /// This one, now.
    ForNow,
    /// Whatever is told: there is nobody who listens, or nobody who has time.
    Everything,
}

impl Refused {
    /// `is_ahead`: the revocation is dated in the future, by the clock of this node, too.
    fn of(error: &ControlError, is_ahead: bool) -> Self {
        let ControlError::Problem { problem, .. } = error else {
            return Self::Everything;
        };
        match (problem.code, problem.status) {
            (Code::BadDocument, _) if !is_ahead => Self::ForGood,
            (_, 401 | 408 | 421 | 429 | 500..) => Self::Everything,
            _ => Self::ForNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_control_api::limits;

    use super::*;

    fn away() -> NodeError {
        ControlError::Unreachable("refused".to_owned()).into()
    }

    fn busy(seconds: u64) -> NodeError {
        ControlError::Problem {
            problem: Box::new(dawn_control_api::Problem::new(Code::Busy)),
            retry_after: Some(Duration::from_secs(seconds)),
        }
        .into()
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_left_to_chance() {
        let mut pauses = Pauses::new();
        let mut expected = PAUSE.0;
        for _ in 0..12 {
            let pause = pauses.after(&away());
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} {expected:?}");
            expected = (expected * 2).min(PAUSE.1);
        }
        pauses.reset();
        assert!(pauses.after(&away()) <= PAUSE.0);
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept() {
        let mut pauses = Pauses::new();
        assert!(pauses.after(&busy(90)) >= Duration::from_secs(90));
        assert!(pauses.after(&busy(0)) >= Duration::from_millis(900));
    }

    #[test]
    fn a_revocation_is_told_until_it_is_taken_or_can_never_be() {
        let says = |code| ControlError::Problem {
            problem: Box::new(dawn_control_api::Problem::new(code)),
            retry_after: None,
        };
        for (code, is_ahead, expected) in [
            (Code::BadDocument, false, Refused::ForGood),
            (Code::BadDocument, true, Refused::ForNow),
            // As many are kept of this issuer as there is room for; the clock there is behind.
            (Code::Conflict, false, Refused::ForNow),
            (Code::NotYet, false, Refused::ForNow),
            (Code::NotFound, false, Refused::ForNow),
            (Code::RateLimited, false, Refused::Everything),
            (Code::BadTime, false, Refused::Everything),
            (Code::Busy, false, Refused::Everything),
            (Code::Internal, false, Refused::Everything),
        ] {
            assert_eq!(Refused::of(&says(code), is_ahead), expected, "{code}");
        }
        let away = ControlError::Unreachable("refused".to_owned());
        assert_eq!(Refused::of(&away, false), Refused::Everything);
    }

    #[test]
    fn beats_are_spread_around_their_time() {
        for _ in 0..100 {
            let beat = jittered(limits::HEARTBEAT);
            assert!(beat >= limits::HEARTBEAT.mul_f64(0.9) && beat <= limits::HEARTBEAT.mul_f64(1.1));
        }
    }
}
