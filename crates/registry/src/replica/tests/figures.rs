//! How fast and how large it is, for people to read: `cargo test --release -p dawn-registry figures -- --nocapture`.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use super::*;
use crate::set::OrSet;

/// Does it and says how long each of `count` took.
fn timed<T>(what: &str, count: usize, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    let spent = begun.elapsed();
    let each = spent.as_secs_f64() * 1e6 / count as f64;
    println!("{what:52} {each:9.2} us each, {:9.0} a second", 1e6 / each);
    result
}

#[test]
fn figures() {
    const OWNERS: u32 = 500;
    const AGENTS: u32 = 10;
    let value = "x".repeat(400);
    let mut owners: Vec<Member> = (0..OWNERS).map(|node| Member::up(node + 10, 100)).collect();
    for owner in &mut owners {
        let all = (0..AGENTS).map(|agent| Change::Set(Key::Agent(name(agent)), value.as_bytes().to_vec()));
        owner.replica.change(all, &owner.key, NOW).unwrap();
    }
    let count = OWNERS as usize;
    let whole: Vec<Vec<u8>> = owners
        .iter()
        .flat_map(|owner| owner.replica.states(&owner.id()))
        .collect();
    let changes: Vec<Vec<u8>> = timed("a change of one's own (signs)", count, || {
        owners.iter_mut().map(|owner| owner.set_agent(3, "changed")).collect()
    });
    let mut b = Member::new(1, 100);
    let news = |deltas: &[Vec<u8>], b: &mut Member| {
        let applied = deltas.iter().map(|delta| b.replica.apply(delta, NOW, verify));
        applied.filter(Result::is_ok).count()
    };
    let mut hear = |what, deltas| assert_eq!(timed(what, count, || news(deltas, &mut b)), count);
    hear("a whole set of eleven entries (verifies)", &whole);
    hear("a change of one entry (verifies)", &changes);
    hear("the same once more", &changes);
    let mut c = Member::new(2, 100);
    for (what, deltas) in [
        ("whole sets that come together (verifies)", &whole),
        ("changes that come together (verifies)", &changes),
    ] {
        let applied = timed(what, count, || c.replica.apply_all(deltas, NOW, verify));
        assert!(applied.iter().all(Result::is_ok));
    }
    let snapshot = timed("a head in a snapshot for a comparison", count, || {
        crate::sync::Snapshot::of(&b.replica, NOW)
    });
    assert_eq!(snapshot.unwrap().len(), count);
    let sum = |deltas: &[Vec<u8>]| deltas.iter().map(Vec::len).sum::<usize>() / count;
    println!(
        "bytes of a whole set: {}, of a change of seven bytes: {}",
        sum(&whole),
        sum(&changes)
    );
    let entries = count * (AGENTS as usize + 1);
    println!(
        "bytes of memory: {} for an entry of {} bytes, {} for a head",
        b.replica.bytes() / entries,
        value.len(),
        b.replica
            .owners
            .values()
            .map(|owner| size_of(owner) - owner::size_of_elements(owner.heads[0].elements.iter()))
            .sum::<usize>()
            / count
    );
    let (mut one, mut other) = (OrSet::default(), OrSet::default());
    for agent in 0..100u32 {
        one.add(1, agent, agent).unwrap();
        other.add(2, agent + 50, agent).unwrap();
    }
    let merged = timed("a merge of two sets of a hundred (unsigned)", 1000, || {
        (0..1000).map(|_| one.merge(&other).entries().len()).sum::<usize>()
    });
    assert_eq!(merged, 200_000);
}
