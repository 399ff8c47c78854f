//! Records: what proves that an output is wrong. One item is opened, with what everybody who was asked signed for it.
//!
//! Who has the model runs that item and knows who is wrong, an accuser included. Who has not believes a side that leads by
//! three, where three of it are believed anyway; or three believed nodes that ran it themselves. What else there is judges
//! nobody.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use dawn_identity::statement::claims::{fixed, number};
use dawn_identity::{NetworkId, NodeId, UnixTime};

use crate::class::{Class, Workload};
use crate::commit::{Opening, Output};
use crate::confirmation::{Confirmation, led};
use crate::draw::{Draw, place};
use crate::id::hash;
use crate::jury::{Jury, LEAD, MAX_JURORS, Voice};
use crate::statement::{MAX_ITEMS, Units};
use crate::vrf::Proof;
use crate::{Job, JobResult, RecordId, Refused};

/// Longest record that is read, bytes. An item too long for it is judged by its requester for itself alone.
pub const MAX_RECORD_BYTES: usize = 64 << 10;
/// Most nodes whose outputs a record opens: the two that differ, the jurors, and the requester itself.
pub(crate) const MAX_TESTIMONY: usize = 2 + MAX_JURORS + 1;

/// What one node gave for the item, with everything that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// What it was asked.
    pub job: Job,
    /// What it signed.
    pub result: JobResult,
    /// What it gave for the item.
    pub output: Output,
    /// Shows the item among the inputs of the job.
    pub asked: Opening,
    /// Shows the output among those of the result; of the same item.
    pub given: Opening,
}

impl Testimony {
    fn worker(&self) -> NodeId {
        self.job.asked().worker
    }

    fn voice(&self) -> Voice {
        Voice {
            node: self.worker(),
            class: self.job.asked().spec.class.clone(),
            output: self.output.clone(),
        }
    }

    fn to_value(&self) -> Value {
        let path =
            |opening: &Opening| Value::Array(opening.path.iter().map(|hash| Value::Bytes(hash.to_vec())).collect());
        Value::Array(vec![
            Value::Bytes(self.job.bytes().to_vec()),
            Value::Bytes(self.result.bytes().to_vec()),
            self.asked.index.into(),
            Value::Bytes(self.output.bytes.clone()),
            self.output.units.input.into(),
            self.output.units.output.into(),
            Value::Bytes(self.asked.blind.to_vec()),
            path(&self.asked),
            Value::Bytes(self.given.blind.to_vec()),
            path(&self.given),
        ])
    }

    fn from_value(value: Value) -> Result<Self, Refused> {
        const MALFORMED: Refused = Refused::Malformed("no valid testimony");
        let parts = value.into_array().map_err(|_| MALFORMED)?;
        let [
            job,
            result,
            index,
            output,
            input_units,
            output_units,
            asked,
            asked_path,
            given,
            given_path,
        ] = parts.as_slice()
        else {
            return Err(MALFORMED);
        };
        let bytes = |value: &Value| value.as_bytes().cloned().ok_or(MALFORMED);
        let index = number(index).ok_or(MALFORMED)?;
        let opening = |blind: &Value, path: &Value| {
            let path = path
                .as_array()
                .filter(|path| path.len() <= MAX_ITEMS.ilog2() as usize)?;
            Some(Opening {
                index,
                blind: fixed(blind)?,
                path: path.iter().map(fixed).collect::<Option<_>>()?,
            })
        };
        Ok(Self {
            job: Job::decode(&bytes(job)?)?,
            result: JobResult::decode(&bytes(result)?)?,
            output: Output {
                bytes: bytes(output)?,
                units: Units {
                    input: number(input_units).ok_or(MALFORMED)?,
                    output: number(output_units).ok_or(MALFORMED)?,
                },
            },
            asked: opening(asked, asked_path).ok_or(MALFORMED)?,
            given: opening(given, given_path).ok_or(MALFORMED)?,
        })
    }
}

/// By what somebody is found to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The item was run here.
    Recomputed,
    /// Believed nodes ran it, and lead by three.
    Confirmed,
    /// Its side is led by three, of which three are believed.
    Led,
}

