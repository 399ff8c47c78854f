//! Bytes and rounds of thousands of nodes. The figures are also for people to read.
#![allow(clippy::print_stdout)]

use super::*;

fn shows(what: &str, course: &Course, d: usize) {
    let each = course.bytes() / d.max(1) as u64;
    println!(
        "{what:44} {d:5} differences: {} rounds, {:8} bytes in all ({each:4} each), {:7} of overhead, {} entries",
        course.rounds,
        course.bytes(),
        course.overhead,
        course.entries
    );
}

fn settles(owners: u32, agents: u32) {
    let mut world = World::new(owners, agents);
    let all = world.0.len();
    let (mut a, mut b) = (world.known_to(1, 0..all), world.known_to(2, 0..all));
    let what = format!("{owners} owners with {agents} agents each");
    let equal = sync(&mut a, &mut b);
    shows(&what, &equal, 0);
    assert!(
        equal.bytes() <= 512 && equal.rounds == 1 && equal.deltas == 0,
        "{equal:?}"
    );
    for d in [1, 10, 100, 1000] {
        world.differ(&mut a, &mut b, d);
        let course = sync(&mut a, &mut b);
        shows(&what, &course, d);
        assert!(course.rounds <= 4, "{course:?}");
        // One KiB for each difference, with the deltas.
        assert!(course.bytes() <= 1024 * d as u64, "{d}: {course:?}");
        assert_eq!((course.received, course.entries), (d, d));
    }
    let mut fresh = Member::new(3, 100);
    let course = sync(&mut fresh, &mut a);
    shows("  an empty one asks", &course, all);
    assert_eq!((course.received, course.rounds), (all, 1));
    // A byte for each message.
    assert_eq!(course.overhead, course.messages);
    let mut fresh = Member::new(3, 100);
    let course = sync(&mut a, &mut fresh);
    shows("  an empty one is asked", &course, all);
    assert_eq!(course.received, all);
    assert!(course.overhead <= 1024, "{course:?}");
    println!(
        "  {} bytes of memory, {} for each entry, {} for each owner",
        a.replica.bytes(),
        a.replica.bytes() / (all * (agents as usize + 1)),
        a.replica.bytes() / all
    );
}

#[test]
fn ten_thousand_owners_settle_in_few_bytes_and_rounds() {
    settles(10_000, 1);
}

#[test]
fn a_thousand_owners_with_ten_agents_each_settle_too() {
    settles(1_000, 10);
}

#[test]
fn who_knows_little_lists_it_whoever_begins() {
    let world = World::new(1000, 1);
    for (low, high) in [(0..3, 0..1000), (0..3, 1..1000), (0..340, 300..1000)] {
        for swapped in [false, true] {
            let (mut a, mut b) = (world.known_to(1, low.clone()), world.known_to(2, high.clone()));
            let course = if swapped {
                sync(&mut b, &mut a)
            } else {
                sync(&mut a, &mut b)
            };
            shows(&format!("{} of a thousand", low.len()), &course, low.len());
            let both = low.end.min(high.end) - low.start.max(high.start);
            assert_eq!(course.received, low.len() + high.len() - 2 * both);
            assert!(course.rounds <= 3, "{course:?}");
            assert!(course.overhead <= 600 + 96 * low.len() as u64, "{course:?}");
        }
    }
}
