//! The admitter's side of the admission protocol.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::admission::{
    AdmissionMessage, Admitted, Admitter, Commit, Nonce, RefusalCode, Refused, Renewed, Verified,
};
use dawn_identity::{CertificateChain, InviteId, NodeId, NodeName, Redemption, Roles, UnixTime};
use dawn_mesh::{Inbound, Incoming, MeshStream, Peer};
use tokio_util::task::TaskTracker;

use super::{Members, frames, lock, now};
use crate::error::NodeError;
use crate::store::{MemberRow, RedeemError, Redeemed, RequestRow, Verdict};

/// Each message of the handshake comes within this.
const STEP: Duration = Duration::from_secs(15);
/// A joiner that waits for approval is asked to come again after this.
const WAITING: Duration = Duration::from_secs(4 * 60);
/// Members named to a newcomer, so that its first message stays within its bound.
const CONTACTS: usize = 32;
/// Revocations told at admission; the others come with the first synchronisation.
const REVOCATIONS: usize = 8;

/// Attempts within the current minute.
#[derive(Debug)]
struct Pace(Mutex<(Instant, u32)>);

impl Pace {
    fn allows(&self, limit: u32) -> bool {
        let mut pace = lock(&self.0);
        if pace.0.elapsed() > Duration::from_secs(60) {
            *pace = (Instant::now(), 0);
        }
        pace.1 += 1;
        pace.1 <= limit
    }
}

fn refusal(code: RefusalCode, message: impl Into<String>) -> AdmissionMessage {
    AdmissionMessage::Refused(Refused {
        code,
        message: message.into(),
    })
}

