//! Challenges that wait to be answered: each once, for a short time, and a bounded number.

use std::collections::{BTreeMap, HashMap};

use dawn_control_api::Code;
use dawn_control_api::challenge::{Challenge, Nonce};
use dawn_identity::UnixTime;

use crate::refusal::Refusal;

/// What waits to be answered.
#[derive(Debug)]
pub struct Challenges {
    most: usize,
    open: HashMap<Nonce, Challenge>,
    until: BTreeMap<(UnixTime, Nonce), ()>,
}

impl Challenges {
    /// Room for `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            open: HashMap::new(),
            until: BTreeMap::new(),
        }
    }

    /// Adds one.
    ///
    /// # Errors
    /// There is no room.
    pub fn add(&mut self, challenge: Challenge, now: UnixTime) -> Result<(), Refusal> {
        while let Some(((expires, nonce), ())) = self.until.first_key_value() {
            if *expires > now {
                break;
            }
            self.open.remove(nonce);
            self.until.pop_first();
        }
        if self.open.len() >= self.most {
            return Err(Refusal::because(Code::Busy, "too many registrations are going on").after(10));
        }
        self.until.insert((challenge.expires, challenge.nonce), ());
        self.open.insert(challenge.nonce, challenge);
        Ok(())
    }

    /// Takes one that is answered now; it cannot be answered again.
    ///
    /// # Errors
    /// It is none of those that wait, or its time is over.
    pub fn take(&mut self, challenge: &Challenge, now: UnixTime) -> Result<(), Refusal> {
        let is_open = self.open.get(&challenge.nonce) == Some(challenge) && challenge.expires > now;
        if !is_open {
            return Err(Refusal::new(Code::ChallengeExpired).next("ask for a new one"));
        }
        self.open.remove(&challenge.nonce);
        self.until.remove(&(challenge.expires, challenge.nonce));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    fn challenge(nonce: u8, expires: u64) -> Challenge {
        Challenge {
            network: Keypair::from_seed([1; 32]).network_id(),
            node: Keypair::from_seed([2; 32]).node_id(),
            name: "laptop".parse().unwrap(),
            nonce: Nonce::from_bytes([nonce; 16]),
            url: "https://control.example".to_owned(),
            expires: UnixTime(expires),
        }
    }

    #[test]
    fn a_challenge_is_answered_once_in_time_and_as_it_was_made() {
        let mut challenges = Challenges::new(10);
        challenges.add(challenge(1, 100), UnixTime(1)).unwrap();
        let other = Challenge {
            name: "other".parse().unwrap(),
            ..challenge(1, 100)
        };
        assert!(challenges.take(&other, UnixTime(1)).is_err());
        assert!(challenges.take(&challenge(1, 100), UnixTime(100)).is_err());
        assert!(challenges.take(&challenge(1, 100), UnixTime(99)).is_ok());
        assert!(challenges.take(&challenge(1, 100), UnixTime(99)).is_err());
    }

    #[test]
    fn those_that_were_never_answered_make_room() {
        let mut challenges = Challenges::new(2);
        challenges.add(challenge(1, 100), UnixTime(1)).unwrap();
        challenges.add(challenge(2, 100), UnixTime(1)).unwrap();
        assert_eq!(
            challenges.add(challenge(3, 100), UnixTime(1)).unwrap_err().code,
            Code::Busy
        );
        challenges.add(challenge(3, 200), UnixTime(100)).unwrap();
        assert_eq!((challenges.open.len(), challenges.until.len()), (1, 1));
    }
}
