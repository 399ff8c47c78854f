//! What this node and a member say differently: `/dawn/registry/diff/1`, members only. For a person to look at; nothing is
//! changed by it.
//!
//! The asker sends the ids of all heads that it has, node by node; the other answers with what it knows of the nodes of
//! which it has others. Both are JSON behind a length of four bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use data_encoding::HEXLOWER;
use dawn_identity::{NodeId, UnixTime};
use dawn_mcp::fault::{Fault, FaultCode};
use dawn_mesh::{Inbound, Incoming, MeshStream, Protocol};
use dawn_registry::delta::{Element, Key};
use dawn_registry::head::Head;
use dawn_registry::set::{Clock, Dot};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Directory;

/// What differs is told over it.
pub(crate) const DIFF: Protocol = Protocol("/dawn/registry/diff/1");
/// Longest question and longest answer, bytes.
const MOST: usize = 8 << 20;
/// Bytes of an answer before the rest is left out.
const FULL: usize = 4 << 20;
/// Heads of one node, and incarnations in one head, that are read: no honest member tells more.
const HEADS: usize = 4;
const INCARNATIONS: usize = 16;
/// Question and answer come within this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything that is known of one node.
#[derive(Debug, Clone)]
pub struct Held {
    /// The node.
    pub node: NodeId,
    /// What it signed, the most recent last.
    pub heads: Vec<Head>,
    /// What that says, by key and dot, whether or not it has expired.
    pub elements: Vec<Element>,
}

/// A head, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadLine {
    /// Its id, hexadecimal.
    pub id: String,
    /// Below this epoch everything is covered by its clock.
    pub floor: u64,
    /// Epoch and last sequence of each incarnation.
    #[serde(deserialize_with = "few::<_, _, INCARNATIONS>")]
    pub incarnations: Vec<(u64, u64)>,
    /// When it was signed.
    pub signed: u64,
    /// From when on it does not count.
    pub expires: u64,
}

/// An entry, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryLine {
    /// `node`, or `agent:NAME`.
    pub key: String,
    /// Epoch and sequence of its write.
    pub dot: (u64, u64),
    /// The SHA-256 of its value, hexadecimal.
    pub hash: String,
}

/// What somebody has of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Its heads.
    #[serde(deserialize_with = "few::<_, _, HEADS>")]
    pub heads: Vec<HeadLine>,
    /// Its entries.
    pub entries: Vec<EntryLine>,
}

/// How two differ in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// This node knows nothing of it.
    MissingHere,
    /// The other knows nothing of it.
    MissingThere,
    /// The other has seen more.
    OlderHere,
    /// This node has seen more.
    OlderThere,
    /// Each has seen what the other has not.
    Concurrent,
}

/// A node of which two say different things.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The node.
    pub node: NodeId,
    /// How.
    pub how: How,
    /// What is known here.
    pub here: Lines,
    /// What is known there.
    pub there: Lines,
}

/// What came of a comparison.
#[derive(Debug, Clone)]
pub struct Compared {
    /// How many heads there are here, and there.
    pub heads: (u64, u64),
    /// The nodes of which something else is known.
    pub differences: Vec<Difference>,
    /// Whether there are more than were told.
    pub more: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Question {
    /// The ids of the heads of each node.
    heads: Vec<(NodeId, Ids)>,
}

/// The ids of the heads of one node, in order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ids(#[serde(deserialize_with = "few::<_, _, HEADS>")] Vec<String>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    heads: u64,
    more: bool,
    nodes: Vec<(NodeId, Lines)>,
}

/// A list of at most so many; of a longer one no more is read.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(list: D) -> Result<Vec<T>, D::Error> {
    struct Few<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(next) = list.next_element()? {
                if read.len() >= MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                read.push(next);
            }
            Ok(read)
        }
    }

    list.deserialize_seq(Few::<T, MOST>(PhantomData))
}

/// `node`, or `agent:NAME`.
#[must_use]
pub fn key_name(key: &Key) -> String {
    match key {
        Key::Node => "node".to_owned(),
        Key::Agent(name) => format!("agent:{name}"),
    }
}

fn pair(dot: &Dot) -> (u64, u64) {
    (dot.epoch, dot.sequence)
}

