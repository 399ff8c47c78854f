//! All devices wait for changes, each on a connection of its own, and beat besides: how long a change takes to all of them,
//! what it costs each, and how long beats take meanwhile.

use std::time::{Duration, Instant};

use dawn_control_api::{Changes, News};
use dawn_identity::NetworkId;
use tokio::sync::mpsc;

use super::plane::{Line, Plane, device};
use super::{BEAT, beat, percentile};
use crate::report::Report;

/// Changes that are told of, one every [`APART`].
const CHANGES: usize = 4;
const APART: Duration = Duration::from_secs(5);

/// A device has heard of a document.
struct Heard {
    at: Instant,
    bytes: usize,
}

/// Reads what there is, and how many bytes that is.
async fn whole(plane: &Plane) -> (u64, usize) {
    let (mut line, key) = (Line::open(&plane.authority).await, device(0));
    let (mut since, mut bytes) = (0, 0);
    loop {
        let body = line.changes(&key, plane.network, since).await;
        let page: Changes = serde_json::from_slice(&body).expect("changes");
        (since, bytes) = (page.next, bytes + body.len());
        if !page.more {
            return (since, bytes);
        }
    }
}

/// Waits for changes again and again.
async fn listen(
    mut line: Line,
    network: NetworkId,
    number: usize,
    mut since: u64,
    heard: mpsc::UnboundedSender<Heard>,
) {
    let key = device(number);
    loop {
        let body = line.changes(&key, network, since).await;
        let at = Instant::now();
        let page: Changes = serde_json::from_slice(&body).expect("changes");
        since = page.next;
        let documents = page
            .changes
            .iter()
            .filter(|change| matches!(change.news, News::Relays { .. }));
        for _ in documents {
            let bytes = body.len();
            // Who counts has enough.
            let _ = heard.send(Heard { at, bytes });
        }
    }
}

/// Measures it; gives back the connections on which devices beat.
pub(super) async fn measure(
    name: &str,
    plane: &Plane,
    lines: Vec<Line>,
    devices: usize,
    report: &mut Report,
) -> Vec<Line> {
    let (since, all_bytes) = whole(plane).await;
    let (sender, mut heard) = mpsc::unbounded_channel();
    let mut listening = tokio::task::JoinSet::new();
    for number in 0..devices {
        let line = Line::open(&plane.authority).await;
        listening.spawn(listen(line, plane.network, number, since, sender.clone()));
    }
    let mut line = Line::open(&plane.authority).await;
    while plane.waiting(&mut line).await < devices {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let beating = tokio::spawn(beat(lines, plane.network, devices, BEAT));
    let (mut times, mut bytes) = (Vec::new(), 0);
    for number in 0..CHANGES {
        tokio::time::sleep(APART).await;
        let begun = Instant::now();
        plane.change(&mut line, number).await;
        for _ in 0..devices {
            let one = heard.recv().await.expect("devices listen");
            times.push((one.at - begun).as_secs_f64() * 1e3);
            bytes += one.bytes;
        }
    }
    let (lines, mut beats) = beating.await.expect("a task");
    let case = format!("{name}, {devices} devices wait: one change");
    report.add("control", &case, "p50", "ms", percentile(&mut times, 0.5), &[], None);
    report.add(
        "control",
        &case,
        "the last",
        "ms",
        percentile(&mut times, 1.0),
        &[],
        None,
    );
    let each = bytes as f64 / (CHANGES * devices) as f64;
    let map = [("the whole map", all_bytes as f64)];
    report.add("control", &case, "for each", "B", each, &map, None);
    let case = format!("{name}, {devices} devices wait and beat");
    report.add("control", &case, "p99", "ms", percentile(&mut beats, 0.99), &[], None);
    lines
}
