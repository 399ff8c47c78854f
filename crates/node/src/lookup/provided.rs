//! What this node provides, as keys, and when it is said.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use dawn_identity::NodeName;
use dawn_kademlia::Key;
use dawn_registry::AgentSummary;

/// Keys that a node provides.
const MOST: usize = 256;
/// Between two of them: each is two requests to each of its keepers, which answer so many a second.
const BETWEEN: Duration = Duration::from_millis(125);
/// What nobody kept is said again after this.
const RETRY: Duration = Duration::from_secs(60);
/// When the table has grown, everything is said again after this: it may grow on.
const SETTLE: Duration = Duration::from_secs(10);
/// Shortest and longest word that something is found by, bytes.
const WORD: std::ops::RangeInclusive<usize> = 2..=64;

/// The words of a text, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| WORD.contains(&word.len())).map(str::to_lowercase)
}

/// Under which keys a node and its agents are found: names first, then single words.
pub(super) fn keys(node: &NodeName, agents: &[AgentSummary]) -> Vec<Key> {
    let mut keys = vec![Key::capability(node.as_str())];
    for agent in agents {
        keys.push(Key::agent(&agent.name));
        keys.push(Key::capability(&format!("{node}:{}", agent.name)));
    }
    let tools = || agents.iter().flat_map(|agent| &agent.tools);
    keys.extend(tools().map(|tool| Key::capability(&tool.name)));
    let texts = agents.iter().flat_map(|agent| [agent.name.as_str(), &agent.title]);
    let texts = texts.chain(tools().map(|tool| tool.name.as_str()));
    keys.extend(texts.flat_map(words).map(|word| Key::capability(&word)));
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(*key));
    keys.truncate(MOST);
    keys
}

/// What is provided, and what of it is to be said when.
#[derive(Debug, Default)]
pub(super) struct Provided {
    wanted: BTreeSet<Key>,
    /// What is to be said now, one after the other.
    queue: VecDeque<Key>,
    /// When the next may be.
    next: Duration,
    /// What is to be said again, and when.
    again: BTreeSet<Key>,
    again_at: Duration,
    /// How many members the table had when it was said.
    members: usize,
}

impl Provided {
    /// From now on it is this; gives what is provided no more.
    pub(super) fn set(&mut self, keys: Vec<Key>) -> Vec<Key> {
        let wanted: BTreeSet<Key> = keys.iter().copied().collect();
        let gone: Vec<Key> = self.wanted.difference(&wanted).copied().collect();
        self.queue.retain(|key| wanted.contains(key));
        self.again.retain(|key| wanted.contains(key));
        self.queue
            .extend(keys.into_iter().filter(|key| !self.wanted.contains(key)));
        self.wanted = wanted;
        gone
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// What was said is kept by so many.
    pub(super) fn kept(&mut self, key: Key, keepers: usize, now: Duration) {
        if keepers == 0 && self.wanted.contains(&key) {
            self.say_again(BTreeSet::from([key]), now + RETRY);
        }
    }

    fn say_again(&mut self, mut keys: BTreeSet<Key>, at: Duration) {
        self.again_at = if self.again.is_empty() {
            at
        } else {
            self.again_at.min(at)
        };
        self.again.append(&mut keys);
    }

    /// The next key that is to be said, where there are members to say it to.
    pub(super) fn take(&mut self, members: usize, now: Duration) -> Option<Key> {
        if self.members > 0 && members >= 2 * self.members {
            // Of those who came since some are closer to what was said than those who keep it.
            self.members = members;
            self.say_again(self.wanted.clone(), now + SETTLE);
        }
        if now >= self.again_at {
            let queue = &self.queue;
            let again: Vec<Key> = self.again.iter().filter(|key| !queue.contains(key)).copied().collect();
            self.queue.extend(again);
            self.again.clear();
        }
        if members == 0 || now < self.next {
            return None;
        }
        let key = self.queue.pop_front()?;
        if self.members == 0 {
            self.members = members;
        }
        self.next = now + BETWEEN;
        Some(key)
    }

    /// When [`Provided::take`] may have something to give, if there are members.
    pub(super) fn due(&self) -> Option<Duration> {
        let next = (!self.queue.is_empty()).then_some(self.next);
        let again = (!self.again.is_empty()).then_some(self.again_at);
        next.into_iter().chain(again).min()
    }
}

#[cfg(test)]
mod tests {
    use dawn_registry::ToolSummary;

