//! What is looked after at the control plane beside beats and changes: that it is the one that is meant, that it passes on
//! the network's policy, and for how long it may issue.

use std::time::Duration;

use dawn_control_api::{Code, PolicyDocument, PolicyUpload, limits, paths};
use dawn_identity::{Issuer, UnixTime};
use dawn_policy::Log;
use http::Method;

use super::run::{OTHERS_TELL, Pauses, jittered};
use super::{Control, ControlError, Joined, register};
use crate::error::NodeError;
use crate::members::now;
use crate::sync::lock;
use crate::time::rfc3339;

/// How often it is looked for how long the control plane may issue.
const LOOK: Duration = Duration::from_secs(12 * 60 * 60);
/// An issuer's certificate that ends sooner is told of, on every look.
pub(crate) const ENDING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whether an issuer's certificate that ends then is to be renewed by the owner now.
pub(crate) fn is_ending(expires: UnixTime) -> bool {
    expires <= now() + ENDING
}

impl Control {
    /// Comes back when the control plane has shown that it is the one that is meant. Until then nothing is said to it.
    pub(super) async fn meet_again(&self, joined: &Joined) {
        let mut pauses = Pauses::new();
        while let Err(error) = register::meet(&joined.plane, joined.config.issuer).await {
            let error = NodeError::from(error);
            self.failed(joined, &error);
            tokio::time::sleep(pauses.after(&error)).await;
        }
    }

    /// Brings the policy in force to the control plane, which is no member, whenever that has an older one. Who signed it
    /// does so at once; the others after some time of chance, by when it is there already.
    pub(super) async fn policies(&self, joined: &Joined) {
        let mut changes = self.0.parts.policies.changes();
        loop {
            changes.mark_unchanged();
            tokio::time::sleep(self.patience()).await;
            let mut pauses = Pauses::new();
            while let Err(error) = self.bring_policy(joined).await {
                tokio::time::sleep(pauses.after(&error)).await;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn patience(&self) -> Duration {
        let members = &self.0.parts.members;
        let author = self
            .0
            .parts
            .policies
            .with_log(|log| log.current().map(dawn_policy::SignedPolicy::author));
        let is_own = match author {
            Some(Issuer::Network(_)) => members.has_network_key(),
            Some(Issuer::Node(node)) => node == members.own().node,
            None => false,
        };
        match is_own {
            true => Duration::ZERO,
            false => OTHERS_TELL.mul_f64(rand::random_range(0.02..1.0)),
        }
    }

    async fn bring_policy(&self, joined: &Joined) -> Result<(), NodeError> {
        let policies = &self.0.parts.policies;
        if policies.with_log(|log| log.current().is_none()) {
            return Ok(());
        }
        let network = self.0.parts.members.network();
        let path = paths::policy(&network);
        let theirs = match joined.plane.get::<PolicyDocument>(&path).await {
            Ok(policy) => Log::load(network, &policy.document.0).ok(),
            Err(error) if error.problem() == Some(Code::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let head = theirs.map(|log| log.head()).unwrap_or_default();
        let lacking = policies.with_log(|log| log.since(&head).map(|_| log.from_owners()));
        let Some(document) = lacking else { return Ok(()) };
        if document.len() > limits::MAX_SIGNED_POLICY_BYTES {
            tracing::warn!(
                bytes = document.len(),
                "the policy is too long for the control plane until the owner applies it anew"
            );
            return Ok(());
        }
        let upload = PolicyUpload {
            document: dawn_control_api::Encoded(document),
        };
        match joined.plane.tell(Method::PUT, &path, &upload).await {
            // Somebody else has brought a later one.
            Err(error) if error.problem() == Some(Code::Conflict) => Ok(()),
            // It will not take it later, either.
            Err(error) if error.problem().is_some_and(|code| code.status() == 422) => {
                tracing::warn!(%error, "the control plane does not take the policy");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Looks now and then for how long the control plane may issue, and tells before that ends.
    pub(super) async fn authorisation(&self, joined: &Joined) {
        let mut pauses = Pauses::new();
        loop {
            let wait = match self.look_at_authorisation(joined).await {
                Ok(()) => {
                    pauses.reset();
                    jittered(LOOK)
                }
                Err(error) => pauses.after(&error.into()),
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn look_at_authorisation(&self, joined: &Joined) -> Result<(), ControlError> {
        let network = self.0.parts.members.network();
        let view: dawn_control_api::IssuerView = joined.plane.get(&paths::issuer(&network)).await?;
        lock(&joined.standing).authorised_until = view.expires;
        if let Some(expires) = view.expires.filter(|expires| is_ending(*expires)) {
            let (url, expires) = (joined.plane.address(), rfc3339(expires));
            tracing::warn!(%url, %expires, "the control plane may not issue for long any more");
            let data = serde_json::json!({ "url": url, "expires": expires });
            self.0.parts.events.say("control.ending", &data);
        }
        Ok(())
    }
}
