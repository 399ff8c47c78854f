//! `/api/find`: which agents and nodes can do something, as the registry knows and as the network tells.

use axum::Json;
use axum::extract::{Query, State};
use dawn_identity::NodeId;
use dawn_registry::AgentSummary;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::directory::NodeView;
use crate::lookup::{Provides, Sought};
use crate::node::NodeState;
use crate::time::rfc3339;

/// Matches that are shown of one agent.
const SHOWN: usize = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    capability: String,
    /// Whether the network is asked, too; where it is not said, it is when the registry knows of nothing.
    network: Option<bool>,
}

/// Where a word is.
#[derive(Debug, Clone, PartialEq)]
struct Match {
    place: &'static str,
    text: String,
    weight: f64,
}

/// How much it counts that a text has a word in it: all of it, at its beginning, or anywhere.
fn weight(text: &str, word: &str, most: f64) -> f64 {
    let text = text.to_lowercase();
    match text.find(word) {
        None => 0.0,
        Some(_) if text == word => most,
        Some(0) => most * 0.9,
        Some(_) => most * 0.8,
    }
}

/// Whether a text that is a sentence has a word in it: one as short as `sh` is in too many others.
fn is_said(text: &str, word: &str) -> bool {
    /// Words that are to stand alone are shorter, letters.
    const SHORT: usize = 3;
    let text = text.to_lowercase();
    word.chars().count() >= SHORT
        || text
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|part| part == word)
}

