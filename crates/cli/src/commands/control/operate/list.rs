//! `dawn control relays` and `bootstrap`: nodes that a control plane names to all devices.

use clap::{Args, Subcommand};
use dawn_control_api::{Bootstrap, Contact, Relay, Relays, paths};
use dawn_identity::{NetworkId, NodeId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Desk, Of};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::STRONG;
use crate::output::table::{Rows, plain};

/// Relays that all devices of a network may use
#[derive(Debug, Args)]
pub(crate) struct RelaysArgs {
    #[command(subcommand)]
    command: RelaysCommand,
}

#[derive(Debug, Subcommand)]
enum RelaysCommand {
    /// All of them
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Name a relay, or another address of it
    Add {
        #[command(flatten)]
        of: Of,
        /// Where it is: a multiaddress that ends in /p2p/RELAY
        #[arg(value_name = "ADDRESS", value_parser = at)]
        at: At,
        /// The token that it asks for; members show their membership without
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
    },
    /// Name a relay no more
    Remove {
        #[command(flatten)]
        of: Of,
        /// Its id
        #[arg(value_name = "RELAY")]
        node: NodeId,
    },
}

/// Members through which devices of a network find others
#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    #[command(subcommand)]
    command: BootstrapCommand,
}

#[derive(Debug, Subcommand)]
enum BootstrapCommand {
    /// All of them
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Name a member, or another address of it
    Add {
        #[command(flatten)]
        of: Of,
        /// Where it is: a multiaddress that ends in /p2p/NODE
        #[arg(value_name = "ADDRESS", value_parser = at)]
        at: At,
    },
    /// Name a member no more
    Remove {
        #[command(flatten)]
        of: Of,
        /// Its id
        #[arg(value_name = "NODE")]
        node: NodeId,
    },
}

/// A node and an address of it.
#[derive(Debug, Clone)]
struct At {
    node: NodeId,
    address: String,
}

fn at(text: &str) -> Result<At, String> {
    let wrong = || "a multiaddress that ends in /p2p/ID, such as /dns4/relay.example/tcp/4001/p2p/12D3KooW…".to_owned();
    let (address, node) = text.rsplit_once("/p2p/").ok_or_else(wrong)?;
    dawn_mesh::check_address(address)?;
    Ok(At {
        node: node.parse().map_err(|_| wrong())?,
        address: address.to_owned(),
    })
}

/// A list of nodes.
trait List: Serialize + DeserializeOwned + Sync {
    type Item: Serialize;
    fn path(network: &NetworkId) -> String;
    fn items(&mut self) -> &mut Vec<Self::Item>;
    fn node(item: &Self::Item) -> NodeId;
    fn addresses(item: &mut Self::Item) -> &mut Vec<String>;
}

impl List for Relays {
    type Item = Relay;

    fn path(network: &NetworkId) -> String {
        paths::relays(network)
    }

    fn items(&mut self) -> &mut Vec<Relay> {
        &mut self.relays
    }

    fn node(item: &Relay) -> NodeId {
        item.node
    }

    fn addresses(item: &mut Relay) -> &mut Vec<String> {
        &mut item.addresses
    }
}

impl List for Bootstrap {
    type Item = Contact;

    fn path(network: &NetworkId) -> String {
        paths::bootstrap(network)
    }

    fn items(&mut self) -> &mut Vec<Contact> {
        &mut self.nodes
    }

    fn node(item: &Contact) -> NodeId {
        item.node
    }

    fn addresses(item: &mut Contact) -> &mut Vec<String> {
        &mut item.addresses
    }
}

pub(crate) fn relays(context: &Context, args: RelaysArgs) -> Result<(), Failure> {
    match args.command {
        RelaysCommand::List { of } => show::<Relays>(context, &of),
        RelaysCommand::Add { of, at, token } => {
            let new = Relay {
                node: at.node,
                addresses: Vec::new(),
                token: token.clone(),
            };
            change::<Relays>(context, &of, |items| {
                let mut relay = taken(items, new, |relay| relay.node == at.node);
                relay.token = token.or(relay.token);
                with(&mut relay.addresses, at.address);
                items.push(relay);
                true
            })
        }
        RelaysCommand::Remove { of, node } => without::<Relays>(context, &of, node),
    }
}

pub(crate) fn bootstrap(context: &Context, args: BootstrapArgs) -> Result<(), Failure> {
    match args.command {
        BootstrapCommand::List { of } => show::<Bootstrap>(context, &of),
        BootstrapCommand::Add { of, at } => {
            let new = Contact {
                node: at.node,
                addresses: Vec::new(),
            };
            change::<Bootstrap>(context, &of, |items| {
                let mut contact = taken(items, new, |contact| contact.node == at.node);
                with(&mut contact.addresses, at.address);
                items.push(contact);
                true
            })
        }
        BootstrapCommand::Remove { of, node } => without::<Bootstrap>(context, &of, node),
    }
}

/// Takes the item of a node out; where there is none, a new one.
fn taken<T>(items: &mut Vec<T>, new: T, is_it: impl Fn(&T) -> bool) -> T {
    match items.iter().position(is_it) {
        Some(place) => items.remove(place),
        None => new,
    }
}

fn with(addresses: &mut Vec<String>, address: String) {
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

fn show<L: List>(context: &Context, of: &Of) -> Result<(), Failure> {
    let desk = Desk::new(context, &of.place)?;
    let mut list: L = desk.get(&L::path(&desk.network(of.network)?))?;
    told(context, &mut list)
}

fn without<L: List>(context: &Context, of: &Of, node: NodeId) -> Result<(), Failure> {
    change::<L>(context, of, |items| {
        let before = items.len();
        items.retain(|item| L::node(item) != node);
        items.len() < before
    })
}

/// Reads a list, changes it, and writes it if nobody else has changed it meanwhile.
fn change<L: List>(context: &Context, of: &Of, work: impl FnOnce(&mut Vec<L::Item>) -> bool) -> Result<(), Failure> {
    let desk = Desk::new(context, &of.place)?;
    let path = L::path(&desk.network(of.network)?);
    let (mut list, tag): (L, _) = desk.read(&path)?;
    if !work(list.items()) {
        return Err(Failure::new(Exit::NotFound, "not_found", "it is not on the list"));
    }
    // A list that was never written has no state that could be named.
    let tag = tag.filter(|tag| tag != "\"0\"");
    let mut list: L = desk.write("PUT", &path, &list, tag.as_deref())?;
    told(context, &mut list)
}

fn told<L: List>(context: &Context, list: &mut L) -> Result<(), Failure> {
    let out = context.out;
    if out.json {
        return out.document(list.items());
    }
    let mut rows = Rows::new(out.on_terminal(), &["NODE", "ADDRESSES"]);
    for item in list.items() {
        let addresses = L::addresses(item).join(" ");
        rows.row([(L::node(item).to_string(), STRONG), plain(addresses)]);
    }
    out.line(rows.render())
}
