//! The commands, a file for each group.

pub(crate) mod agent;
pub(crate) mod arguments;
pub(crate) mod audit;
pub(crate) mod bridge;
pub(crate) mod call;
pub(crate) mod calls;
pub(crate) mod client_config;
mod client_file;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod find;
pub(crate) mod init;
mod inspect;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod leave;
mod listing;
pub(crate) mod lock;
mod login;
pub(crate) mod migrate;
pub(crate) mod netcheck;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod up;

/// A duration of a second or more, as an argument.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_secs() >= 1 => Ok(duration),
        Ok(_) => Err("it is shorter than a second".to_owned()),
        Err(_) => Err("it is no duration; write 30m, 12h or 7d".to_owned()),
    }
}
