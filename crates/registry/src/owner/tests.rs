use std::collections::BTreeSet;

use dawn_identity::{Keypair, UnixTime};
use proptest::prelude::*;

use super::*;
use crate::head::{Draft, Parsed};

fn element((agent, sequence): (u32, u64)) -> Element {
    let name = format!("agent-{agent}").parse().unwrap();
    Element {
        key: Key::Agent(name),
        dot: Dot { epoch: 1, sequence },
        value: Value::new(&sequence.to_be_bytes()),
    }
}

fn delta(added: &BTreeSet<(u32, u64)>, rest: Rest) -> Delta {
    let key = Keypair::from_seed([1; 32]);
    let draft = Draft {
        network: &key.network_id(),
        clock: &Clock::default(),
        time: UnixTime(1),
        expires: UnixTime(2),
        digest: [0; 32],
    };
    Delta {
        head: Parsed(Head::sign(draft, &key).unwrap()),
        added: added.iter().copied().map(element).collect(),
        rest,
    }
}

fn elements() -> impl Strategy<Value = BTreeSet<(u32, u64)>> {
    prop::collection::btree_set((0..8u32, 1..12u64), 0..14)
}

proptest! {
    #[test]
    fn what_is_kept_is_what_was_compared_with_the_digest(
        base in elements(),
        added in elements(),
        named in prop::collection::btree_set(1..12u64, 0..12),
        only: bool,
    ) {
        let keeps = |(_, sequence): &(u32, u64)| named.contains(sequence) == only;
        let kept: BTreeSet<(u32, u64)> = base.iter().copied().filter(keeps).collect();
        let dots = named.iter().map(|sequence| Dot { epoch: 1, sequence: *sequence }).collect();
        let delta = delta(&added, if only { Rest::Only(dots) } else { Rest::Without(dots) });
        let base: Vec<Element> = base.into_iter().map(element).collect();
        let made = Made::of(&base, &delta);
        prop_assert_eq!(made.is_none(), !kept.is_disjoint(&added));
        let Some(made) = made else { return Ok(()) };
        let all: Vec<Element> = kept.union(&added).copied().map(element).collect();
        prop_assert_eq!(made.iter().cloned().collect::<Vec<_>>(), &all[..]);
        let entries = made.len();
        prop_assert_eq!(entries, all.len());
        prop_assert_eq!(&changed(base, delta, entries)[..], &all[..]);
    }

    #[test]
    fn an_entry_takes_the_place_of_one_before_it(base in elements(), at: prop::sample::Index, renames: bool) {
        prop_assume!(!base.is_empty());
        let base: Vec<(u32, u64)> = base.into_iter().collect();
        let (agent, gone) = base[at.index(base.len())];
        let new = (if renames { 9 } else { agent }, 20);
        let dots = [Dot { epoch: 1, sequence: gone }].into_iter().collect();
        let delta = delta(&BTreeSet::from([new]), Rest::Without(dots));
        let stays = base.iter().filter(|(_, sequence)| *sequence != gone);
        let mut all: Vec<(u32, u64)> = stays.copied().chain([new]).collect();
        all.sort_unstable();
        let all: Vec<Element> = all.into_iter().map(element).collect();
        let base: Vec<Element> = base.into_iter().map(element).collect();
        let entries = Made::of(&base, &delta).unwrap().len();
        prop_assert_eq!(&changed(base, delta, entries)[..], &all[..]);
    }
}
