//! Certificates and revocations that the control plane issues, by the right that the network's owner gave its key.

use std::time::Duration;

use dawn_control_api::{Actor, CertificateView, Code, Membership, Outcome};
use dawn_identity::{
    Authority, CertificateChain, NetworkId, Request, Revocation, Revocations, Role, Roles, Serial, UnixTime,
};

use crate::control::{Inner, random};
use crate::error::ControlError;
use crate::refusal::Refusal;
use crate::store::audit::Deed;
use crate::store::devices::DeviceRow;
use crate::store::networks::{self, NetworkRow};
use crate::store::{Effect, Tx};

fn not_authorised(words: impl Into<String>) -> Refusal {
    let next = "the owner of the network runs `dawn control authorize`";
    Refusal::because(Code::NotAuthorised, words).next(next)
}

/// Makes sure that a chain of one lets the key of this control plane issue for the network now.
///
/// # Errors
/// It does not.
pub fn check(control: &Inner, network: &NetworkId, chain: &CertificateChain, now: UnixTime) -> Result<(), Refusal> {
    let refused = |words: String| Refusal::because(Code::BadCertificate, words);
    if chain.issuer.is_some() {
        return Err(refused(
            "the network key itself signs the certificate of an issuer".to_owned(),
        ));
    }
    let claims = chain.leaf.claims();
    if claims.subject != control.key.node_id() {
        let words = format!(
            "it is for {}, and this control plane is {}",
            claims.subject,
            control.key.node_id()
        );
        return Err(refused(words));
    }
    if claims.roles != Roles::from(Role::Issuer) {
        return Err(refused(format!(
            "it grants {}, and a control plane is an issuer",
            claims.roles
        )));
    }
    let none = Revocations::new();
    let verify = |known: &Revocations| chain.leaf.verify_issuer(network, now, Duration::ZERO, known);
    let verified = match control.live.network(network) {
        Some(live) => live.revocations(verify),
        None => verify(&none),
    };
    verified.map_err(|error| refused(error.to_string()))
}

/// By what right the control plane issues for a network now.
///
/// # Errors
/// By none.
pub fn authority(control: &Inner, network: &NetworkRow, now: UnixTime) -> Result<Authority, Refusal> {
    let chain = network
        .issuer
        .clone()
        .ok_or_else(|| not_authorised("the owner of the network has not authorised this control plane"))?;
    check(control, &network.id, &chain, now).map_err(|refusal| not_authorised(refusal.to_string()))?;
    Ok(Authority::Delegated {
        key: control.key.clone(),
        chain: Box::new(chain),
    })
}

/// Asks the revocations of a network as they are within a transaction: those in memory, and those of the same commit.
///
/// # Errors
/// There is no such network.
pub fn revocations<T>(
    tx: &Tx<'_>,
    control: &Inner,
    network: &NetworkId,
    ask: impl FnOnce(&Revocations) -> T,
) -> Result<T, Refusal> {
    let live = control.live.network(network).ok_or_else(|| Refusal::no("network"))?;
    let newer: Vec<_> = tx
        .earlier
        .iter()
        .chain(&tx.effects)
        .filter_map(|effect| match effect {
            Effect::Revoked(of, revocation) if of == network => revocation
                .as_ref()
                .clone()
                .verify(of, revocation.at(), Duration::ZERO)
                .ok(),
            _ => None,
        })
        .collect();
    if newer.is_empty() {
        return Ok(live.revocations(ask));
    }
    let mut known = live.revocations(Revocations::clone);
    known.extend(newer);
    Ok(ask(&known))
}

