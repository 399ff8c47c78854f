//! A migration: its steps, in which order they are taken, and what became of each. It is kept in the store of the node that
//! orders it, and written before anything is sent, so that it goes on after a crash.

use std::collections::BTreeMap;

use dawn_identity::{NodeId, UnixTime};
use dawn_registry::{Mode, Place};
use serde::{Deserialize, Serialize};

use crate::modes::PlaceText;

/// What has become of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody was told anything.
    Planned,
    /// Nodes are told, one after the other.
    Running,
    /// A node could not do its step; nobody else is told until somebody says how it goes on.
    Halted,
    /// All that could be told have taken their place.
    Done,
    /// Nodes are told to go back, the last one first.
    RollingBack,
    /// All of them are where they were.
    RolledBack,
}

impl State {
    /// Whether nodes are told something now.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack)
    }
}

/// What has become of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Its turn has not come.
    Pending,
    /// The node is away; it is told when it is back.
    Away,
    /// The node was told, and has not answered yet.
    Sent,
    /// The node has taken its place, and is reached there.
    Done,
    /// The node stayed where it was, or went back by itself.
    Failed,
    /// The node did not come back in time.
    Expired,
    /// There was nothing to be taken back, or the node is no member any more.
    Skipped,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// A stable code.
    pub code: String,
    /// In words.
    pub message: String,
}

/// One node's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is, and goes back to.
    pub from: PlaceText,
    /// Where it goes.
    pub to: PlaceText,
    /// What has become of it.
    pub state: StepState,
    /// The number of its order, once there is one.
    pub number: Option<u64>,
    /// Why it failed, or waits.
    pub why: Option<Why>,
    /// When that came about, seconds since 1970.
    pub at: Option<u64>,
}

/// A migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its id, 16 bytes in hexadecimal digits.
    pub id: String,
    /// Where all its nodes go.
    pub to: PlaceText,
    /// When it was planned, seconds since 1970.
    pub created: u64,
    /// Until when its orders are obeyed, once it was begun.
    pub expires: Option<u64>,
    /// What has become of it.
    pub state: State,
    /// Whether its nodes go back.
    pub back: bool,
    /// Its steps, in their order.
    pub steps: Vec<Step>,
    /// Nodes that were away, and whom the migration before this one tells nothing any more.
    #[serde(default)]
    pub replaced: Vec<String>,
}

/// A node that may be part of a migration.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) place: Place,
    /// Whether it may have been told to go somewhere else, and is away.
    pub(super) is_told: bool,
}

/// The steps that bring these nodes into a mode: who becomes the host first, who stops being one last, and this node after
/// the other members, since it tells them. Who is there already has none.
pub(super) fn steps(local: NodeId, candidates: Vec<Candidate>, to: Place) -> Vec<Step> {
    let hosts: Vec<NodeId> = candidates
        .iter()
        .filter_map(|candidate| candidate.place.host())
        .collect();
    let turn = |candidate: &Candidate| match candidate.node {
        node if to.host() == Some(node) => 0,
        node if hosts.contains(&node) => 3,
        node if node == local => 2,
        _ => 1,
    };
    let mut candidates: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| candidate.is_told || candidate.place != to)
        .collect();
    candidates.sort_by_key(|candidate| (turn(candidate), candidate.name.clone()));
    let step = |candidate: Candidate| Step {
        node: candidate.node,
        name: candidate.name,
        from: candidate.place.into(),
        to: to.into(),
        state: StepState::Pending,
        number: None,
        why: None,
        at: None,
    };
    candidates.into_iter().map(step).collect()
}

impl Migration {
    /// Whether all that is left of it is nodes that are away.
    pub(super) fn only_waits(&self) -> bool {
        let is_away = |at: &usize| self.steps.get(*at).is_some_and(|step| step.state == StepState::Away);
        self.state.is_under_way() && self.open().iter().all(is_away)
    }

