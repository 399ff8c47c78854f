//! Commitments to items: to those that go in, by the requester, and to those that come out, by the worker.
//!
//! Each leaf is blinded under a salt that only the two of them have, so that one item can be opened to everybody and says
//! nothing of the others, however few things they could be. The leaf of an output holds its input's hash and what it is
//! counted by as well, so that a dispute over what was counted is one over an item.
//!
//! ```text
//! blind  = SHA-256("dawn blind 1" ‖ 0 ‖ salt ‖ index)
//! input  = leaf(index ‖ blind ‖ SHA-256(input))
//! output = leaf(index ‖ blind ‖ SHA-256(input) ‖ SHA-256(output) ‖ tokens in ‖ tokens out)
//! ```
//! Integers are big-endian: the index of four bytes, tokens of eight.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::id::hash;
use crate::statement::{Committed, MAX_ITEMS, Units};
use crate::tree::{Tree, leads, leaf};
use crate::{Refused, Root};

/// What blinds the leaves of a commitment: random, known to requester and worker alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// The salt of these bytes, which are to be random.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn blind(&self, index: u32) -> [u8; 32] {
        hash("dawn blind 1", &[&self.0, &index.to_be_bytes()])
    }
}

/// Not shown: whoever has it can try what items are.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

/// What came out of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The output: of an embedding its numbers as `f32`, little-endian; of `rerank` one such number; of `generate` text.
    pub bytes: Vec<u8>,
    /// What it is counted by.
    pub units: Units,
}

fn input_leaf(index: u32, blind: &[u8; 32], input: &[u8]) -> [u8; 32] {
    leaf(&[&index.to_be_bytes(), blind, &Sha256::digest(input)])
}

fn output_leaf(index: u32, blind: &[u8; 32], input: &[u8], output: &Output) -> [u8; 32] {
    leaf(&[
        &index.to_be_bytes(),
        blind,
        &Sha256::digest(input),
        &Sha256::digest(&output.bytes),
        &output.units.input.to_be_bytes(),
        &output.units.output.to_be_bytes(),
    ])
}

/// A commitment, with what is needed to open any of its items.
#[derive(Clone, Debug)]
pub struct Commitment {
    salt: Salt,
    tree: Tree,
    committed: Committed,
    units: Units,
}

impl Commitment {
    /// A requester's commitment to what goes in.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] for more than [`MAX_ITEMS`], [`Refused::Malformed`] for none.
    pub fn to_inputs<I: AsRef<[u8]>>(salt: Salt, inputs: &[I]) -> Result<Self, Refused> {
        let leaves = (0..)
            .zip(inputs)
            .map(|(index, input)| input_leaf(index, &salt.blind(index), input.as_ref()));
        let bytes = inputs.iter().map(|input| input.as_ref().len() as u64).sum();
        Self::new(salt, leaves.collect(), bytes, Units::default())
    }

    /// A worker's commitment to what came out of each input.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] for more than [`MAX_ITEMS`] or units beyond what can be counted, [`Refused::Malformed`] for
    /// none, or as many outputs as there are no inputs.
    pub fn to_outputs<I: AsRef<[u8]>>(salt: Salt, inputs: &[I], outputs: &[Output]) -> Result<Self, Refused> {
        if inputs.len() != outputs.len() {
            return Err(Refused::Malformed("another number of outputs than of inputs"));
        }
        let leaves = (0..)
            .zip(inputs.iter().zip(outputs))
            .map(|(index, (input, output))| output_leaf(index, &salt.blind(index), input.as_ref(), output));
        let bytes = outputs.iter().map(|output| output.bytes.len() as u64).sum();
        let units = outputs
            .iter()
            .try_fold(Units::default(), |sum, output| sum.plus(output.units))
            .ok_or(Refused::TooLarge)?;
        Self::new(salt, leaves.collect(), bytes, units)
    }

    fn new(salt: Salt, leaves: Vec<[u8; 32]>, bytes: u64, units: Units) -> Result<Self, Refused> {
        let items = u32::try_from(leaves.len()).ok().filter(|items| *items <= MAX_ITEMS);
        let items = items.ok_or(Refused::TooLarge)?;
        if items == 0 {
            return Err(Refused::Malformed("no items"));
        }
        let tree = Tree::new(leaves);
        let committed = Committed {
            items,
            bytes,
            root: tree.root(),
        };
        Ok(Self {
            salt,
            tree,
            committed,
            units,
        })
    }

    /// What a statement says of it.
    pub fn committed(&self) -> Committed {
        self.committed
    }

    /// The root of its tree.
    pub fn root(&self) -> Root {
        self.committed.root
    }

    /// What all outputs are counted by.
    pub fn units(&self) -> Units {
        self.units
    }

    /// Opens one item; `None` if there is none.
    pub fn open(&self, index: u32) -> Option<Opening> {
        Some(Opening {
            index,
            blind: self.salt.blind(index),
            path: self.tree.path(index)?,
        })
    }
}

/// What shows that an item was committed to, and says nothing of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which item it is, from 0.
    pub index: u32,
    /// What its leaf is blinded with.
    pub blind: [u8; 32],
    /// The hashes beside the way from its leaf to the root, from below.
    pub path: Vec<[u8; 32]>,
}

impl Opening {
    /// Checks that a requester committed to this input.
    ///
    /// # Errors
    /// [`Refused::BadOpening`] if it did not.
    pub fn shows_input(&self, input: &[u8], committed: &Committed) -> Result<(), Refused> {
        self.shows(input_leaf(self.index, &self.blind, input), committed)
    }

    /// Checks that a worker committed to this output of this input.
    ///
    /// # Errors
    /// [`Refused::BadOpening`] if it did not.
    pub fn shows_output(&self, input: &[u8], output: &Output, committed: &Committed) -> Result<(), Refused> {
        self.shows(output_leaf(self.index, &self.blind, input, output), committed)
    }

    fn shows(&self, leaf: [u8; 32], committed: &Committed) -> Result<(), Refused> {
        if leads(leaf, self.index, committed.items, &self.path, &committed.root) {
            Ok(())
        } else {
            Err(Refused::BadOpening)
        }
    }
}
