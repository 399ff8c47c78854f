//! `dawn control status`: how this node stands with its control plane.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{CAUTION, FAINT, GOOD, STRONG, styled, words};

#[derive(Deserialize)]
struct Status {
    url: Option<String>,
    issuer: Option<String>,
    state: Option<String>,
    #[serde(default)]
    reachable: bool,
    last_beat: Option<Timestamp>,
    #[serde(default)]
    changes: u64,
    #[serde(default)]
    up_to_date: bool,
    authorised_until: Option<Timestamp>,
    #[serde(default)]
    authorisation_ends: bool,
    error: Option<Trouble>,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    relays: Vec<Relay>,
}

#[derive(Deserialize)]
struct Trouble {
    message: String,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    state: String,
    role: String,
    presence: String,
    since: Timestamp,
    this: bool,
}

#[derive(Deserialize)]
struct Relay {
    node: String,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let status: Box<RawValue> = context.wait(async { Ok(client.get("/api/control?ask=true").await?) })?;
    let out = context.out;
    out.answer(&status, |status: Status| {
        let Some(url) = &status.url else {
            out.line("this node has no control plane")?;
            out.note("`dawn control join URL` registers it at one.");
            return Ok(());
        };
        let line = |name: &str, text: String| {
            out.line(format!(
                "{}  {}",
                styled(FAINT, format!("{name:<13}")),
                words::clean(&text)
            ))
        };
        line("control plane", url.clone())?;
        if let Some(issuer) = status.issuer {
            line("issues with", issuer)?;
        }
        if let Some(until) = status.authorised_until {
            line("may issue", format!("until {until}"))?;
            if status.authorisation_ends {
                out.line(styled(CAUTION, "it may not issue for long any more"))?;
                out.note("Next: on the owner's node: dawn control authorize");
            }
        }
        line(
            "this device",
            status.state.unwrap_or_else(|| "not heard of yet".to_owned()),
        )?;
        let beat = status.last_beat.map_or_else(
            || "no beat answered yet".to_owned(),
            |beat| format!("beat answered {}", words::when(Some(beat))),
        );
        let reach = if status.reachable { "answers" } else { "does not answer" };
        line("reach", format!("{reach}, {beat}"))?;
        let behind = if status.up_to_date { "" } else { ", not all heard yet" };
        line("changes", format!("{}{behind}", status.changes))?;
        for relay in status.relays {
            line("relay", relay.node)?;
        }
        if let Some(trouble) = status.error {
            out.line(styled(CAUTION, words::clean(&trouble.message)))?;
            if let Some(next) = trouble.next {
                out.note(format!("Next: {}", words::clean(&next)));
            }
        }
        if !status.devices.is_empty() {
            let mut rows = Rows::new(out.on_terminal(), &["DEVICE", "STATE", "ROLE", "PRESENCE", "SINCE"]);
            for device in status.devices {
                let is_there = status.reachable && device.presence == "online";
                let presence = if is_there { GOOD } else { FAINT };
                let name = if device.this { STRONG } else { plain("").1 };
                rows.row([
                    (device.name, name),
                    plain(device.state),
                    plain(device.role),
                    (device.presence, presence),
                    plain(words::when(Some(device.since))),
                ]);
            }
            out.line("")?;
            if !status.reachable {
                out.line(styled(CAUTION, "as it said when it answered last:"))?;
            }
            out.line(rows.render())?;
        }
        Ok(())
    })
}
