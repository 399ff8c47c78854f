//! Challenges that wait to be answered: each once, for a short time, one for each device of a network, and a bounded
//! number.

use std::collections::{BTreeMap, HashMap};

use dawn_control_api::Code;
use dawn_control_api::challenge::Challenge;
use dawn_identity::{NetworkId, NodeId, UnixTime};

use crate::refusal::Refusal;

/// What waits to be answered.
#[derive(Debug)]
pub struct Challenges {
    most: usize,
    made: u64,
    /// With the number under which it stands in `order`.
    open: HashMap<(NetworkId, NodeId), (Challenge, u64)>,
    /// The oldest first.
    order: BTreeMap<u64, (NetworkId, NodeId)>,
}

impl Challenges {
    /// Room for `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            made: 0,
            open: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// Adds one, in the place of the one that this device had before. Where there is no room the oldest goes: anybody can
    /// ask for one, so nobody is refused because of others.
    pub fn add(&mut self, challenge: Challenge) {
        let device = (challenge.network, challenge.node);
        self.made += 1;
        if let Some((_, number)) = self.open.insert(device, (challenge, self.made)) {
            self.order.remove(&number);
        }
        self.order.insert(self.made, device);
        while self.open.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.open.remove(&oldest);
        }
    }

    /// Takes one that is answered now; it cannot be answered again.
    ///
    /// # Errors
    /// It is none of those that wait, or its time is over.
    pub fn take(&mut self, challenge: &Challenge, now: UnixTime) -> Result<(), Refusal> {
        let device = (challenge.network, challenge.node);
        let open = self.open.get(&device);
        let number = open.filter(|(open, _)| open == challenge && challenge.expires > now);
        let Some((_, number)) = number else {
            return Err(Refusal::new(Code::ChallengeExpired).next("ask for a new one"));
        };
        self.order.remove(number);
        self.open.remove(&device);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dawn_control_api::challenge::Nonce;
    use dawn_identity::Keypair;

    use super::*;

    fn challenge(node: u8, nonce: u8) -> Challenge {
        Challenge {
            network: Keypair::from_seed([1; 32]).network_id(),
            node: Keypair::from_seed([node; 32]).node_id(),
            name: "laptop".parse().unwrap(),
            nonce: Nonce::from_bytes([nonce; 16]),
            url: "https://control.example".to_owned(),
            expires: UnixTime(100),
        }
    }

    #[test]
    fn a_challenge_is_answered_once_in_time_and_as_it_was_made() {
        let mut challenges = Challenges::new(10);
        challenges.add(challenge(2, 1));
        let other = Challenge {
            name: "other".parse().unwrap(),
            ..challenge(2, 1)
        };
        assert!(challenges.take(&other, UnixTime(1)).is_err());
        assert!(challenges.take(&challenge(2, 1), UnixTime(100)).is_err());
        assert!(challenges.take(&challenge(2, 1), UnixTime(99)).is_ok());
        assert!(challenges.take(&challenge(2, 1), UnixTime(99)).is_err());
        assert!(challenges.order.is_empty() && challenges.open.is_empty());
    }

    #[test]
    fn a_device_has_one_and_the_oldest_make_room() {
        let mut challenges = Challenges::new(2);
        for nonce in 1..=9 {
            challenges.add(challenge(2, nonce));
        }
        challenges.add(challenge(3, 1));
        assert!(challenges.take(&challenge(2, 8), UnixTime(1)).is_err());
        assert!(challenges.take(&challenge(2, 9), UnixTime(1)).is_ok());
        challenges.add(challenge(4, 1));
        challenges.add(challenge(5, 1));
        assert!(challenges.take(&challenge(3, 1), UnixTime(1)).is_err());
        assert!(challenges.take(&challenge(4, 1), UnixTime(1)).is_ok());
        assert_eq!((challenges.open.len(), challenges.order.len()), (1, 1));
    }
}