impl From<&Head> for HeadLine {
    fn from(head: &Head) -> Self {
        Self {
            id: HEXLOWER.encode(&head.id().0),
            floor: head.clock().floor(),
            incarnations: head.clock().last().iter().map(pair).collect(),
            signed: head.time().0,
            expires: head.expires().0,
        }
    }
}

impl HeadLine {
    fn clock(&self) -> Clock {
        let dot = |&(epoch, sequence): &(u64, u64)| Dot { epoch, sequence };
        Clock::from_parts(self.floor, self.incarnations.iter().map(dot)).unwrap_or_default()
    }
}

impl From<&Element> for EntryLine {
    fn from(element: &Element) -> Self {
        Self {
            key: key_name(&element.key),
            dot: pair(&element.dot),
            hash: HEXLOWER.encode(element.value.hash()),
        }
    }
}

impl From<&Held> for Lines {
    fn from(held: &Held) -> Self {
        Self {
            heads: held.heads.iter().map(HeadLine::from).collect(),
            entries: held.elements.iter().map(EntryLine::from).collect(),
        }
    }
}

impl Lines {
    fn clock(&self) -> Clock {
        let clocks = self.heads.iter().map(HeadLine::clock);
        clocks.fold(Clock::default(), |joined, clock| joined.join(&clock))
    }
}

fn how(here: &Lines, there: &Lines) -> How {
    if here.heads.is_empty() {
        return How::MissingHere;
    }
    if there.heads.is_empty() {
        return How::MissingThere;
    }
    let (ours, theirs) = (here.clock(), there.clock());
    match (ours.includes(&theirs), theirs.includes(&ours)) {
        (true, false) => How::OlderThere,
        (false, true) => How::OlderHere,
        _ => How::Concurrent,
    }
}

fn ids(held: &Held) -> Ids {
    let mut ids: Vec<String> = held.heads.iter().map(|head| HEXLOWER.encode(&head.id().0)).collect();
    ids.sort();
    Ids(ids)
}

fn count(held: &[Held]) -> u64 {
    held.iter().map(|held| held.heads.len() as u64).sum()
}

/// What is told to who has these heads.
fn answer(held: &[Held], question: Question) -> Answer {
    let mut theirs: BTreeMap<NodeId, Ids> = question.heads.into_iter().collect();
    theirs.values_mut().for_each(|ids| ids.0.sort());
    let mut answer = Answer {
        heads: count(held),
        ..Answer::default()
    };
    let differs = |held: &&Held| theirs.get(&held.node) != Some(&ids(held));
    let told = held.iter().filter(differs).map(|held| (held.node, Lines::from(held)));
    let known = |node: &NodeId| held.binary_search_by_key(node, |held| held.node).is_ok();
    let missing = theirs
        .keys()
        .filter(|node| !known(node))
        .map(|node| (*node, Lines::default()));
    let mut size = 0;
    for (node, lines) in told.chain(missing) {
        // About what a line takes.
        size += 128 + lines.heads.len() * 256 + lines.entries.len() * 192;
        if size > FULL {
            answer.more = true;
            break;
        }
        answer.nodes.push((node, lines));
    }
    answer
}

