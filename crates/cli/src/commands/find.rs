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
    not_member_because: Option<String>,
}

/// How the network was asked.
#[derive(Deserialize)]
struct Network {
    providers: Vec<Provider>,
    answered: Vec<Named>,
    /// Who was asked and did not answer.
    #[serde(default)]
    silent: Vec<Named>,
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
    let wanted = args.words.join(" ");
    if wanted.trim().is_empty() {
        return Err(Failure::usage("nothing to look for was given").next("dawn find read file"));
    }
    let client = context.client()?;
    let network = if args.network { "&network=true" } else { "" };
    let path = format!("/api/find?capability={}{network}", segment(&wanted));
    let answer: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    let answered: Answer = understood(&answer)?;
    let (found, network) = (&answered.found, &answered.network);
    let out = context.out;
    if found.is_empty() {
        if out.json {
            out.document(&answer)?;
            return Err(Failure::Said(Exit::NotFound as u8));
        }
        answered.notes().into_iter().for_each(|note| out.note(note));
        let who = match network.as_ref().is_none_or(|network| network.silent.is_empty()) {
            true => "of this network",
            false => "that answered",
        };
        let words = format!("no agent and no node {who} has {wanted:?}");
        return Err(Failure::new(Exit::NotFound, "nothing_found", words)
            .next("try fewer words; `dawn agent list` shows every agent that is there"));
    }
    let sought: Vec<String> = wanted.split_whitespace().map(str::to_lowercase).collect();
    out.answer(&answer, |answered: Answer| {
        let notes = answered.notes();
        let mut rows = Rows::new(out.on_terminal(), &["ADDRESS", "STATE", "LATENCY", "HAS", "SERVER"]);
        for found in answered.found {
            rows.row([
                (found.address.clone().unwrap_or_else(|| found.name.clone()), STRONG),
                found.state(),
                plain(words::milliseconds(found.latency_ms.filter(|_| !found.this))),
                plain(has(&found.matches, &sought)),
                (found.title.unwrap_or_default(), FAINT),
            ]);
        }
        out.line(rows.render())?;
        notes.into_iter().for_each(|note| out.note(note));
        Ok(())
    })
}

impl Answer {
    /// How the answer came about, and what keeps it from being whole.
    fn notes(&self) -> Vec<String> {
        let no_member = self.not_member_because.as_deref().map(words::no_member);
        let is_found = !self.found.is_empty();
        let network = self.network.iter().flat_map(|network| network.notes(is_found));
        network.chain(no_member).collect()
    }
}

