//! The jury: two nodes differ in an item, and others are asked for it until one side leads by three.
//!
//! A side are outputs that agree with the first of them. An output that agrees with more than one side stands between them
//! and says nothing: who moves its output to the border of the tolerance makes a dispute undecided, and convicts nobody.

use dawn_identity::NodeId;

use crate::class::{Class, Workload};
use crate::commit::Output;
use crate::compare::distance;

/// By how many a side has to lead.
pub const LEAD: usize = 3;
/// Most jurors, beside the two that differ.
pub const MAX_JURORS: usize = 7;

/// A node and what it gave for the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Who gave it.
    pub node: NodeId,
    /// What was computed with.
    pub class: Class,
    /// The output.
    pub output: Output,
}

impl Voice {
    /// Whether the two agree; `None` where they cannot be compared.
    pub(crate) fn agrees(&self, workload: Workload, class: &Class, output: &Output) -> Option<bool> {
        distance(workload, (&self.class, &self.output), (class, output)).map(|by| by <= 1.0)
    }
}

/// How a jury stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next juror is to be asked.
    Ask,
    /// One side leads: these nodes gave something else than it.
    Wrong(Vec<NodeId>),
    /// As many were asked as may be, and nobody is judged.
    Undecided,
}

/// A dispute over one item, with what everybody gave for it.
#[derive(Clone, Debug)]
pub struct Jury {
    workload: Workload,
    sides: Vec<Vec<Voice>>,
    /// Those that stand between sides, or cannot be compared.
    between: Vec<NodeId>,
}

impl Jury {
    /// The dispute of two nodes.
    pub fn new(workload: Workload, first: Voice, second: Voice) -> Self {
        let mut jury = Self {
            workload,
            sides: vec![vec![first]],
            between: Vec::new(),
        };
        jury.hear(second);
        jury
    }

    /// Hears one more node; who was heard before says nothing new.
    pub fn hear(&mut self, voice: Voice) -> Step {
        if !self.nodes().any(|node| *node == voice.node) {
            let mut agree = Vec::new();
            for (at, side) in self.sides.iter().enumerate() {
                match side
                    .first()
                    .and_then(|first| first.agrees(self.workload, &voice.class, &voice.output))
                {
                    Some(true) => agree.push(at),
                    Some(false) => {}
                    None => {
                        self.between.push(voice.node);
                        return self.step();
                    }
                }
            }
            match agree.as_slice() {
                [] => self.sides.push(vec![voice]),
                [at] => {
                    if let Some(side) = self.sides.get_mut(*at) {
                        side.push(voice);
                    }
                }
                _ => self.between.push(voice.node),
            }
        }
        self.step()
    }

    /// How it stands.
    pub fn step(&self) -> Step {
        match self.leading() {
            Some((_, wrong)) => Step::Wrong(wrong),
            None if self.nodes().count() >= 2 + MAX_JURORS => Step::Undecided,
            None => Step::Ask,
        }
    }

    /// The side that leads by three, and who stands on another.
    pub(crate) fn leading(&self) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let (best, side) = self.sides.iter().enumerate().max_by_key(|(_, side)| side.len())?;
        let others = || {
            self.sides
                .iter()
                .enumerate()
                .filter(move |(at, _)| *at != best)
                .map(|(_, side)| side)
        };
        let second = others().map(Vec::len).max().unwrap_or(0);
        let nodes = |side: &Vec<Voice>| side.iter().map(|voice| voice.node).collect::<Vec<_>>();
        (side.len() >= second + LEAD).then(|| (nodes(side), others().flat_map(nodes).collect()))
    }

    /// Who gave something else than one's own engine: its owner needs no jury.
    pub fn against(&self, class: &Class, output: &Output) -> Vec<NodeId> {
        let voices = self.sides.iter().flatten();
        let wrong = voices.filter(|voice| voice.agrees(self.workload, class, output) == Some(false));
        wrong.map(|voice| voice.node).collect()
    }

    /// Who was heard.
    fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.sides
            .iter()
            .flatten()
            .map(|voice| &voice.node)
            .chain(&self.between)
    }
}
