//! `dawn find`: which agents and nodes of the network have something.

use anstyle::Style;
use clap::Args;
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, understood, words};

/// Which agents and nodes of the network have a capability: a tool, a name, words of a description
#[derive(Debug, Args)]
#[command(
    after_help = "All of the words have to be found, in any order and case. The best come first, who is online before who is not; the exit code is 5 where nothing is found.\n\nWhat this node knows of nothing it asks the network for, in few steps from member to member: whole words of names, titles and tools. With --network it always does.\n\nExamples:\n  dawn find read file\n  dawn find --network read_file\n  dawn find search --json | jq -r '.found[0].address'"
)]
pub(crate) struct FindArgs {
    /// Words of what is looked for
    #[arg(required = true, value_name = "CAPABILITY")]
    words: Vec<String>,

    /// Ask the network, too, and not only when this node knows of nothing
    #[arg(long)]
    network: bool,
}

#[derive(Deserialize)]
struct Answer {
    found: Vec<Found>,
    network: Option<Network>,
}

/// How the network was asked.
#[derive(Deserialize)]
struct Network {
    providers: Vec<Provider>,
    answered: Vec<Named>,
    asked: u64,
    hops: u64,
    ms: f64,
}

/// A node that says that it has something.
#[derive(Deserialize)]
struct Provider {
    node: Named,
    known: bool,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: Option<String>,
}

impl Named {
    fn words(&self) -> String {
        words::clean(self.name.as_ref().unwrap_or(&self.id)).into_owned()
    }
}

#[derive(Deserialize)]
struct Found {
    address: Option<String>,
    name: String,
    title: Option<String>,
    online: bool,
    state: Option<String>,
    this: bool,
    latency_ms: Option<f64>,
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Match {
    #[serde(rename = "in")]
    place: String,
    text: String,
}

impl Found {
    fn state(&self) -> (String, Style) {
        match (self.online || self.this, self.state.as_deref()) {
            (false, _) => ("offline".to_owned(), FAINT),
            (true, None) => ("online".to_owned(), GOOD),
            (true, Some("ready")) => ("ready".to_owned(), GOOD),
            (true, Some("failed")) => ("failed".to_owned(), BAD),
            (true, Some(state)) => (state.to_owned(), CAUTION),
        }
    }
}

pub(crate) fn run(context: &Context, args: &FindArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let wanted = args.words.join(" ");
    let network = if args.network { "&network=true" } else { "" };
    let path = format!("/api/find?capability={}{network}", segment(&wanted));
    let answer: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    let Answer { found, network } = understood(&answer)?;
    let out = context.out;
    if found.is_empty() {
        if out.json {
            out.document(&answer)?;
            return Err(Failure::Said(Exit::NotFound as u8));
        }
        network.iter().flat_map(Network::notes).for_each(|note| out.note(note));
        let words = format!("no agent and no node of this network has {wanted:?}");
        return Err(Failure::new(Exit::NotFound, "nothing_found", words)
            .next("try fewer words; `dawn agent list` shows every agent that is there"));
    }
    out.answer(&answer, |Answer { found, network }| {
        let mut rows = Rows::new(out.on_terminal(), &["ADDRESS", "STATE", "LATENCY", "HAS", "SERVER"]);
        for found in found {
            rows.row([
                (found.address.clone().unwrap_or_else(|| found.name.clone()), STRONG),
                found.state(),
                plain(words::milliseconds(found.latency_ms.filter(|_| !found.this))),
                plain(has(&found.matches)),
                (found.title.unwrap_or_default(), FAINT),
            ]);
        }
        out.line(rows.render())?;
        network.iter().flat_map(Network::notes).for_each(|note| out.note(note));
        Ok(())
    })
}

impl Network {
    /// Who was asked and who answered, and who says that it has it.
    fn notes(&self) -> Vec<String> {
        const MOST: usize = 8;
        if self.asked == 0 {
            return vec!["nobody else could be asked: this node knows no other member that is there".to_owned()];
        }
        let mut answered: Vec<String> = self.answered.iter().map(Named::words).collect();
        answered.sort();
        let more = answered.len().saturating_sub(MOST);
        answered.truncate(MOST);
        if more > 0 {
            answered.push(format!("{more} more"));
        }
        let answered = match answered.is_empty() {
            true => "nobody answered".to_owned(),
            false => format!("answered by {}", answered.join(", ")),
        };
        let (asked, hops) = (words::count(self.asked, "request"), words::count(self.hops, "hop"));
        let took = words::milliseconds(Some(self.ms));
        let mut notes = vec![format!("asked the network: {asked}, {hops}, {took}; {answered}")];
        let providers: Vec<String> = self.providers.iter().map(|provider| provider.node.words()).collect();
        if !providers.is_empty() {
            notes.push(format!("by their own word it is at {}", providers.join(", ")));
        }
        let strange = self.providers.iter().filter(|provider| !provider.known);
        notes.extend(strange.map(|provider| format!("{} could not be met, so it is not shown", provider.node.words())));
        notes
    }
}

/// What was found, each once: a tool by its name, everything else with where it stands.
fn has(matches: &[Match]) -> String {
    const MOST: usize = 4;
    let mut texts: Vec<String> = Vec::new();
    for found in matches {
        let text = match found.place.as_str() {
            "tool" => words::one_line(&found.text),
            place => format!("{place}: {}", words::one_line(&found.text)),
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let more = texts.len().saturating_sub(MOST);
    texts.truncate(MOST);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_network_was_asked_is_told_with_who_answered_and_who_could_not_be_met() {
        let network = r#"{"asked":3,"hops":1,"ms":12,"answered":[{"id":"12D3a","name":"lab"},{"id":"12D3b","name":null}],
            "providers":[{"node":{"id":"12D3a","name":"lab"},"known":true},{"node":{"id":"12D3c","name":null},"known":false}]}"#;
        let network: Network = serde_json::from_str(network).unwrap();
        let wanted = [
            "asked the network: 3 requests, 1 hop, 12 ms; answered by 12D3b, lab",
            "by their own word it is at lab, 12D3c",
            "12D3c could not be met, so it is not shown",
        ];
        assert_eq!(network.notes(), wanted);
    }

    #[test]
    fn what_was_found_is_told_once_and_not_without_end() {
        let found = |place: &str, text: &str| Match {
            place: place.to_owned(),
            text: text.to_owned(),
        };
        let twice = [
            found("tool", "add"),
            found("tool", "add"),
            found("description", "adds\n two"),
        ];
        assert_eq!(has(&twice), "add, description: adds two");
        let many: Vec<Match> = (0..6).map(|at| found("tool", &at.to_string())).collect();
        assert_eq!(has(&many), "0, 1, 2, 3, 2 more");
    }
}