    use super::*;

    fn thing(number: usize) -> Key {
        Key::capability(&number.to_string())
    }

    /// What is said until then.
    fn said(provided: &mut Provided, members: usize, until: Duration) -> Vec<Key> {
        let mut said = Vec::new();
        while let Some(at) = provided.due().filter(|at| *at <= until) {
            match provided.take(members, at) {
                Some(key) => said.push(key),
                None if provided.due() == Some(at) => break,
                None => {}
            }
        }
        said
    }

    #[test]
    fn an_agent_is_found_by_its_name_its_address_its_tools_and_their_words() {
        let mut files = AgentSummary::starting("files".parse().unwrap());
        files.title = "Local Disk".to_owned();
        files.tools = vec![ToolSummary {
            name: "read_file".to_owned(),
            description: "Reads one".to_owned(),
        }];
        let keys = keys(&"lab".parse().unwrap(), &[files]);
        assert!(keys.contains(&Key::agent(&"files".parse().unwrap())));
        for word in ["lab", "lab:files", "read_file", "read", "file", "files", "disk"] {
            assert!(keys.contains(&Key::capability(word)), "{word}");
        }
        assert!(
            !keys.contains(&Key::capability("one")),
            "a description is the registry's"
        );
        assert_eq!(keys.len(), 9, "each once");
    }

    #[test]
    fn of_many_agents_the_names_come_first() {
        let agent = |at: usize| {
            let mut agent = AgentSummary::starting(format!("agent-{at}").parse().unwrap());
            agent.title = format!("title{at} more{at}");
            agent
        };
        let agents: Vec<AgentSummary> = (0..120).map(agent).collect();
        let keys = keys(&"lab".parse().unwrap(), &agents);
        assert_eq!(keys.len(), MOST);
        assert!(agents.iter().all(|agent| keys.contains(&Key::agent(&agent.name))));
    }

    #[test]
    fn what_is_provided_is_said_bit_by_bit_and_only_where_somebody_hears_it() {
        let mut provided = Provided::default();
        assert!(provided.set((0..9).map(thing).collect()).is_empty());
        assert_eq!(provided.take(0, Duration::ZERO), None);
        let second = Duration::from_secs(1);
        let first = said(&mut provided, 3, second);
        assert_eq!(first.len(), 9);
        assert_eq!(provided.next, second + BETWEEN, "eight a second");
        assert_eq!(provided.due(), None);
        assert_eq!(provided.set((1..10).map(thing).collect()), [thing(0)]);
        assert_eq!(said(&mut provided, 3, 2 * second), [thing(9)]);
    }

    #[test]
    fn it_is_said_again_when_nobody_kept_it_and_when_the_table_has_doubled() {
        let mut provided = Provided::default();
        provided.set((0..3).map(thing).collect());
        let at = Duration::from_secs(1);
        assert_eq!(said(&mut provided, 2, at).len(), 3);
        provided.kept(thing(1), 0, at);
        provided.kept(thing(2), 1, at);
        assert_eq!(said(&mut provided, 3, at + RETRY - BETWEEN), []);
        assert_eq!(said(&mut provided, 3, at + RETRY), [thing(1)]);
        let at = Duration::from_secs(100);
        assert_eq!(provided.take(4, at), None);
        assert_eq!(provided.due(), Some(at + SETTLE));
        assert_eq!(said(&mut provided, 4, at + 2 * SETTLE).len(), 3);
        assert_eq!(provided.take(7, at + 3 * SETTLE), None);
        assert_eq!(provided.due(), None);
    }
}
