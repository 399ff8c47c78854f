//! What is looked after now and then: devices that nobody decided on are forgotten, and it is told in time that the control
//! plane may not issue for long any more.

use std::time::Duration;

use dawn_control_api::{Actor, Outcome};
use dawn_identity::UnixTime;

use crate::control::{Control, now};
use crate::error::ControlError;
use crate::store::audit::Deed;
use crate::store::networks::{self, NetworkRow};

/// How often.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// An issuer's certificate that ends sooner is told of.
const ENDING: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often it is told of.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps house until it is dropped.
pub(crate) async fn keep(control: Control) {
    let mut told: Option<UnixTime> = None;
    loop {
        if let Err(error) = waiting(&control).await {
            tracing::warn!(%error, "devices that wait for too long were not forgotten");
        }
        let is_due = told.is_none_or(|told| now() >= told + AGAIN);
        match authorisations(&control, is_due).await {
            Ok(()) if is_due => told = Some(now()),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "it was not seen for how long this control plane may issue"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Forgets devices that nobody decided on.
async fn waiting(control: &Control) -> Result<(), ControlError> {
    let before = now() - control.config.limits.waiting_time;
    let forget = control
        .store
        .write(move |tx| Box::pin(async move { tx.forget_waiting(before).await }));
    let forgotten = forget.await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "devices that nobody decided on were forgotten");
    }
    Ok(())
}

/// Looks for how long it may issue, and tells where that is not long.
async fn authorisations(control: &Control, is_due: bool) -> Result<(), ControlError> {
    let rows = networks::all(&mut *control.store.read().await?).await?;
    for row in rows {
        let Some(expires) = row.issuer.as_ref().map(|chain| chain.leaf.claims().expires) else {
            continue;
        };
        control.metrics.authorised(&row.id, expires);
        if is_due && expires <= now() + ENDING {
            tell(control, &row, expires).await?;
        }
    }
    Ok(())
}

async fn tell(control: &Control, network: &NetworkRow, expires: UnixTime) -> Result<(), ControlError> {
    let days = expires.since(now()).as_secs() / (24 * 60 * 60);
    tracing::warn!(
        network = %network.id,
        days,
        "this control plane may not issue for long any more: the owner of the network runs `dawn control authorize`"
    );
    let deed = Deed {
        actor: Actor::System,
        network: Some(network.id),
        action: "network.ending",
        subject: Some(network.id.to_string()),
        outcome: Outcome::Done,
        detail: Some(format!("it may issue for {days} days more")),
        request: None,
        from: None,
    };
    control
        .store
        .write(move |tx| Box::pin(async move { tx.audit(deed).await }))
        .await
}