impl Members {
    /// Answers those who want to be admitted or renewed, until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        let tasks = TaskTracker::new();
        let pace = || Arc::new(Pace(Mutex::new((Instant::now(), 0))));
        // Strangers who knock do not keep members from renewing.
        let (of_strangers, of_members) = (pace(), pace());
        while let Some(inbound) = incoming.next().await {
            let pace = if inbound.peer.membership.is_some() {
                &of_members
            } else {
                &of_strangers
            };
            let (members, pace) = (self.clone(), Arc::clone(pace));
            tasks.spawn(async move {
                let node = inbound.peer.node;
                if let Err(error) = members.attend(inbound, &pace).await {
                    tracing::debug!(%node, %error, "an admission ended early");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn attend(&self, inbound: Inbound, pace: &Pace) -> Result<(), NodeError> {
        let Inbound { peer, mut stream } = inbound;
        let answer = if !pace.allows(self.0.admissions_per_minute) {
            refusal(
                RefusalCode::Busy,
                "too many ask to be admitted just now; try again in a minute",
            )
        } else {
            match receive(&mut stream).await? {
                AdmissionMessage::Renew {} => self.renew_for(&peer),
                AdmissionMessage::Commit(commit) => self.admit(&mut stream, &peer, commit).await?,
                _ => refusal(RefusalCode::NotAuthorised, "this message does not begin an admission"),
            }
        };
        if let AdmissionMessage::Refused(refused) = &answer {
            tracing::info!(node = %peer.node, code = %refused.code, "not admitted");
        }
        frames::send(&mut stream, &answer).await?;
        // The peer closes when it has read the answer; a stream dropped at once could take the answer along.
        let _ = tokio::time::timeout(STEP, receive(&mut stream)).await;
        Ok(())
    }

    /// The certificate of a member anew, of the same admission: what revokes one revokes the other.
    fn renew_for(&self, peer: &Peer) -> AdmissionMessage {
        let Some(member) = &peer.membership else {
            return refusal(RefusalCode::NotAuthorised, "only a member can renew its certificate");
        };
        if lock(&self.0.revocations).is_revoked(&member.node, member.roles, member.admitted_at) {
            return refusal(RefusalCode::Revoked, "this node was put out of the network");
        }
        match self.issue(member.node, member.name.clone(), member.roles, member.admitted_at) {
            Ok(chain) => {
                tracing::info!(node = %member.name, "a certificate was renewed");
                AdmissionMessage::Renewed(Box::new(Renewed { chain }))
            }
            Err(error) => refusal(RefusalCode::NotAuthorised, error.to_string()),
        }
    }

    async fn admit(&self, stream: &mut MeshStream, peer: &Peer, commit: Commit) -> Result<AdmissionMessage, NodeError> {
        if self.authority().is_none() {
            return Ok(refusal(RefusalCode::NotAuthorised, "this node may not admit members"));
        }
        let Some((invite, role)) = self.0.store.invite(commit.invite).await? else {
            return Ok(refusal(RefusalCode::UnknownInvite, "this node made no such invite"));
        };
        let mut admitter = Admitter::new(self.0.network, self.0.node);
        let nonce = Nonce::from_bytes(rand::random());
        let challenge = admitter
            .on_commit(AdmissionMessage::Commit(commit), peer.node, nonce)
            .map_err(|error| NodeError::Admission(error.to_string()))?;
        frames::send(stream, &challenge).await?;
        let reveal = receive(stream).await?;
        let verified = match admitter.on_reveal(reveal, &invite.secret) {
            Ok(verified) => verified,
            Err(error) => return Ok(refusal(RefusalCode::BadProof, error.to_string())),
        };
        if let Err(error) = invite.check(verified.node, now()) {
            return Ok(refusal(RefusalCode::from(error), error.to_string()));
        }
        if let Some(Err(denied)) = self.policies().map(|policies| policies.may_invite(role)) {
            return Ok(refusal(RefusalCode::NotAuthorised, denied.to_string()));
        }
        if invite.approval && !invite.redeemed_by.contains(&verified.node) {
            return self.ask(stream, &verified).await;
        }
        self.welcome(&verified, now()).await
    }

    /// Waits for a person's decision.
    async fn ask(&self, stream: &mut MeshStream, verified: &Verified) -> Result<AdmissionMessage, NodeError> {
        let id = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 6]>());
        let request = RequestRow {
            id: id.clone(),
            node: verified.node,
            name: verified.name.clone(),
            words: verified.words.to_string(),
            invite: verified.invite,
            asked: now(),
            verdict: None,
        };
        self.0.store.add_request(&request).await?;
        self.0.events.say(
            "join.requested",
            &serde_json::json!({ "id": id, "node": request.node, "name": request.name, "words": request.words }),
        );
        frames::send(stream, &AdmissionMessage::Pending {}).await?;
        let decided = async {
            loop {
                let next = self.0.decided.notified();
                let verdict = self.0.store.request(&id).await?.and_then(|request| request.verdict);
                if let Some(verdict) = verdict {
                    return Ok::<Verdict, NodeError>(verdict);
                }
                next.await;
            }
        };
        let waiting = async {
            tokio::select! {
                verdict = tokio::time::timeout(WAITING, decided) => Some(verdict),
                // The joiner has nothing to say while it waits: it is gone.
                _ = frames::receive(stream) => None,
            }
        };
        let Some(verdict) = waiting.await else {
            self.0.store.remove_request(&id).await?;
            return Err(NodeError::Admission("the joiner left while it waited".into()));
        };
        match verdict {
            Ok(verdict) => match verdict? {
                // It asked in time, however long the answer took.
                Verdict::Approved => self.welcome(verified, request.asked).await,
                Verdict::Denied => Ok(refusal(RefusalCode::Denied, "the owner of the network said no")),
            },
            Err(_) => Ok(refusal(
                RefusalCode::Busy,
                "nobody has decided yet; run the same command again",
            )),
        }
    }

    /// Consumes a use of the invite, as it was at a time, and issues the certificate.
    async fn welcome(&self, verified: &Verified, asked: UnixTime) -> Result<AdmissionMessage, NodeError> {
        let _one = self.0.welcoming.lock().await;
        let redeemed = match self.redeem(verified.invite, verified.node, asked).await? {
            Ok(redeemed) => redeemed,
            Err(refused) => return Ok(refused),
        };
        let Redeemed { role, at, redemption } = redeemed;
        let name = self.free_name(verified.node, &verified.name).await?;
        let chain = self.issue(verified.node, name.clone(), Roles::from(role), at)?;
        let member = MemberRow {
            node: verified.node,
            name: name.clone(),
            role,
            expires: chain.leaf.claims().expires,
            admitted: at,
        };
        self.stand_for(&chain).await;
        let words = verified.words.to_string();
        let join = (redemption == Redemption::New).then(|| (words.as_str(), now()));
        self.0.store.add_member(&member, join).await?;
        self.0.events.say(
            "join.admitted",
            &serde_json::json!({ "node": verified.node, "name": name, "words": words }),
        );
        tracing::info!(%name, node = %verified.node, %words, "admitted");
        Ok(AdmissionMessage::Admitted(Box::new(
            self.admitted_message(chain).await?,
        )))
    }

    /// Signs for whom it has admitted, where this node has a lock key; where it has none, somebody else has to.
    async fn stand_for(&self, chain: &CertificateChain) {
        let network_lock = self.network_lock();
        if !network_lock.is_on() {
            return;
        }
        let Ok(membership) = self.membership(&chain.encode()) else {
            return;
        };
        if network_lock.holds_key() {
            if let Err(error) = network_lock.sign(&[membership]).await {
                tracing::error!(%error, "who was admitted could not be signed for; the network lock keeps it out");
            }
        } else if network_lock.admits(&membership).is_err() {
            tracing::warn!(name = %membership.name, "this node has no lock key: the newcomer is kept out until one signs for it");
        }
    }

    /// A use of the invite. It admits once: a node that comes again, because the answer was lost say, gets a certificate
    /// of that admission, and none if it was put out since.
    async fn redeem(
        &self,
        invite: InviteId,
        node: NodeId,
        asked: UnixTime,
    ) -> Result<Result<Redeemed, AdmissionMessage>, NodeError> {
        let now = now();
        // A node that was put out and is let in again is admitted after its revocation.
        let revoked = lock(&self.0.revocations).revoked_at(&node);
        let at = revoked.filter(|at| *at >= now).map_or(now, |at| UnixTime(at.0 + 1));
        match self.0.store.redeem(invite, node, asked, at).await {
            Ok(redeemed) if lock(&self.0.revocations).is_revoked(&node, Roles::from(redeemed.role), redeemed.at) => {
                Ok(Err(refusal(
                    RefusalCode::Revoked,
                    "this node was put out of the network after it had used this invite; only a new invite lets it in",
                )))
            }
            Ok(redeemed) => Ok(Ok(redeemed)),
            Err(RedeemError::Unknown) => Ok(Err(refusal(
                RefusalCode::UnknownInvite,
                "this node made no such invite",
            ))),
            Err(RedeemError::Invite(error)) => Ok(Err(refusal(RefusalCode::from(error), error.to_string()))),
            Err(RedeemError::Node(error)) => Err(error),
        }
    }

    async fn admitted_message(&self, chain: CertificateChain) -> Result<Admitted, NodeError> {
        let mut contacts = vec![(self.0.node, self.addresses())];
        let (mesh, subject) = (self.mesh(), chain.leaf.claims().subject);
        // Where one was that talks with its host alone is nobody's business now.
        let is_apart = |node: NodeId| mesh.as_ref().is_some_and(|mesh| mesh.is_apart(node));
        let is_told = |node: NodeId| node != subject && !is_apart(node);
        contacts.extend(
            self.0
                .store
                .contacts()
                .await?
                .into_iter()
                .filter(|(node, addresses)| is_told(*node) && !addresses.is_empty()),
        );
        contacts.truncate(CONTACTS);
        for (_, addresses) in &mut contacts {
            addresses.truncate(4);
        }
        let revocations: Vec<_> = lock(&self.0.revocations).iter().take(REVOCATIONS).cloned().collect();
        Ok(Admitted {
            chain,
            network_name: self.0.network_name.clone(),
            contacts,
            revocations,
        })
    }

    /// The wanted name, or the first free one that resembles it.
    async fn free_name(&self, node: NodeId, wanted: &NodeName) -> Result<NodeName, NodeError> {
        let mut known = self.known().await?;
        known.retain(|member| member.node != node);
        // A name that is pinned here is kept for whom it belongs to, also while it is out.
        let is_pinned = |name: &NodeName| self.0.pins.of_name(name).is_some_and(|pin| pin.node != node);
        let taken = |name: &NodeName| is_pinned(name) || known.iter().any(|member| member.name == *name);
        if !taken(wanted) {
            return Ok(wanted.clone());
        }
        for number in 2..1000_u32 {
            let suffix = format!("-{number}");
            let stem: String = wanted.as_str().chars().take(32 - suffix.len()).collect();
            if let Ok(name) = format!("{}{suffix}", stem.trim_end_matches('-')).parse::<NodeName>()
                && !taken(&name)
            {
                return Ok(name);
            }
        }
        Err(NodeError::Exists {
            what: "node",
            name: wanted.to_string(),
        })
    }
}

async fn receive(stream: &mut MeshStream) -> Result<AdmissionMessage, NodeError> {
    tokio::time::timeout(STEP, frames::receive(stream))
        .await
        .map_err(|_| NodeError::Admission("no message came in time".into()))?
}