/// Issues a certificate to a device that is approved, and writes down that it did.
///
/// # Errors
/// The control plane may not; the device was put out, or has no time of admission; the database failed.
pub async fn membership(
    tx: &mut Tx<'_>,
    control: &Inner,
    network: &NetworkRow,
    device: &mut DeviceRow,
) -> Result<Membership, ControlError> {
    let authority = authority(control, network, tx.now)?;
    let admitted_at = device
        .admitted
        .ok_or_else(|| ControlError::Corrupt(format!("{} was never admitted", device.node)))?;
    let is_out = |known: &Revocations| known.is_revoked(&device.node, Roles::from(device.role), admitted_at);
    if revocations(tx, control, &network.id, is_out)? {
        return Err(Refusal::new(Code::Revoked)
            .next("ask who administers the network")
            .into());
    }
    // The clock of who admitted it may be ahead of this one.
    let now = tx.now.max(admitted_at);
    let ends = network.issuer.as_ref().map(|chain| chain.leaf.claims().expires);
    let expires = ends
        .map_or(UnixTime(u64::MAX), |ends| ends)
        .min(now + control.config.limits.certificate);
    let chain = authority.issue(
        Request {
            subject: device.node,
            name: device.name.clone(),
            roles: Roles::from(device.role),
            admitted_at,
            not_before: now,
            expires,
            serial: Serial::from_bytes(random()),
        },
        now,
    )?;
    let claims = chain.leaf.claims();
    let view = CertificateView {
        serial: claims.serial,
        node: device.node,
        name: device.name.clone(),
        roles: claims.roles,
        admitted_at,
        issued_at: now,
        expires,
    };
    tx.add_certificate(network.id, &view, device.role).await?;
    device.serial = Some(view.serial);
    device.expires = Some(expires);
    tx.set_device(device).await?;
    let half = Duration::from_secs(expires.since(now).as_secs() / 2);
    Ok(Membership {
        chain,
        renew_at: now + half,
    })
}

/// Puts a device out: a revocation that all members believe, and that ends its membership.
///
/// # Errors
/// The control plane may not, or has made as many revocations as members keep of one; the database failed.
pub async fn revocation(
    tx: &mut Tx<'_>,
    control: &Inner,
    network: &NetworkRow,
    device: &DeviceRow,
) -> Result<Revocation, ControlError> {
    let authority = authority(control, network, tx.now)?;
    let admitted = device.admitted.unwrap_or(tx.now);
    // The clock of who admitted it may be ahead of this one.
    let revocation = authority.revoke(device.node, tx.now.max(admitted))?;
    let verified = revocation.clone().verify(&network.id, revocation.at(), Duration::ZERO);
    let verified = verified.map_err(|error| ControlError::Corrupt(error.to_string()))?;
    let ends = |known: &Revocations| {
        let mut known = known.clone();
        known.add(verified);
        known.is_revoked(&device.node, Roles::from(device.role), admitted)
    };
    if !revocations(tx, control, &network.id, ends)? {
        let words = "this control plane has made as many revocations as members keep of one";
        let refusal = Refusal::because(Code::Conflict, words);
        return Err(refusal
            .next("the owner of the network revokes it, or authorises a control plane with a new key")
            .into());
    }
    publish(tx, network.id, &revocation).await?;
    Ok(revocation)
}

/// Keeps a revocation that was verified and is news, and tells of it.
///
/// # Errors
/// The database failed.
pub async fn publish(tx: &mut Tx<'_>, network: NetworkId, revocation: &Revocation) -> Result<(), ControlError> {
    if let Some(digest) = tx.add_revocation(network, revocation).await? {
        tx.change(network, crate::store::changes::Kind::Revocation, &digest)
            .await?;
    }
    Ok(())
}

/// Withdraws the invite by which a device that is put out came in: whoever has the device may know it. An invite that it
/// showed before that one let nobody in by itself.
///
/// # Errors
/// The database failed.
pub async fn withdraw(tx: &mut Tx<'_>, device: &DeviceRow) -> Result<(), ControlError> {
    let Some(invite) = device.invite else { return Ok(()) };
    tx.revoke_invite(device.network, invite).await?;
    tx.audit(Deed {
        actor: Actor::System,
        network: Some(device.network),
        action: "invite.revoke",
        subject: Some(invite.to_string()),
        outcome: Outcome::Done,
        detail: Some(format!("{} was put out", device.name)),
        request: None,
        from: None,
    })
    .await
}

/// The network, within a transaction.
///
/// # Errors
/// There is none, or the database failed.
pub async fn network(tx: &mut Tx<'_>, network: NetworkId) -> Result<NetworkRow, ControlError> {
    networks::get(tx.connection, network).await
}