/// What a record says to its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// These nodes gave a wrong output. It may be nobody.
    Wrong {
        /// Who.
        nodes: Vec<NodeId>,
        /// By what.
        by: Basis,
    },
    /// Nothing yet: confirmations may come.
    Pending,
}

/// A dispute with its openings, of which everything holds that can be seen without the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    proof: Proof,
    input: Vec<u8>,
    testimony: Vec<Testimony>,
    id: RecordId,
    bytes: Vec<u8>,
}

impl Record {
    /// The record of a dispute over `input`: first the result that was checked, with the draw's `proof`, then that of its
    /// verifier, then those of the jurors as they were asked. The requester's own, where it has the model, stands anywhere
    /// behind the first.
    ///
    /// # Errors
    /// [`Refused`] if it would not be read by others.
    pub fn new(network: &NetworkId, proof: Proof, input: Vec<u8>, testimony: Vec<Testimony>) -> Result<Self, Refused> {
        check(network, &proof, &input, &testimony)?;
        let parts = Value::Array(vec![
            Value::Bytes(proof.as_bytes().to_vec()),
            Value::Bytes(input.clone()),
            Value::Array(testimony.iter().map(Testimony::to_value).collect()),
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&parts, &mut bytes).map_err(|_| Refused::Malformed("not to be encoded"))?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(Refused::TooLarge);
        }
        // What is opened follows from the results and the place: signatures and proof, which have many forms, do not count.
        let opened: Vec<u8> = testimony
            .iter()
            .flat_map(|each| [&each.result.id().as_bytes()[..], &each.asked.index.to_be_bytes()].concat())
            .collect();
        Ok(Self {
            proof,
            input,
            testimony,
            id: RecordId::from_bytes(hash("dawn record 1", &[&opened])),
            bytes,
        })
    }

    /// Reads a record of this network and checks everything that needs neither the model nor to know its nodes: that they
    /// are members is for the caller to know ([`Record::nodes`]).
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn decode(bytes: &[u8], network: &NetworkId) -> Result<Self, Refused> {
        const MALFORMED: Refused = Refused::Malformed("not a record");
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(Refused::TooLarge);
        }
        let value: Value = ciborium::de::from_reader_with_recursion_limit(bytes, 8).map_err(|_| MALFORMED)?;
        let parts: [Value; 3] = value
            .into_array()
            .ok()
            .and_then(|parts| parts.try_into().ok())
            .ok_or(MALFORMED)?;
        let [proof, input, testimony] = parts;
        let testimony = testimony.into_array().map_err(|_| MALFORMED)?;
        if testimony.len() > MAX_TESTIMONY {
            return Err(Refused::TooLarge);
        }
        let read = Self::new(
            network,
            Proof::from_bytes(fixed(&proof).ok_or(MALFORMED)?),
            input.into_bytes().map_err(|_| MALFORMED)?,
            testimony
                .into_iter()
                .map(Testimony::from_value)
                .collect::<Result<_, _>>()?,
        )?;
        if read.bytes == bytes {
            Ok(read)
        } else {
            Err(Refused::Malformed("not in its shortest encoding"))
        }
    }

    /// What names it: the same whatever form its signatures and its proof have.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The record, CBOR.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The item, for who has the model.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// The draw by which the first result was checked.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// What everybody gave: first whose result was checked.
    pub fn testimony(&self) -> &[Testimony] {
        &self.testimony
    }

    /// Who asked all of them.
    pub fn requester(&self) -> Option<NodeId> {
        self.testimony.first().map(|first| first.job.asked().requester)
    }

    /// Everybody in it, each once.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.testimony
            .iter()
            .map(Testimony::worker)
            .chain(self.requester())
            .collect()
    }

    /// The latest time in it, as its nodes say.
    pub fn at(&self) -> UnixTime {
        let times = self
            .testimony
            .iter()
            .map(|each| each.job.asked().at.max(each.result.given().at));
        times.max().unwrap_or_default()
    }

    /// Who is wrong: by what came out of the item here, in which class, if it was run; else by confirmations of this record,
    /// else by a lead of believed nodes. `believed`: whom the reader believes, by its own book or for its role.
    pub fn judge<'a>(
        &self,
        recomputed: Option<(&Class, &Output)>,
        believed: &dyn Fn(&NodeId) -> bool,
        confirmed: impl IntoIterator<Item = &'a Confirmation>,
    ) -> Finding {
        let mut voices = self.testimony.iter().map(Testimony::voice);
        let (Some(workload), Some(first), Some(second)) = (self.workload(), voices.next(), voices.next()) else {
            return Finding::Pending;
        };
        if let Some((class, output)) = recomputed
            && first.agrees(workload, class, output).is_some()
        {
            let voices = self.testimony.iter().map(Testimony::voice);
            let wrong = voices.filter(|voice| voice.agrees(workload, class, output) == Some(false));
            let nodes = wrong.map(|voice| voice.node).collect();
            return Finding::Wrong {
                nodes,
                by: Basis::Recomputed,
            };
        }
        // Who gave an output here, or asked for them, has had its say.
        let parties = self.nodes();
        let confirmed = confirmed
            .into_iter()
            .filter(|each| each.said().record == self.id && !parties.contains(&each.said().node));
        let confirmed = confirmed.filter(|each| believed(&each.said().node));
        let confirmed: BTreeMap<NodeId, &Confirmation> = confirmed.map(|each| (each.said().node, each)).collect();
        let workers = self.testimony.iter().map(Testimony::worker);
        if let Some(nodes) = led(workers, &confirmed) {
            let by = Basis::Confirmed;
            return Finding::Wrong { nodes, by };
        }
        let mut jury = Jury::new(workload, first, second);
        for voice in voices {
            jury.hear(voice);
        }
        match jury.leading() {
            Some((side, nodes)) if side.iter().filter(|node| believed(node)).count() >= LEAD => {
                let by = Basis::Led;
                Finding::Wrong { nodes, by }
            }
            _ => Finding::Pending,
        }
    }

    /// What was run; all testimonies are of one workload.
    pub fn workload(&self) -> Option<Workload> {
        self.testimony.first().map(|first| first.job.asked().spec.workload)
    }
}

