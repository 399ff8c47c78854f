//! `dawn control people`: whose devices they are.

use clap::{Args, Subcommand};
use dawn_control_api::{CreatePerson, Person, PersonPatch, paths};
use serde_json::{Value, json};

use super::{Desk, Of, when};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{FAINT, STRONG};

/// People at a control plane, whose devices are in a network
#[derive(Debug, Args)]
pub(crate) struct PeopleArgs {
    #[command(subcommand)]
    command: PeopleCommand,
}

#[derive(Debug, Subcommand)]
enum PeopleCommand {
    /// All people
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Add a person
    Add {
        #[command(flatten)]
        of: Of,
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        /// Whatever helps to tell it from others
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Change what is known of a person
    Change {
        #[command(flatten)]
        of: Of,
        /// The person, by name or id
        #[arg(value_name = "PERSON")]
        person: String,
        /// What it is called from now on
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Whatever helps to tell it from others; an empty text goes
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Remove a person who has no devices
    Remove {
        #[command(flatten)]
        of: Of,
        /// The person, by name or id
        #[arg(value_name = "PERSON")]
        person: String,
    },
}

pub(crate) fn people(context: &Context, args: PeopleArgs) -> Result<(), Failure> {
    match args.command {
        PeopleCommand::List { of } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let people: Vec<Person> = desk.all(&paths::people(&network))?;
            if context.out.json {
                return context.out.document(&people);
            }
            let mut rows = Rows::new(
                context.out.on_terminal(),
                &["PERSON", "NAME", "DEVICES", "SINCE", "NOTE"],
            );
            for person in people {
                rows.row([
                    plain(person.id.to_string()),
                    (person.name, STRONG),
                    plain(person.devices.to_string()),
                    (when(person.created_at), FAINT),
                    plain(person.note.unwrap_or_default()),
                ]);
            }
            context.out.line(rows.render())
        }
        PeopleCommand::Add { of, name, note } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let body = CreatePerson { name, note };
            let person: Person = desk.ask("POST", &paths::people(&network), Some(&body))?;
            desk.done(&person, format!("{} is added: {}", person.name, person.id))
        }
        PeopleCommand::Change { of, person, name, note } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let (id, _) = desk.person(&network, &person)?;
            let body = PersonPatch { name, note };
            let person: Person = desk.ask("PATCH", &paths::person(&network, id), Some(&body))?;
            desk.done(&person, format!("{} is changed", person.name))
        }
        PeopleCommand::Remove { of, person } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let (id, name) = desk.person(&network, &person)?;
            let _nothing: Value = desk.ask("DELETE", &paths::person(&network, id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("{name} is removed"))
        }
    }
}
