//! What the operator of a control plane does on its machine, over the socket in its data folder.

mod audit;
mod device;
mod invite;
mod list;
mod network;
mod person;
mod policy;
mod token;

use clap::Args;
use dawn_control::operator::{Operator, OperatorError};
use dawn_control_api::{Code, Device, Network, Page, Person, PersonId, paths};
use dawn_identity::{NetworkId, NodeId, UnixTime};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::serve::Place;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{GOOD, styled, words};

pub(super) use audit::{AuditArgs, audit};
pub(super) use device::{DeviceArgs, device};
pub(super) use invite::{InviteArgs, invite};
pub(super) use list::{BootstrapArgs, RelaysArgs, bootstrap, relays};
pub(super) use network::{NetworkArgs, network};
pub(super) use person::{PeopleArgs, people};
pub(super) use policy::{PolicyArgs, policy};
pub(super) use token::{TokenArgs, token};

/// Which network of a control plane.
#[derive(Debug, Args)]
pub(crate) struct Of {
    #[command(flatten)]
    place: Place,
    /// The network, where the control plane serves several
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkId>,
}

/// A control plane on this machine, and how to speak of it.
struct Desk<'a> {
    context: &'a Context,
    operator: Operator,
}

impl<'a> Desk<'a> {
    fn new(context: &'a Context, place: &Place) -> Result<Self, Failure> {
        let operator = Operator::new(&place.config(context)?.data);
        Ok(Self { context, operator })
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        self.context
            .wait(async { Ok(self.operator.ask(method, path, body).await?) })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask("GET", path, None::<&Value>)
    }

    /// A value, and what names its present state.
    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Option<String>), Failure> {
        self.context
            .wait(async { Ok(self.operator.ask_if("GET", path, None::<&Value>, None).await?) })
    }

    /// Asks for something to be done, if the present state is the one that is named.
    fn write<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &(impl Serialize + Sync),
        tag: Option<&str>,
    ) -> Result<T, Failure> {
        self.context
            .wait(async { Ok(self.operator.ask_if(method, path, Some(body), tag).await?.0) })
    }

    /// All pages of a list.
    fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page: Page<T> = self.get(&format!("{path}{joint}limit=200{cursor}"))?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// The network that is named, or the only one.
    fn network(&self, named: Option<NetworkId>) -> Result<NetworkId, Failure> {
        if let Some(network) = named {
            return Ok(network);
        }
        let page: Page<Network> = self.get(paths::NETWORKS)?;
        match page.items.as_slice() {
            [only] => Ok(only.id),
            [] => Err(
                Failure::new(Exit::NotFound, "not_found", "this control plane serves no network")
                    .next("dawn control network add NETWORK --name NAME"),
            ),
            _ => Err(Failure::usage("this control plane serves several networks").next("name one with --network")),
        }
    }

    /// The device of an id or a name.
    fn device(&self, network: &NetworkId, named: &str) -> Result<NodeId, Failure> {
        if let Ok(node) = named.parse() {
            return Ok(node);
        }
        let devices: Vec<Device> = self.all(&paths::devices(network))?;
        let mut fitting = devices.iter().filter(|device| device.name.as_str() == named);
        match (fitting.next(), fitting.next()) {
            (Some(device), None) => Ok(device.node),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("several devices are called {named}")).next("name it by its id"))
            }
            (None, _) => Err(
                Failure::new(Exit::NotFound, "not_found", format!("no device is called {named}"))
                    .next("dawn control device list"),
            ),
        }
    }

    /// The person of an id or a name, and what to call it.
    fn person(&self, network: &NetworkId, named: &str) -> Result<(PersonId, String), Failure> {
        let people: Vec<Person> = self.all(&paths::people(network))?;
        let id: Option<PersonId> = named.parse().ok();
        let mut fitting = people
            .into_iter()
            .filter(|person| id.map_or(person.name == named, |id| person.id == id));
        match (fitting.next(), fitting.next()) {
            (Some(person), None) => Ok((person.id, person.name)),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("several people are called {named}")).next("name one by the id"))
            }
            (None, _) => Err(
                Failure::new(Exit::NotFound, "not_found", format!("nobody is called {named}"))
                    .next("dawn control people list"),
            ),
        }
    }

    fn done(&self, value: &impl Serialize, words: impl std::fmt::Display) -> Result<(), Failure> {
        let out = self.context.out;
        if out.json {
            return out.document(value);
        }
        out.line(format!("{} {words}", styled(GOOD, "✓")))
    }
}

fn when(time: UnixTime) -> String {
    words::when(timestamp(time))
}

fn timestamp(time: UnixTime) -> Option<Timestamp> {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// A point in time, in full.
pub(super) fn moment(time: UnixTime) -> String {
    timestamp(time).map_or_else(|| "another time".to_owned(), |time| time.to_string())
}

/// Whether a time has come.
fn is_over(time: UnixTime) -> bool {
    timestamp(time).is_some_and(|time| time <= Timestamp::now())
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let message = error.to_string();
        match error {
            OperatorError::NotRunning(_) => Self::new(Exit::NotRunning, "not_running", message)
                .next("start it with `dawn control serve`, or name its data folder with --data"),
            OperatorError::Problem(problem) => {
                let exit = match (problem.code, problem.status) {
                    (Code::NotFound, _) => Exit::NotFound,
                    (_, 401 | 403) => Exit::NotAllowed,
                    (_, 400 | 422) => Exit::Usage,
                    _ => Exit::Failed,
                };
                let failure = Self::new(exit, problem.code.as_str(), message);
                match problem.next {
                    Some(next) => failure.next(next),
                    None => failure,
                }
            }
            OperatorError::Broken(_) => {
                Self::new(Exit::Failed, "connection_broken", message).next("see the log of the control plane")
            }
            OperatorError::Answer(_) => Self::new(Exit::Failed, "not_understood", message)
                .next("use the `dawn` of the same version as the control plane"),
        }
    }
}