/// Checks what everybody can.
fn check(network: &NetworkId, proof: &Proof, input: &[u8], testimony: &[Testimony]) -> Result<(), Refused> {
    let [first, _, ..] = testimony else {
        return Err(Refused::Malformed("a dispute of less than two"));
    };
    if testimony.len() > MAX_TESTIMONY {
        return Err(Refused::TooLarge);
    }
    let about = first.job.asked();
    if about.spec.workload == Workload::Generate {
        return Err(Refused::Malformed("texts convict nobody"));
    }
    if first.job.asked().network != *network {
        return Err(Refused::NotForThis("another network"));
    }
    if first.job.asked().requester == first.worker() {
        return Err(Refused::Malformed("a requester that disputes with itself"));
    }
    let mut heard = BTreeSet::new();
    for each in testimony {
        let asked = each.job.asked();
        if (asked.requester, asked.network) != (about.requester, about.network) {
            return Err(Refused::NotForThis("another requester or another network"));
        }
        // What decides an output has to be the same, or an honest one could be made to look wrong.
        if (asked.spec.workload, &asked.spec.options) != (about.spec.workload, &about.spec.options)
            || !asked.spec.class.is_comparable(&about.spec.class, about.spec.workload)
        {
            return Err(Refused::NotForThis("work that cannot be compared"));
        }
        if !heard.insert(asked.worker) {
            return Err(Refused::Malformed("a node that is heard twice"));
        }
        each.result.fits(&each.job)?;
        if each.asked.index != each.given.index {
            return Err(Refused::BadOpening);
        }
        each.asked.shows_input(input, &asked.input)?;
        each.given
            .shows_output(input, &each.output, &each.result.given().output)?;
    }
    let beta = Draw::beta_of(proof, &about.requester, network, &first.result.id())?;
    let asked = testimony.iter().skip(1).map(Testimony::worker);
    let places = asked
        .filter(|node| *node != about.requester)
        .map(|node| place(&beta, &node));
    if places.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(Refused::BadDraw)
    }
}