/// So many names, and how many more there are.
fn names(nodes: &[Named]) -> String {
    const MOST: usize = 8;
    let mut names: Vec<String> = nodes.iter().map(Named::words).collect();
    names.sort();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

impl Network {
    /// Who was asked and who answered, and who says that it has it.
    fn notes(&self, is_found: bool) -> Vec<String> {
        if self.asked == 0 {
            return vec!["nobody else could be asked: this node knows no other member that is there".to_owned()];
        }
        let answered = match self.answered.is_empty() {
            true => "nobody answered".to_owned(),
            false => format!("answered by {}", names(&self.answered)),
        };
        let (asked, hops) = (words::count(self.asked, "request"), words::count(self.hops, "hop"));
        let took = words::milliseconds(Some(self.ms));
        let mut notes = vec![format!("asked the network: {asked}, {hops}, {took}; {answered}")];
        // What a known one has the registry tells: where nothing was found, its word is of earlier.
        let speak = |provider: &&Provider| is_found || !provider.known;
        let (now, earlier): (Vec<_>, Vec<_>) = self.providers.iter().partition(speak);
        let named = |providers: Vec<&Provider>| -> Vec<String> {
            providers.into_iter().map(|provider| provider.node.words()).collect()
        };
        let (now, earlier) = (named(now), named(earlier));
        if !now.is_empty() {
            notes.push(format!("by their own word it is at {}", now.join(", ")));
        }
        if !earlier.is_empty() {
            notes.push(format!("no more, though said some time ago: at {}", earlier.join(", ")));
        }
        if !self.silent.is_empty() {
            notes.push(format!("{} did not answer, and may know more", names(&self.silent)));
        }
        let strange = self.providers.iter().filter(|provider| !provider.known);
        notes.extend(strange.map(|provider| format!("{} could not be met, so it is not shown", provider.node.words())));
        notes
    }
}

/// What was found, each once: a tool by its name, everything else with where it stands.
fn has(matches: &[Match], wanted: &[String]) -> String {
    const MOST: usize = 4;
    let mut texts: Vec<String> = Vec::new();
    for found in matches {
        let text = match found.place.as_str() {
            "tool" => words::one_line(&found.text),
            "description" => format!("description: {}", excerpt(&words::one_line(&found.text), wanted)),
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

/// As much of a long text as a line has room for, around what was found in it first.
fn excerpt(text: &str, wanted: &[String]) -> String {
    // Letters that are shown, and of these so many before what was found.
    const MOST: usize = 60;
    const BEFORE: usize = 20;
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= MOST {
        return text.to_owned();
    }
    // Letter by letter: some small letters are longer than their great ones.
    let small: Vec<char> = letters
        .iter()
        .map(|letter| letter.to_lowercase().next().unwrap_or(*letter))
        .collect();
    let place = |word: &String| {
        let word: Vec<char> = word.chars().collect();
        small.windows(word.len().max(1)).position(|part| part == word)
    };
    let found = wanted.iter().filter_map(place).min().unwrap_or_default();
    let from = found.saturating_sub(BEFORE).min(letters.len() - MOST);
    let shown: String = letters.iter().skip(from).take(MOST).collect();
    let (before, after) = (from > 0, from + MOST < letters.len());
    let mark = |is_cut: bool| if is_cut { "…" } else { "" };
    format!("{}{}{}", mark(before), shown.trim(), mark(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_description_the_part_is_shown_that_was_looked_for() {
        let wanted = ["kettle".to_owned()];
        assert_eq!(excerpt("Boils a Kettle", &wanted), "Boils a Kettle");
        let long = format!("{} the Kettle {}", "before ".repeat(20), "after ".repeat(20));
        let shown = excerpt(&long, &wanted);
        assert!(shown.contains("the Kettle after") && shown.starts_with('…') && shown.ends_with('…'));
        assert!(shown.chars().count() <= 62, "{shown}");
        assert!(excerpt(&long, &["nothing".to_owned()]).starts_with("before"));
    }

    #[test]
    fn how_the_network_was_asked_is_told_with_who_answered_and_who_could_not_be_met() {
        let network = r#"{"asked":3,"hops":1,"ms":12,"answered":[{"id":"12D3a","name":"lab"},{"id":"12D3b","name":null}],"silent":[{"id":"12D3d","name":"desk"}],
            "providers":[{"node":{"id":"12D3a","name":"lab"},"known":true},{"node":{"id":"12D3c","name":null},"known":false}]}"#;
        let network: Network = serde_json::from_str(network).unwrap();
        let wanted = [
            "asked the network: 3 requests, 1 hop, 12 ms; answered by 12D3b, lab",
            "by their own word it is at lab, 12D3c",
            "desk did not answer, and may know more",
            "12D3c could not be met, so it is not shown",
        ];
        assert_eq!(network.notes(true), wanted);
        let gone = network.notes(false);
        assert!(
            gone.contains(&"no more, though said some time ago: at lab".to_owned()),
            "{gone:?}"
        );
        assert!(
            gone.contains(&"by their own word it is at 12D3c".to_owned()),
            "{gone:?}"
        );
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
        assert_eq!(has(&twice, &[]), "add, description: adds two");
        let many: Vec<Match> = (0..6).map(|at| found("tool", &at.to_string())).collect();
        assert_eq!(has(&many, &[]), "0, 1, 2, 3, 2 more");
    }
}