    /// The steps whose nodes are away.
    pub(super) fn away(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state == StepState::Away)
    }

    /// Whether something was not done in time.
    pub(super) fn has_expired(&self) -> bool {
        self.steps.iter().any(|step| step.state == StepState::Expired)
    }

    /// Orders are obeyed until then, also those that wait.
    pub(super) fn lasts_until(&mut self, expires: UnixTime, now: UnixTime) {
        self.expires = Some(expires.0);
        self.settle(now);
    }

    /// The steps that are not over, in the order in which they are taken.
    pub(super) fn open(&self) -> Vec<usize> {
        let is_open = |at: &usize| {
            let state = self.steps.get(*at).map(|step| step.state);
            matches!(
                state,
                Some(StepState::Pending | StepState::Away | StepState::Sent | StepState::Failed)
            )
        };
        let all = 0..self.steps.len();
        match self.back {
            true => all.rev().filter(is_open).collect(),
            false => all.filter(is_open).collect(),
        }
    }

    /// Where the node of a step is to go.
    pub(super) fn goal(&self, step: &Step) -> PlaceText {
        if self.back { step.from } else { step.to }
    }

    /// It begins, or goes on after it was halted.
    pub(super) fn begin(&mut self, expires: UnixTime) {
        self.state = State::Running;
        self.back = false;
        self.expires = Some(expires.0);
        self.again();
    }

    /// It is taken back, or that goes on after it was halted: whoever was told anything is told to go back.
    pub(super) fn begin_back(&mut self, expires: UnixTime) {
        let goes_on = std::mem::replace(&mut self.back, true);
        self.state = State::RollingBack;
        self.expires = Some(expires.0);
        if goes_on {
            return self.again();
        }
        for step in &mut self.steps {
            step.state = match step.number.take() {
                Some(_) => StepState::Pending,
                None => StepState::Skipped,
            };
            step.why = None;
        }
    }

    /// What failed is tried again, under a new number.
    fn again(&mut self) {
        for step in &mut self.steps {
            if matches!(step.state, StepState::Failed | StepState::Expired) {
                step.state = StepState::Pending;
                step.number = None;
                step.why = None;
            }
        }
    }

    /// Takes note of what has become of a step; the migration halts where it failed, and ends where it was the last one.
    pub(super) fn note(&mut self, at: usize, state: StepState, why: Option<Why>, now: UnixTime) {
        if let Some(step) = self.steps.get_mut(at) {
            if step.state != state {
                step.at = Some(now.0);
            }
            step.state = state;
            step.why = why;
        }
        if state == StepState::Failed {
            self.state = State::Halted;
        } else {
            self.settle(now);
        }
    }

    /// Ends the migration where nothing is left to be done, or can be.
    pub(super) fn settle(&mut self, now: UnixTime) {
        if !self.state.is_under_way() {
            return;
        }
        if self.expires.is_some_and(|expires| now.0 >= expires) {
            for step in &mut self.steps {
                if matches!(step.state, StepState::Pending | StepState::Away | StepState::Sent) {
                    step.state = StepState::Expired;
                    step.why = None;
                    step.at = Some(now.0);
                }
            }
        }
        if self.open().is_empty() {
            self.state = if self.back { State::RolledBack } else { State::Done };
        }
    }

    /// How many steps are how.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for step in &self.steps {
            let name = match step.state {
                StepState::Pending => "pending",
                StepState::Away => "away",
                StepState::Sent => "sent",
                StepState::Done => "done",
                StepState::Failed => "failed",
                StepState::Expired => "expired",
                StepState::Skipped => "skipped",
            };
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// The mode it leads to.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.to.mode.into()
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    const NOW: UnixTime = UnixTime(1_000);
    const LATER: UnixTime = UnixTime(2_000);

    fn id(seed: u8) -> NodeId {
        Keypair::from_seed([seed; 32]).node_id()
    }

    fn candidates(place: Place) -> Vec<Candidate> {
        let candidate = |(seed, name): (u8, &str)| Candidate {
            node: id(seed),
            name: name.to_owned(),
            place,
            is_told: false,
        };
        [(1, "owner"), (2, "a"), (3, "b"), (4, "host")]
            .into_iter()
            .map(candidate)
            .collect()
    }

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.name.as_str()).collect()
    }

    fn migration() -> Migration {
        let to = Place::Centralized { host: id(4) };
        let mut migration = Migration {
            id: "00".into(),
            to: to.into(),
            created: NOW.0,
            expires: None,
            state: State::Planned,
            back: false,
            steps: steps(id(1), candidates(Place::Decentralized), to),
            replaced: Vec::new(),
        };
        migration.begin(LATER);
        migration
    }

    fn done(migration: &mut Migration, at: usize) {
        migration.steps[at].number = Some(1);
        migration.note(at, StepState::Done, None, NOW);
    }

    #[test]
    fn the_host_comes_first_and_goes_last_and_who_orders_after_who_is_told() {
        let host = id(4);
        let there = steps(id(1), candidates(Place::Decentralized), Place::Centralized { host });
        assert_eq!(names(&there), ["host", "a", "b", "owner"]);
        let back = steps(id(1), candidates(Place::Centralized { host }), Place::Decentralized);
        assert_eq!(names(&back), ["a", "b", "owner", "host"]);
        assert!(steps(id(1), candidates(Place::Decentralized), Place::Decentralized).is_empty());
    }

    #[test]
    fn a_migration_ends_when_every_step_did_and_goes_back_the_other_way() {
        let mut migration = migration();
        for at in 0..4 {
            assert_eq!((migration.state, migration.open()[0]), (State::Running, at));
            done(&mut migration, at);
        }
        assert_eq!(migration.state, State::Done);
        migration.begin_back(LATER);
        assert_eq!(migration.open(), [3, 2, 1, 0]);
        assert_eq!(migration.goal(&migration.steps[0]), Place::Decentralized.into());
        for at in [3, 2, 1, 0] {
            done(&mut migration, at);
        }
        assert_eq!(migration.state, State::RolledBack);
    }

    #[test]
    fn where_a_step_fails_nobody_else_is_told_and_only_who_was_told_goes_back() {
        let mut migration = migration();
        done(&mut migration, 0);
        migration.steps[1].number = Some(2);
        let why = Why {
            code: "host_unreachable".into(),
            message: String::new(),
        };
        migration.note(1, StepState::Failed, Some(why), NOW);
        assert_eq!(migration.state, State::Halted);
        // On again: the same step.
        let mut again = migration.clone();
        again.begin(LATER);
        assert_eq!((again.state, again.open()[0]), (State::Running, 1));
        assert_eq!((again.steps[1].number, &again.steps[1].why), (None, &None));
        migration.begin_back(LATER);
        assert_eq!(migration.open(), [1, 0]);
        assert_eq!(migration.counts()["skipped"], 2);
    }

    #[test]
    fn a_migration_that_only_waits_can_be_replaced_and_who_may_have_been_told_is_told_anew() {
        let mut migration = migration();
        assert!(!migration.only_waits());
        for at in [0, 1, 3] {
            done(&mut migration, at);
        }
        migration.steps[2].number = Some(7);
        assert!(!migration.only_waits(), "its turn has not come");
        migration.note(2, StepState::Sent, None, NOW);
        assert!(!migration.only_waits(), "it may answer");
        migration.note(2, StepState::Away, None, NOW);
        assert!(migration.only_waits());
        let mut candidates = candidates(Place::Decentralized);
        assert!(steps(id(1), candidates.clone(), Place::Decentralized).is_empty());
        candidates[2].is_told = true;
        assert_eq!(names(&steps(id(1), candidates, Place::Decentralized)), ["b"]);
        // Waiting ends when it is said to.
        let mut soon = migration.clone();
        soon.lasts_until(LATER, NOW);
        assert_eq!((soon.state, soon.expires), (State::Running, Some(LATER.0)));
        migration.lasts_until(NOW, NOW);
        assert!(migration.state == State::Done && migration.has_expired());
    }

    #[test]
    fn who_is_away_until_the_end_does_not_keep_a_migration_open() {
        let mut migration = migration();
        for at in [0, 1, 3] {
            done(&mut migration, at);
        }
        migration.note(2, StepState::Away, None, NOW);
        assert_eq!((migration.state, migration.open()), (State::Running, vec![2]));
        migration.settle(LATER);
        assert_eq!(
            (migration.state, migration.steps[2].state),
            (State::Done, StepState::Expired)
        );
    }
}
