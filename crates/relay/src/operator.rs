//! The gate of a relay's process: its networks, its tokens, and the revocations that it has heard of.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_identity::{Added, NetworkId, NodeId, RelayQuota, Revocation, Revocations, Roles, UnixTime};
use subtle::ConstantTimeEq as _;

use crate::config::{self, Config, ConfigError, StaticToken};
use crate::desk::{Grant, Holder};
use crate::gate::{Denied, Gate, Verdict};
use crate::server::lock;
use crate::token::Shown;

/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);

/// The rules of a relay's process.
#[derive(Debug)]
pub(crate) struct Operator {
    rules: RwLock<Rules>,
    /// Appends to the file of revocations, one at a time.
    keeping: Mutex<PathBuf>,
}

#[derive(Debug, Default)]
struct Rules {
    networks: Vec<(NetworkId, Revocations)>,
    tokens: Vec<StaticToken>,
    refused_serials: Vec<String>,
}

fn denied(code: &'static str, reason: &(impl ToString + ?Sized)) -> Denied {
    Denied {
        code,
        reason: reason.to_string(),
    }
}

impl Operator {
    pub(crate) fn new(config: &Config, now: UnixTime) -> Result<Self, ConfigError> {
        let operator = Self {
            rules: RwLock::default(),
            keeping: Mutex::new(config.revocations.clone()),
        };
        operator.reload(config, now)?;
        Ok(operator)
    }

    /// Takes the networks, tokens and revocations of a configuration in the place of those before.
    pub(crate) fn reload(&self, config: &Config, now: UnixTime) -> Result<(), ConfigError> {
        let kept = kept_revocations(&config.revocations)?;
        let mut rules = Rules {
            networks: config
                .networks
                .iter()
                .map(|network| (*network, Revocations::new()))
                .collect(),
            tokens: config.tokens.clone(),
            refused_serials: config.refused_serials.clone(),
        };
        for revocation in kept {
            rules.revoke(&revocation, now);
        }
        *self.rules.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rules;
        (*lock(&self.keeping)).clone_from(&config.revocations);
        Ok(())
    }

    fn rules(&self) -> std::sync::RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take_revocation(&self, revocation: &Revocation, now: UnixTime) -> Result<Verdict, Denied> {
        let added = {
            let mut rules = self.rules.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            rules.revoke(revocation, now)
        };
        match added {
            None => Err(denied(
                "revocation",
                "no network that this relay serves stands behind the revocation",
            )),
            Some(false) => Ok(Verdict::Known),
            Some(true) => {
                let path = lock(&self.keeping);
                let line = format!("{}\n", BASE64URL_NOPAD.encode(&revocation.encode()));
                let mut options = fs::OpenOptions::new();
                let appended = options
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&*path)
                    .and_then(|mut file| file.write_all(line.as_bytes()));
                if let Err(error) = appended {
                    tracing::error!(path = %path.display(), %error, "a revocation holds, but could not be kept");
                }
                Ok(Verdict::Noted)
            }
        }
    }
}

impl Rules {
    /// Whether a revocation was new; `None` where no network stands behind it.
    fn revoke(&mut self, revocation: &Revocation, now: UnixTime) -> Option<bool> {
        for (network, revocations) in &mut self.networks {
            if let Ok(verified) = revocation.clone().verify(network, now, SKEW) {
                return Some(matches!(revocations.add(verified), Added::New));
            }
        }
        None
    }
}

/// The revocations in a file, a line each; none where there is no file.
fn kept_revocations(path: &Path) -> Result<Vec<Revocation>, ConfigError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = config::read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let bytes = BASE64URL_NOPAD.decode(line.trim().as_bytes()).ok();
            let revocation = bytes.and_then(|bytes| Revocation::decode(&bytes).ok());
            revocation.ok_or_else(|| ConfigError::Invalid {
                path: path.to_owned(),
                reason: format!("line {} is no revocation", number + 1),
            })
        })
        .collect()
}

impl Gate for Operator {
    fn shown(&self, peer: NodeId, shown: Shown, now: UnixTime) -> Result<Verdict, Denied> {
        let rules = self.rules();
        let revocations = |network: &NetworkId| {
            let known = rules.networks.iter().find(|(known, _)| known == network);
            let foreign = || denied("network", "this relay does not serve the network");
            known.map(|(_, revocations)| revocations).ok_or_else(foreign)
        };
        let grant = match shown {
            Shown::Revocation(revocation) => {
                drop(rules);
                return self.take_revocation(&revocation, now);
            }
            Shown::Chain(chain) => {
                let network = chain.leaf.claims().network;
                let verified = chain.verify(&network, now, SKEW, revocations(&network)?);
                let membership = verified.map_err(|error| denied("membership", &error))?;
                if membership.node != peer {
                    return Err(denied("membership", "the membership is of another node"));
                }
                Grant {
                    holder: Holder::Member(network, peer),
                    quota: RelayQuota::default(),
                    issued_at: membership.admitted_at,
                    expires: Some(membership.expires),
                }
            }
            Shown::Token(token) => {
                let network = token.claims().network;
                let verified = token.verify(&network, &peer, now, SKEW, revocations(&network)?);
                let claims = verified.map_err(|error| denied("token", &error))?;
                let serial = HEXLOWER.encode(claims.serial.as_bytes());
                if rules.refused_serials.contains(&serial) {
                    return Err(denied("token", "this relay refuses the token"));
                }
                Grant {
                    holder: Holder::Signed(network, claims.serial),
                    quota: claims.quota,
                    issued_at: claims.issued_at,
                    expires: Some(claims.expires),
                }
            }
            Shown::Static(text) => {
                let hash = config::hash(&text);
                let known = rules.tokens.iter().find(|token| bool::from(token.hash.ct_eq(&hash)));
                let token = known.ok_or_else(|| denied("unknown_token", "the token is not known here"))?;
                if !token.is_for(&peer) {
                    return Err(denied("token", "the token is for other peers"));
                }
                if token.expires.is_some_and(|expires| expires <= now) {
                    return Err(denied("token", "the token has expired"));
                }
                Grant {
                    holder: Holder::Static(token.name.clone()),
                    quota: token.quota,
                    issued_at: now,
                    expires: token.expires,
                }
            }
        };
        Ok(Verdict::Granted(grant))
    }

    fn known(&self, _: NodeId, _: UnixTime) -> Option<Grant> {
        None
    }

    fn holds(&self, peer: NodeId, grant: &Grant, now: UnixTime) -> bool {
        let rules = self.rules();
        let is_revoked = |network: &NetworkId| {
            let known = rules.networks.iter().find(|(known, _)| known == network);
            known.is_none_or(|(_, revocations)| revocations.is_revoked(&peer, Roles::default(), grant.issued_at))
        };
        if grant.expires.is_some_and(|expires| expires + SKEW <= now) {
            return false;
        }
        match &grant.holder {
            Holder::Member(network, _) => !is_revoked(network),
            Holder::Signed(network, serial) => {
                let serial = HEXLOWER.encode(serial.as_bytes());
                !is_revoked(network) && !rules.refused_serials.contains(&serial)
            }
            Holder::Static(name) => {
                let token = rules.tokens.iter().find(|token| token.name == *name);
                token.is_some_and(|token| token.is_for(&peer) && token.expires.is_none_or(|expires| expires > now))
            }
        }
    }
}

impl StaticToken {
    fn is_for(&self, peer: &NodeId) -> bool {
        self.peers.is_empty() || self.peers.contains(peer)
    }
}
