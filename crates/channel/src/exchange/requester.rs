//! The side that asks for a key.

use std::time::Duration;

use ciborium::Value;
use dawn_identity::statement::claims::{fixed, number, required};
use dawn_identity::statement::{Kind, Signed};
use dawn_identity::{Keypair, UnixTime};
use hmac::Mac;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::acceptor::ACCEPTANCE;
use super::request::About;
use super::{Agreed, Answered, ExchangeError, KeyRequest, Offer, check_proof, hash};
use crate::claims;
use crate::dh::Agreement;
use crate::kdf::Secret;
use crate::shared_key::SharedKey;

pub(super) const CONFIRMATION: Kind = Kind::new("application/dawn-key-confirmation+cwt");

/// A node that has asked for a key.
pub struct Requester {
    request: KeyRequest,
    secret: Secret,
    former: Option<SharedKey>,
}

impl Requester {
    /// Asks for a key; [`Self::request`] is for the peer. With `former`, the new key renews that one.
    ///
    /// # Errors
    /// [`ExchangeError::Oneself`]; [`ExchangeError::WrongTimes`] for a key or a deadline in the past;
    /// [`ExchangeError::WrongPeer`] if `former` is shared with somebody else.
    pub fn begin<R: CryptoRng + ?Sized>(
        identity: &Keypair,
        offer: Offer,
        former: Option<SharedKey>,
        now: UnixTime,
        rng: &mut R,
    ) -> Result<Self, ExchangeError> {
        if identity.node_id() == offer.peer {
            return Err(ExchangeError::Oneself);
        }
        if offer.deadline <= now || offer.key_expires <= now {
            return Err(ExchangeError::WrongTimes);
        }
        if let Some(former) = former.as_ref().filter(|former| former.peer != offer.peer) {
            return Err(ExchangeError::WrongPeer(former.peer));
        }
        let (mut secret, mut exchange) = (Zeroizing::new([0; 32]), [0; 16]);
        rng.fill_bytes(secret.as_mut());
        rng.fill_bytes(&mut exchange);
        let ephemeral = *Agreement::new(&secret)?.public();
        let renewed = former.as_ref().map(|former| (former.id, former.generation));
        let request = KeyRequest::sign(identity, offer, exchange, ephemeral, renewed, now)?;
        Ok(Self {
            request,
            secret,
            former,
        })
    }

    /// What was asked.
    pub fn request(&self) -> &KeyRequest {
        &self.request
    }

    /// Reads the peer's acceptance: the key, and the confirmation for the peer. The exchange is then over for this side.
    /// Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`ExchangeError`] says what is wrong with it. This requester still waits for the right one.
    pub fn read(
        &self,
        identity: &Keypair,
        acceptance: &[u8],
        now: UnixTime,
        skew: Duration,
    ) -> Result<(SharedKey, Vec<u8>), ExchangeError> {
        let request = &self.request;
        let offer = request.offer();
        let (about, set, signed) = About::read(ACCEPTANCE, acceptance, now, skew)?;
        request.check_follows(&about, offer.peer, request.requester())?;
        if required(&set, claims::ANSWERS, fixed, "no valid hash of the request")? != request.hash() {
            return Err(ExchangeError::WrongExchange);
        }
        request.check_deadline(now, skew)?;
        let answered = Answered {
            ephemeral: required(&set, claims::EPHEMERAL, fixed, "no valid ephemeral key")?,
            created: about.at,
            expires: required(&set, claims::KEY_EXPIRES, number, "no valid end of the key").map(UnixTime)?,
        };
        if answered.expires > offer.key_expires
            || answered.expires <= now
            || answered.created + skew < request.made_at()
        {
            return Err(ExchangeError::WrongTimes);
        }
        let shared = Agreement::new(&self.secret)?.with(&answered.ephemeral)?;
        let agreed = Agreed::new(request, answered, &shared, self.former.as_ref());
        let proof = required(&set, claims::PROOF, fixed, "no valid proof")?;
        check_proof(agreed.acceptor_mac(), &proof)?;
        let confirmation = About {
            from: request.requester(),
            to: offer.peer,
            network: offer.network,
            exchange: request.exchange(),
            at: now,
        };
        let proof = agreed.requester_mac().finalize().into_bytes().to_vec();
        let set = confirmation
            .claims()?
            .private_claim(claims::ANSWERS, Value::Bytes(hash(signed.bytes()).to_vec()))
            .private_claim(claims::PROOF, Value::Bytes(proof))
            .build();
        let confirmation = Signed::sign(CONFIRMATION, set, identity)?;
        Ok((agreed.key(offer.peer), confirmation.bytes().to_vec()))
    }
}

impl std::fmt::Debug for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requester")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