/// How well texts fit all words, from 0 to 1, and where they are; `None` where a word is nowhere.
fn fit(words: &[String], texts: &[(&'static str, &str, f64)]) -> Option<(f64, Vec<Match>)> {
    let (mut total, mut matches) = (0.0, Vec::<Match>::new());
    for word in words {
        let mut best = 0.0;
        for (place, text, most) in texts {
            if *place == "description" && !is_said(text, word) {
                continue;
            }
            let weight = weight(text, word, *most);
            if weight > 0.0 && !matches.iter().any(|known| known.place == *place && known.text == *text) {
                let text = (*text).to_owned();
                matches.push(Match { place, text, weight });
            }
            best = f64::max(best, weight);
        }
        if best == 0.0 {
            return None;
        }
        total += best;
    }
    matches.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    matches.truncate(SHOWN);
    Some((total / words.len() as f64, matches))
}

/// The texts of an agent. Its address counts where one is looked for: every agent of a node has the node's name in it.
fn texts<'a>(agent: &'a AgentSummary, address: &'a str, words: &[String]) -> Vec<(&'static str, &'a str, f64)> {
    let mut texts = vec![("name", agent.name.as_str(), 1.0), ("title", agent.title.as_str(), 0.8)];
    if words.iter().any(|word| word.contains(':')) {
        texts.push(("address", address, 1.0));
    }
    for tool in &agent.tools {
        texts.push(("tool", &tool.name, 0.9));
        texts.push(("description", &tool.description, 0.5));
    }
    texts
}

fn shown(matches: &[Match]) -> Vec<Value> {
    let shown = matches.iter();
    shown
        .map(|found| json!({ "in": found.place, "text": found.text }))
        .collect()
}

fn found(state: &NodeState, view: &NodeView, words: &[String]) -> Vec<(bool, f64, Value)> {
    let said = &view.said;
    let node = json!({ "id": said.node, "name": said.name });
    let is_this = said.node == state.node_id();
    let latency = state.latency_ms(said.node);
    let rounded = |score: f64| (score * 100.0).round() / 100.0;
    let own = fit(words, &[("name", said.name.as_str(), 1.0)]).map(|(score, matches)| {
        let value = json!({
            "kind": "node", "address": null, "node": node, "name": said.name, "title": null, "online": view.online,
            "state": null, "this": is_this, "latency_ms": latency, "score": rounded(score), "matches": shown(&matches),
        });
        (view.online, score, value)
    });
    let agents = said.agents.iter().filter_map(|agent| {
        let address = format!("{}:{}", said.name, agent.name);
        let (score, matches) = fit(words, &texts(agent, &address, words))?;
        let value = json!({
            "kind": "agent", "address": address, "node": node, "name": agent.name,
            "title": agent.title, "online": view.online, "state": agent.state, "this": is_this, "latency_ms": latency,
            "score": rounded(score), "matches": shown(&matches),
        });
        Some((view.online, score, value))
    });
    own.into_iter().chain(agents).collect()
}

pub(super) async fn find(
    State(state): State<NodeState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
    /// Words of one question.
    const WORDS: usize = 16;
    let words: Vec<String> = wanted.capability.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() || words.len() > WORDS {
        let message = format!(
            "what is to be found? It takes 1 to {WORDS} words, and there are {}",
            words.len()
        );
        return Err(ApiError::bad_request(message).next("dawn find read file"));
    }
    let mut found = all(&state, &words);
    let mut network = Value::Null;
    if wanted.network.unwrap_or(found.is_empty()) {
        let sought = state.lookup.find(&words).await;
        network = looked(&state, &sought);
        // Of who was met the registry knows by now.
        found = all(&state, &words);
    }
    Ok(Json(json!({
        "capability": wanted.capability,
        "found": found,
        "network": network,
        "not_member_because": state.members.standing().err(),
    })))
}

/// All that the registry knows of.
fn all(state: &NodeState, words: &[String]) -> Vec<Value> {
    let nodes = state.directory.nodes();
    let mut found: Vec<(bool, f64, Value)> = nodes.iter().flat_map(|view| found(state, view, words)).collect();
    // Who is there first, then what fits best; the sort keeps the order of nodes and agents.
    found.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    found.into_iter().map(|(.., value)| value).collect()
}

/// How the network was asked, and who says that it has something.
fn looked(state: &NodeState, sought: &Sought) -> Value {
    let named = |node: NodeId| json!({ "id": node, "name": state.directory.name_of(node) });
    let provides = |provides: &Provides| {
        json!({
            "node": named(provides.node), "words": provides.words, "known": provides.is_known,
            "said": rfc3339(provides.said), "expires": rfc3339(provides.expires),
        })
    };
    json!({
        "providers": sought.providers.iter().map(provides).collect::<Vec<Value>>(),
        "answered": sought.answered.iter().copied().map(named).collect::<Vec<Value>>(),
        "silent": sought.silent.iter().copied().map(named).collect::<Vec<Value>>(),
        "asked": sought.asked,
        "hops": sought.hops,
        "ms": (sought.took.as_secs_f64() * 1e6).round() / 1e3,
    })
}

#[cfg(test)]
mod tests {
    use dawn_registry::ToolSummary;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_lowercase).collect()
    }

    #[test]
    fn all_words_have_to_be_found_and_a_name_counts_more_than_a_description() {
        let tool = |name: &str, description: &str| ToolSummary {
            name: name.into(),
            description: description.into(),
        };
        let mut calculator = AgentSummary::starting("calculator".parse().unwrap());
        calculator.tools = vec![
            tool("add", "Adds two numbers"),
            tool("sub", "Takes one number from another"),
        ];
        let mut notes = AgentSummary::starting("notes".parse().unwrap());
        notes.tools = vec![tool("write", "Adds a note")];
        let score = |text: &str, agent: &AgentSummary| {
            let words = words(text);
            let address = format!("lab:{}", agent.name);
            fit(&words, &texts(agent, &address, &words)).map(|(score, _)| score)
        };
        assert!(score("ADD numbers", &calculator).is_some());
        assert_eq!(score("add numbers", &notes), None);
        assert!(score("add", &calculator) > score("add", &notes));
        assert_eq!(score("calculator", &calculator), Some(1.0));
        assert_eq!(
            score("LAB:calculator", &calculator),
            Some(1.0),
            "its address is as good as its name"
        );
        assert_eq!(score("lab:calculator", &notes), None);
        assert_eq!(
            score("lab", &notes),
            None,
            "the name of its node alone does not find an agent"
        );
        notes.tools.push(tool("run", "Runs it in a shared place"));
        assert_eq!(score("sh", &notes), None, "a short word is part of many");
        assert!(score("it", &notes).is_some() && score("share", &notes).is_some());
        let (_, matches) = fit(&words("add"), &texts(&calculator, "lab:calculator", &[])).unwrap();
        assert_eq!((matches[0].place, matches[0].text.as_str()), ("tool", "add"));
    }
}
