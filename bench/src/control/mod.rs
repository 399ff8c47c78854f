//! The control plane on SQLite and on PostgreSQL: ten thousand devices register, beat every 30 s, wait for changes, and ask
//! as fast as they can. All processes share this machine, those that stand for the devices too.

mod feed;
mod plane;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dawn_identity::NetworkId;

use crate::report::Report;
use plane::{Line, Plane};

#[path = "../../../crates/control/tests/common/postgres.rs"]
mod postgres;

use postgres::Postgres;

/// Devices.
const DEVICES: usize = 10_000;
/// Connections that they share for their beats.
const CONNECTIONS: usize = 64;
/// Between two beats of a device.
const BEAT: Duration = Duration::from_secs(30);
/// How long as many beats as can be are sent.
const FULL: Duration = Duration::from_secs(10);

fn percentile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Measures both databases.
pub(crate) async fn measure(dawn: &Path, train: bool, report: &mut Report) {
    database(dawn, "SQLite", None, train, report).await;
    match Postgres::start() {
        Some(server) => database(dawn, "PostgreSQL", Some(server), train, report).await,
        None => println!("control: PostgreSQL is left out: it is not installed"),
    }
}

async fn database(dawn: &Path, name: &str, server: Option<Postgres>, train: bool, report: &mut Report) {
    let devices = if train { DEVICES / 20 } else { DEVICES };
    let plane = Plane::start(dawn, server).await;
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        lines.push(Line::open(&plane.authority).await);
    }

    let begun = Instant::now();
    let lines = register(&plane, lines, devices).await;
    let rate = devices as f64 / begun.elapsed().as_secs_f64();
    let case = format!("{name}, registrations with an invite");
    report.add("control", &case, "rate", "/s", rate, &[], None);

    let over = if train { Duration::from_secs(2) } else { 3 * BEAT };
    let (lines, mut times) = beat(lines, plane.network, devices, over).await;
    let case = format!("{name}, {devices} devices beat every 30 s");
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    report.add("control", &case, "p50", "ms", p50, &[], None);
    report.add("control", &case, "p99", "ms", p99, &[], Some(20.0));

    let lines = feed::measure(name, &plane, lines, devices, report).await;

    let (rate, mut times) = at_full_speed(lines, plane.network, devices, train).await;
    let case = format!("{name}, beats at full speed, {CONNECTIONS} at once");
    report.add("control", &case, "rate", "/s", rate, &[], None);
    report.add("control", &case, "p99", "ms", percentile(&mut times, 0.99), &[], None);
}

/// Registers all devices, as fast as can be.
async fn register(plane: &Plane, lines: Vec<Line>, devices: usize) -> Vec<Line> {
    let next = Arc::new(AtomicUsize::new(0));
    let registering = lines.into_iter().map(|mut line| {
        let (next, code, network) = (Arc::clone(&next), plane.code.clone(), plane.network);
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= devices {
                    return line;
                }
                line.register(network, number, &code).await;
            }
        })
    });
    let done = futures::future::join_all(registering).await;
    done.into_iter().map(|line| line.expect("a task")).collect()
}

/// Each device beats at its own time within the 30 s, whatever became of the beats of others: who waits, waits since its
/// time had come. How long beats took, milliseconds.
async fn beat(lines: Vec<Line>, network: NetworkId, devices: usize, over: Duration) -> (Vec<Line>, Vec<f64>) {
    let begun = tokio::time::Instant::now();
    let gap = BEAT.as_secs_f64() / devices as f64;
    let all = (over.as_secs_f64() / gap) as usize;
    let beating = lines.into_iter().enumerate().map(|(place, mut line)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            // The timer of the runtime counts whole milliseconds: its lateness is not the control plane's.
            let mut free = begun;
            for number in (place..all).step_by(CONNECTIONS) {
                let due = begun + Duration::from_secs_f64(number as f64 * gap);
                tokio::time::sleep_until(due).await;
                // What another beat on this connection took, is.
                let sent = if free > due { due } else { tokio::time::Instant::now() };
                line.beat(network, number % devices).await;
                free = tokio::time::Instant::now();
                times.push((free - sent).as_secs_f64() * 1e3);
            }
            (line, times)
        })
    });
    let (mut lines, mut times) = (Vec::new(), Vec::new());
    for done in futures::future::join_all(beating).await {
        let (line, more) = done.expect("a task");
        lines.push(line);
        times.extend(more);
    }
    (lines, times)
}

/// Beats one behind the other on every connection: how many a second, and how long each took, milliseconds.
async fn at_full_speed(lines: Vec<Line>, network: NetworkId, devices: usize, train: bool) -> (f64, Vec<f64>) {
    let begun = Instant::now();
    let until = begun + if train { Duration::from_secs(1) } else { FULL };
    let asking = lines.into_iter().enumerate().map(|(place, mut line)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            let mut number = place;
            while Instant::now() < until {
                let sent = Instant::now();
                line.beat(network, number % devices).await;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
                number += CONNECTIONS;
            }
            times
        })
    });
    let mut times = Vec::new();
    for done in futures::future::join_all(asking).await {
        times.extend(done.expect("a task"));
    }
    (times.len() as f64 / begun.elapsed().as_secs_f64(), times)
}
