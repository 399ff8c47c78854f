//! `dawn control device`: who waits, who is in, who is there.

use clap::{Args, Subcommand};
use dawn_control_api::{Device, DevicePatch, paths};
use dawn_identity::{NetworkId, NodeId, Role};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Desk, Of, when};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG};

/// Devices at a control plane: who waits, who is in, who is there
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// All devices
    List {
        #[command(flatten)]
        of: Of,
        /// Only those that stand so: pending, approved, denied, revoked
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Let a device in
    Approve {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Its role: member or guest
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
    },
    /// Say whose a device is
    Give {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// A person, by name or id; nobody's without
        #[arg(value_name = "PERSON")]
        person: Option<String>,
    },
    /// Say no to a device that waits
    Deny {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// Put a member out
    Revoke {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Forget a device that is no member
    Remove {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
    },
}

pub(crate) fn device(context: &Context, args: DeviceArgs) -> Result<(), Failure> {
    match args.command {
        DeviceCommand::List { of, state } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let filter = match state.as_deref() {
                None => String::new(),
                Some(state @ ("pending" | "approved" | "denied" | "revoked")) => format!("?state={state}"),
                Some(_) => return Err(Failure::usage("a state is pending, approved, denied or revoked")),
            };
            let devices: Vec<Device> = desk.all(&format!("{}{filter}", paths::devices(&network)))?;
            devices_table(context, devices)
        }
        DeviceCommand::Approve { of, device, role } => {
            let body = dawn_control_api::Approve { role, person: None };
            act(context, &of, &device, paths::approve, &body, "is let in")
        }
        DeviceCommand::Give { of, device, person } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let node = desk.device(&network, &device)?;
            let person = person.map(|person| desk.person(&network, &person)).transpose()?;
            let body = DevicePatch {
                person: person.as_ref().map(|(id, _)| *id),
                no_person: person.is_none(),
            };
            let device: Device = desk.ask("PATCH", &paths::device(&network, &node), Some(&body))?;
            let words = person.map_or_else(|| "nobody's".to_owned(), |(_, name)| format!("{name}'s"));
            desk.done(&device, format!("{} is {words}", device.name))
        }
        DeviceCommand::Deny { of, device } => act(context, &of, &device, paths::deny, &json!({}), "is denied"),
        DeviceCommand::Revoke { of, device, reason } => {
            let body = dawn_control_api::Revoke { reason };
            act(context, &of, &device, paths::revoke, &body, "is put out")
        }
        DeviceCommand::Remove { of, device } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let node = desk.device(&network, &device)?;
            let _nothing: Value = desk.ask("DELETE", &paths::device(&network, &node), None::<&Value>)?;
            desk.done(&json!({ "node": node }), format!("{device} is forgotten"))
        }
    }
}

fn act(
    context: &Context,
    of: &Of,
    named: &str,
    path: fn(&NetworkId, &NodeId) -> String,
    body: &(impl Serialize + Sync),
    words: &str,
) -> Result<(), Failure> {
    let desk = Desk::new(context, &of.place)?;
    let network = desk.network(of.network)?;
    let node = desk.device(&network, named)?;
    let (shown, tag): (Device, _) = desk.read(&paths::device(&network, &node))?;
    // Whoever waits may take another name until somebody decides on it.
    if named != shown.name.as_str() && named != node.to_string() {
        return Err(
            Failure::new(Exit::Failed, "conflict", format!("it is called {} now", shown.name))
                .next("look at it again: dawn control device list"),
        );
    }
    let device: Device = desk.write("POST", &path(&network, &node), body, tag.as_deref())?;
    desk.done(&device, format!("{} {words}", device.name))
}

fn devices_table(context: &Context, devices: Vec<Device>) -> Result<(), Failure> {
    if context.out.json {
        return context.out.document(&devices);
    }
    let mut rows = Rows::new(
        context.out.on_terminal(),
        &["NAME", "STATE", "ROLE", "PRESENCE", "SINCE", "DEVICE", "WORDS"],
    );
    for device in devices {
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let style = match device.state {
            dawn_control_api::State::Approved => GOOD,
            dawn_control_api::State::Pending => CAUTION,
            dawn_control_api::State::Denied | dawn_control_api::State::Revoked => BAD,
        };
        rows.row([
            (device.name.to_string(), STRONG),
            (word(json!(device.state)), style),
            plain(device.role.to_string()),
            plain(word(json!(device.presence))),
            (when(device.presence_since), FAINT),
            plain(device.node.to_string()),
            plain(device.words.unwrap_or_default()),
        ]);
    }
    context.out.line(rows.render())
}
