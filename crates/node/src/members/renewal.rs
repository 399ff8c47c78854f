//! Renews this node's own certificate long before it expires.

use std::time::Duration;

use dawn_identity::admission::AdmissionMessage;
use dawn_identity::{CertificateChain, NodeId, Role};
use dawn_mesh::Mesh;
use tokio_util::sync::CancellationToken;

use super::{ADMISSION, Members, frames, now};
use crate::error::NodeError;

/// Between tries when nobody could renew, at most.
const RETRY: Duration = Duration::from_secs(60);

/// Who renews this node's certificate beside the members that may.
#[async_trait::async_trait]
pub(crate) trait Renewer: Send + Sync {
    /// A new chain, not verified; `None` where there is nobody to ask.
    async fn renew(&self) -> Result<Option<CertificateChain>, NodeError>;
}

impl Members {
    /// Renews when half of the lifetime is gone, and asks the mesh again about members whose time may be up, until
    /// `stop`.
    pub(crate) async fn renew(self, mesh: Mesh, stop: CancellationToken) {
        loop {
            let own = self.own();
            let wait = Duration::from_secs(self.renews().0.saturating_sub(now().0));
            let lifetime = Duration::from_secs(own.expires.0.saturating_sub(own.issued_at.0));
            let check = (lifetime / 8).clamp(Duration::from_millis(500), Duration::from_secs(600));
            if stop
                .run_until_cancelled(tokio::time::sleep(wait.clamp(Duration::from_millis(200), check)))
                .await
                .is_none()
            {
                return;
            }
            mesh.recheck();
            if now() < self.renews() {
                continue;
            }
            if let Err(error) = self.renew_once(&mesh).await {
                tracing::warn!(%error, "the certificate could not be renewed yet");
                let pause = check.min(RETRY).mul_f64(rand::random_range(0.5..1.0));
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn renew_once(&self, mesh: &Mesh) -> Result<(), NodeError> {
        let own = self.own();
        if self.0.root.is_some() {
            let chain = self.issue(own.node, own.name, own.roles, own.admitted_at)?;
            return self.set_own(chain).await;
        }
        let mut last = NodeError::Admission("no node that may renew it is connected".into());
        // Who admitted it is asked first.
        let by_issuer = self
            .certificate_chain()
            .issuer
            .is_some_and(|issuer| issuer.claims().roles.contains(Role::Issuer));
        if by_issuer {
            match self.renew_elsewhere().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = error,
            }
        }
        let near: Vec<NodeId> = mesh.peers().iter().map(|peer| peer.node).collect();
        // Those that are not connected may be reached through others.
        let mut known = self.known().await?;
        known.retain(|member| member.node != own.node && member.roles.may_admit());
        // Who is near answers first; a certificate by the owner outlives the admins.
        known.sort_by_key(|member| (!near.contains(&member.node), !member.roles.contains(Role::Owner)));
        for member in known {
            match self.ask_for_renewal(mesh, member.node).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        if !by_issuer && self.renew_elsewhere().await? {
            return Ok(());
        }
        Err(last)
    }

    /// Renews at a control plane; `false` where there is none.
    async fn renew_elsewhere(&self) -> Result<bool, NodeError> {
        let Some(renewer) = self.0.renewer.get() else {
            return Ok(false);
        };
        match renewer.renew().await? {
            Some(chain) => self.set_own(chain).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn ask_for_renewal(&self, mesh: &Mesh, node: dawn_identity::NodeId) -> Result<(), NodeError> {
        const PATIENCE: Duration = Duration::from_secs(15);
        let asking = async {
            let mut stream = mesh
                .open(node, ADMISSION)
                .await
                .map_err(|error| NodeError::Admission(error.to_string()))?;
            frames::send(&mut stream, &AdmissionMessage::Renew {}).await?;
            frames::receive(&mut stream).await
        };
        let answer = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| NodeError::Admission("no answer came in time".into()))??;
        match answer {
            AdmissionMessage::Renewed(renewed) => self.set_own(renewed.chain).await,
            AdmissionMessage::Refused(refused) => Err(NodeError::Refused {
                code: refused.code,
                message: refused.message,
            }),
            _ => Err(NodeError::Admission("an answer that does not belong here".into())),
        }
    }
}
