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
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod init;
mod inspect;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod leave;
mod login;
pub(crate) mod peers;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod up;
