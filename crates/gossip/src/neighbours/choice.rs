//! What is done about links when time has passed: which end, who is tried next, and which are given up for others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::NodeId;
use rand::seq::IteratorRandom as _;
use rand::{Rng, RngExt as _};

use super::{Link, Neighbours, Pause, Step, Why};
use crate::Instant;
use crate::table::Table;

/// The longest pause between tries of members that are thought to be offline.
const REACH_MOST: Duration = Duration::from_secs(3600);

impl Neighbours {
    /// A pause: half of it, and up to as much again by chance; it doubles with each failure.
    fn pause<R: Rng + ?Sized>(&self, fails: u32, rng: &mut R) -> Duration {
        let whole = self.config.pause.saturating_mul(1 << fails.min(16));
        let whole = whole.min(self.config.pause_most);
        whole / 2 + whole.mul_f64(rng.random_range(0.0..0.5))
    }

    /// Does what is due.
    pub(crate) fn handle_timeout<R: Rng + ?Sized>(&mut self, table: &Table, now: Instant, rng: &mut R) -> Vec<Step> {
        let mut steps = Vec::new();
        self.end_what_is_over(now, &mut steps);
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.forget(now);
            let next = if self.is_full() {
                self.fill_all(now, rng, &mut steps)
            } else {
                let filled = self.fill_some(table, now, rng, &mut steps);
                let moved = self.move_on(table, now, rng, &mut steps);
                filled.into_iter().chain(moved).min()
            };
            // What ended just now has made something due at once.
            self.due = self.due.into_iter().chain(next).min();
        }
        steps
    }

    /// Links that are silent, tries that take too long, and those who were lost and did not come back.
    fn end_what_is_over(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let over = self.links.iter().filter(|(_, link)| self.ends_at(link) <= now);
        let over: Vec<(NodeId, bool)> = over.map(|(node, link)| (*node, link.others.is_some())).collect();
        for (node, was_greeted) in over {
            self.remove(&node, now);
            steps.push(Step::Leave(node));
            if was_greeted {
                steps.push(Step::Lost(node));
            }
        }
        let late = |since: &Instant| now >= *since + self.config.patience;
        let over: Vec<NodeId> = self
            .tries
            .iter()
            .filter(|(_, (since, _))| late(since))
            .map(|(node, _)| *node)
            .collect();
        for node in over {
            self.tries.remove(&node);
            self.failed(node);
            self.due = Some(now);
        }
        let over: Vec<NodeId> = self
            .lost
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in over {
            self.lost.remove(&node);
            steps.push(Step::Lost(node));
        }
    }

    /// Everybody is linked with everybody: each member that is not is tried after its own pause.
    fn fill_all<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R, steps: &mut Vec<Step>) -> Option<Instant> {
        // Who has nobody does not wait to be found: it tries one of them at once.
        let is_alone = self.links.is_empty() && self.tries.is_empty();
        let tried = self.members.iter().filter(|node| is_alone && self.may_link(node));
        let out_of_turn = tried.choose(rng).copied();
        let mut next = None;
        for node in self.members.clone() {
            if self.links.contains_key(&node) || self.tries.contains_key(&node) || !self.may_link(&node) {
                continue;
            }
            let pause = self
                .pauses
                .get(&node)
                .copied()
                .unwrap_or(Pause { fails: 0, until: None });
            let until = pause.until.unwrap_or_else(|| {
                // One of two begins, so that they do not meet half-way; the other does where the one cannot.
                let is_turn = self.local < node || out_of_turn == Some(node);
                let turns = if is_turn { 0 } else { 4 };
                now + self.pause(pause.fails, rng) + self.config.pause * turns
            });
            if until <= now {
                self.tries.insert(node, (now, Why::Wanted));
                steps.push(Step::Connect(node));
            } else {
                let until = Some(until);
                self.pauses.insert(node, Pause { until, ..pause });
                next = next.into_iter().chain(until).min();
            }
        }
        next
    }

    /// Whether a member could be tried now.
    fn is_free(&self, node: &NodeId, now: Instant) -> bool {
        let is_paused = |pause: &Pause| pause.until.is_none_or(|until| until > now);
        self.may_link(node)
            && !self.links.contains_key(node)
            && !self.tries.contains_key(node)
            && !self.pauses.get(node).is_some_and(is_paused)
    }

    /// Whether a member that was reached before could be tried with the others: this pause is as long as its own.
    fn is_worth_it(&self, node: &NodeId, now: Instant) -> bool {
        let has_failed = self.pauses.get(node).is_some_and(|pause| pause.fails > 0);
        let is_idle = !self.links.contains_key(node) && !self.tries.contains_key(node);
        is_idle && self.may_link(node) && (has_failed || self.is_free(node, now))
    }

    /// Somebody to try, at random.
    fn choose<R: Rng + ?Sized>(&self, wanted: impl Fn(&NodeId) -> bool, now: Instant, rng: &mut R) -> Option<NodeId> {
        let is_wanted = |node: &NodeId| wanted(node) && self.is_free(node, now);
        for _ in 0..8 {
            let node = self.members.get(rng.random_range(0..self.members.len().max(1)))?;
            if is_wanted(node) {
                return Some(*node);
            }
        }
        self.members.iter().filter(|node| is_wanted(node)).choose(rng).copied()
    }

    /// As many links of its own choosing as a node wants.
    fn fill_some<R: Rng + ?Sized>(
        &mut self,
        table: &Table,
        now: Instant,
        rng: &mut R,
        steps: &mut Vec<Step>,
    ) -> Option<Instant> {
        self.draw_pauses(now, rng);
        let tried = self.tries.values().filter(|(_, why)| *why != Why::Instead).count();
        let chosen = self.links.values().filter(|link| link.chosen).count();
        let missing = self.config.wanted.saturating_sub(chosen + tried);
        if missing == 0 {
            self.fill = None;
            return None;
        }
        let fails = self.fails;
        let at = self.fill.unwrap_or_else(|| now + self.pause(fails, rng));
        self.fill = Some(at);
        if at > now {
            return self.fill;
        }
        for turn in 0..missing {
            // After failures every other try goes to one that was reached before: there may be no other way.
            let is_turn = fails > 1 && (fails as usize + turn) % 2 == 1;
            let good = self.good.iter().filter(|node| is_turn && self.is_worth_it(node, now));
            let node = good.choose(rng).copied();
            let node = node.or_else(|| self.choose(|node| !table.is_offline(node), now, rng));
            let Some(node) = node.or_else(|| self.choose(|_| true, now, rng)) else {
                break;
            };
            self.tries.insert(node, (now, Why::Wanted));
            steps.push(Step::Connect(node));
        }
        self.fill = Some(now + self.pause(fails.max(1), rng));
        self.fill
    }

    /// Lets chance say how long those are left alone that were tried in vain.
    fn draw_pauses<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) {
        let new: Vec<(NodeId, u32)> = self
            .pauses
            .iter()
            .filter(|(_, pause)| pause.until.is_none())
            .map(|(node, pause)| (*node, pause.fails))
            .collect();
        for (node, fails) in new {
            let until = Some(now + self.pause(fails, rng));
            self.pauses.insert(node, Pause { fails, until });
        }
    }

    /// Forgets what does not count any more.
    fn forget(&mut self, now: Instant) {
        let long = 4 * self.config.pause_most;
        self.pauses
            .retain(|_, pause| pause.until.is_none_or(|until| now < until + long));
        let settle = self.config.settle;
        for link in self.links.values_mut().filter(|link| now >= link.since + settle) {
            if link.chosen && !link.lasted {
                link.lasted = true;
                self.fails = 0;
            }
        }
    }

    /// Gives links up for others now and then, and tries those that are thought to be offline.
    fn move_on<R: Rng + ?Sized>(
        &mut self,
        table: &Table,
        now: Instant,
        rng: &mut R,
        steps: &mut Vec<Step>,
    ) -> Option<Instant> {
        self.give_up(now, rng, steps);
        let rotate = self.config.rotate.mul_f64(rng.random_range(0.5..1.5));
        let at = *self.rotate.get_or_insert(now + rotate);
        if at <= now {
            self.rotate = Some(now + rotate);
            let node = self.choose(|node| !table.is_offline(node), now, rng);
            self.instead(node, now, steps);
        }
        let chance = rng.random_range(0.5..1.5);
        let at = *self.reach.get_or_insert(now + self.config.reach.mul_f64(chance));
        if at <= now {
            let offline = self.members.iter().filter(|node| table.is_offline(node)).count();
            let online = self.members.len() - offline + 1;
            // All nodes together try each of them so often, however many they are.
            #[expect(clippy::cast_precision_loss, reason = "members are not so many")]
            let share = online as f64 / offline.max(1) as f64;
            let wait = self.config.reach.mul_f64(share.max(1.0) * chance);
            self.reach = Some(
                now + if offline == 0 {
                    self.config.reach
                } else {
                    wait.min(REACH_MOST)
                },
            );
            let node = self.choose(|node| table.is_offline(node), now, rng);
            self.instead(node, now, steps);
        }
        self.rotate.into_iter().chain(self.reach).min()
    }

    fn instead(&mut self, node: Option<NodeId>, now: Instant, steps: &mut Vec<Step>) {
        if let Some(node) = node {
            self.tries.insert(node, (now, Why::Instead));
            steps.push(Step::Connect(node));
        }
    }

    /// Gives up what is more than wanted: what another link took the place of, and what others chose beyond `most`.
    fn give_up<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R, steps: &mut Vec<Step>) {
        let chosen = |links: &BTreeMap<NodeId, Link>| links.values().filter(|link| link.chosen).count();
        let instead: BTreeSet<NodeId> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_instead && link.others.is_some())
            .map(|(node, _)| *node)
            .collect();
        for new in instead {
            if let Some(link) = self.links.get_mut(&new) {
                link.is_instead = false;
            }
            if chosen(&self.links) > self.config.wanted {
                let old = self.links.iter().filter(|(node, link)| link.chosen && **node != new);
                let old = old.map(|(node, _)| *node).choose(rng);
                self.leave(old, now, steps);
            }
        }
        while chosen(&self.links) > self.config.wanted + 1 {
            // There were fewer members, and everybody was linked with everybody.
            let one = self.links.values_mut().filter(|link| link.chosen).choose(rng);
            let Some(one) = one else { break };
            one.chosen = false;
        }
        while !self.is_hub && self.greeted().count() > self.config.most + self.config.wanted {
            let old = self
                .links
                .iter()
                .filter(|(_, link)| !link.chosen && link.others.is_some());
            let old = old.map(|(node, _)| *node).choose(rng);
            if old.is_none() {
                break;
            }
            self.leave(old, now, steps);
        }
    }

    fn leave(&mut self, node: Option<NodeId>, now: Instant, steps: &mut Vec<Step>) {
        if let Some(node) = node {
            self.remove(&node, now);
            steps.push(Step::Leave(node));
        }
    }
}