async fn write(stream: &mut MeshStream, value: &impl Serialize) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    if bytes.len() > MOST {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    stream
        .write_u32(u32::try_from(bytes.len()).map_err(std::io::Error::other)?)
        .await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn read<T: DeserializeOwned>(stream: &mut MeshStream) -> std::io::Result<T> {
    let length = stream.read_u32().await? as usize;
    if length > MOST {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    let mut bytes = Vec::new();
    // Only what comes takes memory.
    let read = (&mut *stream).take(length as u64).read_to_end(&mut bytes).await?;
    if read < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

impl Directory {
    /// Everything that is known, by node; of one node only, if asked so. What has expired is among it.
    pub async fn held(&self, only: Option<NodeId>) -> Vec<Held> {
        let book = self.book().await;
        // At the beginning of time nothing has expired.
        let begin = UnixTime(0);
        let views: Vec<_> = match only {
            Some(node) => book.replica.node(&node, begin).into_iter().collect(),
            None => book.replica.nodes(begin).collect(),
        };
        let held = views.into_iter().map(|view| Held {
            node: view.node,
            heads: book.replica.heads(&view.node).cloned().collect(),
            elements: view.elements().to_vec(),
        });
        held.collect()
    }

    /// What this node and a member say differently, asked over a stream of `DIFF` to it.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn compare(&self, mut stream: MeshStream) -> Result<Compared, Fault> {
        let held = self.held(None).await;
        let question = Question {
            heads: held.iter().map(|held| (held.node, ids(held))).collect(),
        };
        let asked = async {
            write(&mut stream, &question).await?;
            read::<Answer>(&mut stream).await
        };
        let broken = |error| {
            let words = format!("its answer did not come: {error}");
            Fault::new(FaultCode::NodeOffline, words)
        };
        let late = |_| Fault::new(FaultCode::Timeout, "it does not answer in time".to_owned());
        let answer = timeout(PATIENCE, asked).await.map_err(late)?.map_err(broken)?;
        let difference = |(node, there): (NodeId, Lines)| {
            let here = held.binary_search_by_key(&node, |held| held.node).ok();
            let here = here.and_then(|at| held.get(at)).map(Lines::from).unwrap_or_default();
            Difference {
                node,
                how: how(&here, &there),
                here,
                there,
            }
        };
        Ok(Compared {
            heads: (count(&held), answer.heads),
            differences: answer.nodes.into_iter().map(difference).collect(),
            more: answer.more,
        })
    }

    /// Tells members what differs, until the mesh ends.
    pub(crate) async fn tell_differences(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let Some(share) = self.may_be_asked(peer.node) else {
                continue;
            };
            let directory = self.clone();
            self.0.tasks.spawn(async move {
                let told = async {
                    let question = read(&mut stream).await?;
                    let answer = answer(&directory.held(None).await, question);
                    write(&mut stream, &answer).await
                };
                match timeout(PATIENCE, told).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, from = %peer.node, "a question for differences broke off");
                    }
                    Err(_) => tracing::debug!(from = %peer.node, "a question for differences took too long"),
                }
                drop(share);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(clock: &[(u64, u64)]) -> Lines {
        let head = HeadLine {
            id: String::new(),
            floor: 0,
            incarnations: clock.to_vec(),
            signed: 1,
            expires: 2,
        };
        Lines {
            heads: vec![head],
            entries: Vec::new(),
        }
    }

    #[test]
    fn who_has_seen_more_is_told_by_the_clocks() {
        let (old, new) = (lines(&[(5, 1)]), lines(&[(5, 2)]));
        assert_eq!(how(&old, &new), How::OlderHere);
        assert_eq!(how(&new, &old), How::OlderThere);
        assert_eq!(how(&Lines::default(), &new), How::MissingHere);
        assert_eq!(how(&new, &Lines::default()), How::MissingThere);
        assert_eq!(how(&lines(&[(5, 2)]), &lines(&[(5, 1), (6, 1)])), How::Concurrent);
        assert_eq!(how(&new, &new), How::Concurrent, "other heads of one clock");
    }

    #[test]
    fn of_nodes_that_the_other_does_not_know_it_says_so() {
        let node = NodeId::from_bytes([1; 32]);
        let question = Question {
            heads: vec![(node, Ids(vec!["00".to_owned()]))],
        };
        let told = answer(&[], question);
        assert_eq!(told.nodes, [(node, Lines::default())]);
        assert!(answer(&[], Question::default()).nodes.is_empty() && !told.more);
    }

    #[test]
    fn of_one_node_no_more_is_read_than_an_honest_member_tells() {
        let read = |count: usize| serde_json::from_value::<Ids>(serde_json::json!(vec![""; count]));
        assert_eq!(read(HEADS).unwrap().0.len(), HEADS);
        assert!(read(HEADS + 1).is_err());
        let read = |lines: &Lines| serde_json::from_value::<Lines>(serde_json::json!(lines));
        let most = vec![(1, 1); INCARNATIONS];
        let (fits, too_long) = (lines(&most), lines(&[&most[..], &[(2, 1)]].concat()));
        assert_eq!(read(&fits).unwrap(), fits);
        assert!(read(&too_long).is_err());
        let heads = vec![fits.heads[0].clone(); HEADS + 1];
        let too_many = Lines {
            heads,
            entries: Vec::new(),
        };
        assert!(read(&too_many).is_err());
    }
}
