//! The side that is asked for a key.

use std::time::Duration;

use ciborium::Value;
use dawn_identity::statement::claims::{fixed, required};
use dawn_identity::statement::{Kind, Signed};
use dawn_identity::{Keypair, UnixTime};
use hmac::Mac;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::request::About;
use super::requester::CONFIRMATION;
use super::{Agreed, Answered, ExchangeError, KeyRequest, check_proof, hash};
use crate::claims;
use crate::dh::Agreement;
use crate::shared_key::SharedKey;

pub(super) const ACCEPTANCE: Kind = Kind::new("application/dawn-key-acceptance+cwt");

/// A node that has accepted a request, and waits for the requester to confirm.
pub struct Acceptor {
    request: KeyRequest,
    agreed: Agreed,
    acceptance: Vec<u8>,
}

impl Acceptor {
    /// Accepts a request; [`Self::acceptance`] is for the requester. `former` is the key that the request renews, if it
    /// does; the new one ends at `key_expires`, or when the requester wants it to, whichever comes first.
    ///
    /// # Errors
    /// [`ExchangeError::UnknownFormerKey`], [`ExchangeError::WrongTimes`], [`ExchangeError::NoAgreement`],
    /// [`ExchangeError::NotForThisNode`] with the identity of another node.
    pub fn accept<R: CryptoRng + ?Sized>(
        identity: &Keypair,
        request: KeyRequest,
        former: Option<&SharedKey>,
        key_expires: UnixTime,
        now: UnixTime,
        rng: &mut R,
    ) -> Result<Self, ExchangeError> {
        let local = identity.node_id();
        if request.offer().peer != local {
            return Err(ExchangeError::NotForThisNode(request.offer().peer));
        }
        let former = match request.former() {
            None => None,
            Some(id) => {
                let is_it = |former: &&SharedKey| {
                    let generation = former.generation.saturating_add(1);
                    former.id == id && former.peer == request.requester() && generation == request.generation()
                };
                Some(former.filter(is_it).ok_or(ExchangeError::UnknownFormerKey(id))?)
            }
        };
        let expires = key_expires.min(request.offer().key_expires);
        if expires <= now {
            return Err(ExchangeError::WrongTimes);
        }
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        let ephemeral = Agreement::new(&secret)?;
        let shared = ephemeral.with(request.ephemeral())?;
        let answered = Answered {
            ephemeral: *ephemeral.public(),
            created: now,
            expires,
        };
        let agreed = Agreed::new(&request, answered, &shared, former);
        let about = About {
            from: local,
            to: request.requester(),
            network: request.offer().network,
            exchange: request.exchange(),
            at: now,
        };
        let proof = agreed.acceptor_mac().finalize().into_bytes().to_vec();
        let set = about
            .claims()?
            .private_claim(claims::EPHEMERAL, Value::Bytes(answered.ephemeral.to_vec()))
            .private_claim(claims::KEY_EXPIRES, Value::Integer(expires.0.into()))
            .private_claim(claims::ANSWERS, Value::Bytes(request.hash().to_vec()))
            .private_claim(claims::PROOF, Value::Bytes(proof))
            .build();
        let acceptance = Signed::sign(ACCEPTANCE, set, identity)?.bytes().to_vec();
        Ok(Self {
            request,
            agreed,
            acceptance,
        })
    }

    /// What was accepted.
    pub fn request(&self) -> &KeyRequest {
        &self.request
    }

    /// The answer for the requester; it may be sent again.
    pub fn acceptance(&self) -> &[u8] {
        &self.acceptance
    }

    /// Reads the requester's confirmation: the key. The exchange is then over. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`ExchangeError`] says what is wrong with it. This acceptor still waits for the right one.
    pub fn read(&self, confirmation: &[u8], now: UnixTime, skew: Duration) -> Result<SharedKey, ExchangeError> {
        let (about, set, _) = About::read(CONFIRMATION, confirmation, now, skew)?;
        let (requester, local) = (self.request.requester(), self.request.offer().peer);
        self.request.check_follows(&about, requester, local)?;
        if required(&set, claims::ANSWERS, fixed, "no valid hash of the acceptance")? != hash(&self.acceptance) {
            return Err(ExchangeError::WrongExchange);
        }
        self.request.check_deadline(now, skew)?;
        let proof = required(&set, claims::PROOF, fixed, "no valid proof")?;
        check_proof(self.agreed.requester_mac(), &proof)?;
        Ok(self.agreed.key(requester))
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
