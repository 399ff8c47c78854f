//! The gate of a relay's process: its networks, its tokens, and the revocations that it has heard of.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use data_encoding::HEXLOWER;
use dawn_identity::{
    Added, CertificateChain, NetworkId, NodeId, RelayQuota, RelayToken, Revocation, Revocations, Roles, UnixTime,
    VerifiedRevocation,
};
use sha2::{Digest as _, Sha256};

use crate::config::{self, Config, ConfigError, StaticToken};
use crate::desk::{Grant, Holder, Link};
use crate::gate::{Denied, Gate, Verdict};
use crate::kept::{self, Keeper};
use crate::server::lock;
use crate::token::Shown;

/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);
/// Kept revocations were in time when they came; a clock that is behind now makes them no less true.
const WHENEVER: UnixTime = UnixTime(u64::MAX);

/// The rules of a relay's process.
#[derive(Debug)]
pub(crate) struct Operator {
    rules: RwLock<Rules>,
    /// Adds to the file of revocations, one at a time.
    keeper: Mutex<Keeper>,
}

#[derive(Debug, Default)]
struct Rules {
    networks: HashMap<NetworkId, Known>,
    /// By their hashes: who guesses a token does not choose what it is compared with.
    tokens: HashMap<[u8; 32], StaticToken>,
    refused_serials: HashSet<String>,
}

/// What is known of a network.
#[derive(Debug, Default, Clone)]
struct Known {
    revocations: Revocations,
    /// SHA-256 of each: one that comes again is not verified again.
    digests: HashSet<[u8; 32]>,
}

impl Known {
    fn add(&mut self, revocation: VerifiedRevocation) -> Added {
        let digest = digest(revocation.as_revocation());
        let added = self.revocations.add(revocation);
        if added != Added::Full {
            self.digests.insert(digest);
        }
        added
    }
}

fn digest(revocation: &Revocation) -> [u8; 32] {
    Sha256::digest(revocation.encode()).into()
}

fn denied(code: &'static str, reason: &(impl ToString + ?Sized)) -> Denied {
    Denied {
        code,
        reason: reason.to_string(),
    }
}

/// The first of these networks that stands behind a revocation, with what it stands behind.
fn verify<'a>(
    revocation: &Revocation,
    networks: impl Iterator<Item = &'a NetworkId>,
    now: UnixTime,
) -> Option<(NetworkId, VerifiedRevocation)> {
    let mut networks = networks;
    networks.find_map(|network| Some((*network, revocation.clone().verify(network, now, SKEW).ok()?)))
}

impl Operator {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let operator = Self {
            rules: RwLock::default(),
            keeper: Mutex::new(Keeper::new(config.revocations.clone())),
        };
        operator.reload(config)?;
        Ok(operator)
    }

    /// Takes the networks and tokens of a configuration in the place of those before, and its revocations beside those that
    /// are known of networks that stay.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        let kept = kept::read(&config.revocations)?;
        if kept.is_cut_off {
            tracing::warn!(path = %config.revocations.display(), "the last line was cut off and is left out");
        }
        let verified = |revocation: &Revocation| verify(revocation, config.networks.iter(), WHENEVER);
        let verified: Vec<_> = kept.revocations.iter().filter_map(verified).collect();
        {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            let mut before = std::mem::take(&mut rules.networks);
            for network in &config.networks {
                let known = before.remove(network).unwrap_or_default();
                rules.networks.insert(*network, known);
            }
            for (network, revocation) in verified {
                let known = rules.networks.get_mut(&network);
                if known.is_some_and(|known| known.add(revocation) == Added::Full) {
                    tracing::warn!(%network, "a kept revocation is one too many of its admin and does not hold");
                }
            }
            let tokens = config.tokens.iter();
            rules.tokens = tokens.map(|token| (token.hash, token.clone())).collect();
            rules.refused_serials = config.refused_serials.iter().cloned().collect();
        }
        let mut keeper = lock(&self.keeper);
        keeper.keep_at(&config.revocations);
        keeper.write();
        Ok(())
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a revocation, whoever brings it. What costs, costs before the rules are locked.
    fn take_revocation(&self, revocation: &Revocation, now: UnixTime) -> Result<Verdict, Denied> {
        let digest = digest(revocation);
        let networks: Vec<NetworkId> = {
            let rules = self.rules();
            if rules.networks.values().any(|known| known.digests.contains(&digest)) {
                return Ok(Verdict::Known);
            }
            rules.networks.keys().copied().collect()
        };
        let foreign = || {
            let reason = "no network that this relay serves stands behind the revocation";
            denied("revocation", reason)
        };
        let (network, verified) = verify(revocation, networks.iter(), now).ok_or_else(foreign)?;
        let added = {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            rules.networks.get_mut(&network).ok_or_else(foreign)?.add(verified)
        };
        match added {
            Added::Known => Ok(Verdict::Known),
            Added::Full => Err(denied(
                "revocation",
                "there are as many revocations of its admin as are kept",
            )),
            Added::New => {
                lock(&self.keeper).keep(revocation);
                Ok(Verdict::Noted)
            }
        }
    }
}

