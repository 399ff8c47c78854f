//! Histories of several nodes over a network that loses, delays, doubles and reorders, with restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Set {
        at: usize,
        agent: u32,
        value: u8,
    },
    Remove {
        at: usize,
        agent: u32,
    },
    Deliver {
        at: usize,
        change: prop::sample::Index,
    },
    /// One hears of everything that another knows of some node.
    Learn {
        at: usize,
        from: usize,
        of: usize,
    },
    /// A new incarnation, which knows what was kept, or nothing.
    Restart {
        at: usize,
        forgetful: bool,
    },
    Refresh {
        at: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..NODES;
    prop_oneof![
        4 => (at(), 0..3u32, 0..4u8).prop_map(|(at, agent, value)| Step::Set { at, agent, value }),
        2 => (at(), 0..3u32).prop_map(|(at, agent)| Step::Remove { at, agent }),
        8 => (at(), any::<prop::sample::Index>()).prop_map(|(at, change)| Step::Deliver { at, change }),
        3 => (at(), at(), at()).prop_map(|(at, from, of)| Step::Learn { at, from, of }),
        1 => (at(), any::<bool>()).prop_map(|(at, forgetful)| Step::Restart { at, forgetful }),
        1 => at().prop_map(|at| Step::Refresh { at }),
    ]
}

struct World {
    members: Vec<Member>,
    deltas: Vec<Vec<u8>>,
    epochs: u64,
    /// What each node was last told to say, by the model: what its present incarnation knows is what it says.
    said: Vec<BTreeMap<String, String>>,
}

impl World {
    fn new() -> Self {
        let members: Vec<Member> = (0..NODES as u32).map(|node| Member::up(node + 1, 1)).collect();
        let here = BTreeMap::from([(String::new(), "here".to_owned())]);
        Self {
            deltas: members
                .iter()
                .flat_map(|member| member.replica.states(&member.id()))
                .collect(),
            members,
            epochs: 1,
            said: vec![here; NODES],
        }
    }

    /// What is heard of oneself through others changes what the model says, as the join of both.
    fn heard(&mut self, at: usize) {
        let member = &self.members[at];
        self.said[at] = member.said(member.id()).into_iter().collect();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Set { at, agent, value } => {
                let member = &mut self.members[at];
                let value = format!("{value}");
                let delta = member
                    .replica
                    .set_agent(name(agent), value.as_bytes(), &member.key, NOW);
                self.deltas.extend(delta.unwrap());
                self.said[at].insert(name(agent).to_string(), value);
            }
            Step::Remove { at, agent } => {
                let member = &mut self.members[at];
                let delta = member.replica.remove_agent(name(agent), &member.key, NOW);
                self.deltas.extend(delta.unwrap());
                self.said[at].remove(name(agent).as_str());
            }
            Step::Deliver { at, change } => {
                let delta = change.get(&self.deltas);
                let member = &mut self.members[at];
                let before = member.ids();
                match member.apply(delta) {
                    Ok(Applied::New) => self.heard(at),
                    Ok(Applied::Known) | Err(Refusal::Gap(_)) => assert_eq!(member.ids(), before),
                    Err(refusal) => panic!("an honest delta is refused: {refusal}"),
                }
            }
            Step::Learn { at, from, of } => {
                let of = self.members[of].id();
                let known = self.members[at].replica.known(&of);
                let owner = self.members[from].replica.owner(&of);
                let deltas = owner.map_or_else(Vec::new, |owner| owner.deltas_for(&known));
                for delta in deltas {
                    assert_eq!(self.members[at].apply(&delta), Ok(Applied::New));
                }
                let lacked = self.members[from].replica.known(&of);
                let owner = self.members[at].replica.owner(&of);
                assert!(lacked.iter().all(|known| owner.unwrap().covers(known)));
                self.heard(at);
            }
            Step::Restart { at, forgetful } => {
                self.epochs += 1;
                let mut again = Member::new(at as u32 + 1, self.epochs);
                if forgetful {
                    self.deltas.push(again.set_node("here"));
                } else {
                    again.learn(&self.members[at], again.id());
                }
                self.members[at] = again;
                self.heard(at);
            }
            Step::Refresh { at } => {
                let member = &mut self.members[at];
                self.deltas.extend(member.replica.refresh(&member.key, NOW).unwrap());
            }
        }
        for (member, said) in self.members.iter().zip(&self.said) {
            assert_eq!(&member.said(member.id()).into_iter().collect::<BTreeMap<_, _>>(), said);
            for node in 0..NODES {
                assert!(member.replica.heads(&key(node as u32 + 1).node_id()).count() <= crate::owner::MAX_HEADS);
            }
        }
    }

    fn heal(&mut self) {
        for _ in 0..2 {
            for at in 0..NODES {
                for from in 0..NODES {
                    (0..NODES).for_each(|of| self.step(&Step::Learn { at, from, of }));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn after_any_history_all_know_the_same_and_each_node_is_shown_as_it_says(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.heal();
        // Whoever has other incarnations joins them; then there is one head of each.
        (0..NODES).for_each(|at| world.step(&Step::Refresh { at }));
        world.heal();
        for member in &world.members {
            prop_assert_eq!(member.ids(), world.members[0].ids());
            prop_assert_eq!(member.ids().len(), NODES);
            for (other, said) in world.members.iter().zip(&world.said) {
                prop_assert_eq!(&member.said(other.id()).into_iter().collect::<BTreeMap<_, _>>(), said);
            }
        }
    }

    #[test]
    fn the_order_in_which_states_come_makes_no_difference(steps in prop::collection::vec(step(), 0..40), order in any::<prop::sample::Index>()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        let mut states: Vec<Vec<u8>> = world.members.iter()
            .flat_map(|member| (1..=NODES as u32).flat_map(|node| member.replica.states(&key(node).node_id())))
            .collect();
        let mut one = Member::up(9, 1);
        let mut other = Member::up(9, 1);
        states.iter().for_each(|state| drop(one.apply(state)));
        let turn = order.index(states.len());
        states.rotate_left(turn);
        states.reverse();
        states.extend_from_within(..turn);
        states.iter().for_each(|state| drop(other.apply(state)));
        prop_assert_eq!(one.ids(), other.ids());
    }
}