impl Rules {
    fn revocations(&self, network: &NetworkId) -> Result<&Revocations, Denied> {
        let known = self.networks.get(network);
        known
            .map(|known| &known.revocations)
            .ok_or_else(|| denied("network", "this relay does not serve the network"))
    }

    fn by_chain(&self, peer: NodeId, chain: &CertificateChain, now: UnixTime) -> Result<Grant, Denied> {
        let network = chain.leaf.claims().network;
        let verified = chain.verify(&network, now, SKEW, self.revocations(&network)?);
        let membership = verified.map_err(|error| denied("membership", &error))?;
        if membership.node != peer {
            return Err(denied("membership", "the membership is of another node"));
        }
        let certificates = chain.issuer.iter().chain([&chain.leaf]);
        Ok(Grant {
            node: peer,
            holder: Holder::Member(network, peer),
            quota: RelayQuota::default(),
            links: certificates.map(|certificate| link(certificate.claims())).collect(),
            secret: None,
            expires: Some(membership.expires),
        })
    }

    fn by_token(&self, peer: NodeId, token: &RelayToken, now: UnixTime) -> Result<Grant, Denied> {
        let network = token.claims().network;
        let verified = token.verify(&network, &peer, now, SKEW, self.revocations(&network)?);
        let claims = verified.map_err(|error| denied("token", &error))?;
        if self.refuses(claims.serial.as_bytes()) {
            return Err(denied("token", "this relay refuses the token"));
        }
        // Who is no member has no role: whoever may revoke may revoke it.
        let subject = Link {
            node: peer,
            roles: Roles::default(),
            since: claims.issued_at,
        };
        let issuer = token.certificate().map(|certificate| link(certificate.claims()));
        Ok(Grant {
            node: peer,
            holder: Holder::Signed(network, peer, claims.serial),
            quota: claims.quota,
            links: issuer.into_iter().chain([subject]).collect(),
            secret: None,
            expires: Some(claims.expires),
        })
    }

    fn by_secret(&self, peer: NodeId, text: &str, now: UnixTime) -> Result<Grant, Denied> {
        let hash = config::hash(text);
        let token = self.tokens.get(&hash);
        let token = token.ok_or_else(|| denied("unknown_token", "the token is not known here"))?;
        if !token.is_for(&peer) {
            return Err(denied("token", "the token is for other peers"));
        }
        if token.expires.is_some_and(|expires| expires <= now) {
            return Err(denied("token", "the token has expired"));
        }
        Ok(Grant {
            node: peer,
            holder: Holder::Static(token.name.clone()),
            quota: token.quota,
            links: Vec::new(),
            secret: Some(hash),
            expires: token.expires,
        })
    }

    fn refuses(&self, serial: &[u8; 16]) -> bool {
        self.refused_serials.contains(&HEXLOWER.encode(serial))
    }

    /// Whether the network is served, and nobody on whom a grant rests was revoked.
    fn stands(&self, network: &NetworkId, grant: &Grant) -> bool {
        self.networks.get(network).is_some_and(|known| {
            let is_revoked = |link: &Link| known.revocations.is_revoked(&link.node, link.roles, link.since);
            !grant.links.iter().any(is_revoked)
        })
    }
}

fn link(claims: &dawn_identity::Claims) -> Link {
    Link {
        node: claims.subject,
        roles: claims.roles,
        since: claims.admitted_at,
    }
}

impl Gate for Operator {
    fn shown(&self, peer: NodeId, shown: Shown, now: UnixTime) -> Result<Verdict, Denied> {
        let grant = match shown {
            Shown::Revocation(revocation) => return self.take_revocation(&revocation, now),
            Shown::Chain(chain) => self.rules().by_chain(peer, &chain, now),
            Shown::Token(token) => self.rules().by_token(peer, &token, now),
            Shown::Static(text) => self.rules().by_secret(peer, &text, now),
        };
        grant.map(|grant| Verdict::Granted(Box::new(grant)))
    }

    fn known(&self, _: NodeId, _: UnixTime) -> Option<Grant> {
        None
    }

    fn holds(&self, grant: &Grant, now: UnixTime) -> Option<RelayQuota> {
        if grant.expires.is_some_and(|expires| expires + SKEW <= now) {
            return None;
        }
        let rules = self.rules();
        match &grant.holder {
            Holder::Member(network, _) => rules.stands(network, grant).then_some(grant.quota),
            Holder::Signed(network, _, serial) => {
                let stands = rules.stands(network, grant) && !rules.refuses(serial.as_bytes());
                stands.then_some(grant.quota)
            }
            Holder::Static(name) => {
                // Another secret under the same name is another token.
                let token = rules.tokens.get(&grant.secret?).filter(|token| token.name == *name)?;
                let is_in_time = token.expires.is_none_or(|expires| expires > now);
                (is_in_time && token.is_for(&grant.node)).then_some(token.quota)
            }
        }
    }
}

impl StaticToken {
    fn is_for(&self, peer: &NodeId) -> bool {
        self.peers.is_empty() || self.peers.contains(peer)
    }
}

#[cfg(test)]
mod tests;
