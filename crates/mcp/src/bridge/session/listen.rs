//! What a legacy session hears of by itself: one subscription at a modern agent stands for all of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Failure, Session};
use crate::bridge::{LISTS, amended, task, value};
use crate::fault::Fault;
use crate::jsonrpc::{Kind, Message, codes};

/// Resources that a session is subscribed to.
const SUBSCRIBED: usize = 1024;
/// Before a subscription that the agent ended is made again.
const RESUBSCRIBE: Duration = Duration::from_secs(1);

impl Session {
    pub(super) async fn subscribe(self: &Arc<Self>, uri: &str, begin: bool) -> Result<(), Failure> {
        if !self.state().server.subscribe {
            let words = "the agent offers no subscriptions to resources";
            return Err(Failure::rpc(codes::METHOD_NOT_FOUND, words));
        }
        let changed = {
            let mut state = self.state();
            if begin && state.subscribed.len() >= SUBSCRIBED {
                return Err(Failure::rpc(
                    codes::INVALID_PARAMS,
                    "as many resources as can be are subscribed to",
                ));
            }
            if begin {
                state.subscribed.insert(uri.to_owned())
            } else {
                state.subscribed.remove(uri)
            }
        };
        if !changed {
            return Ok(());
        }
        let (acknowledged, acknowledgement) = oneshot::channel();
        self.listen(Some(acknowledged));
        let granted = tokio::time::timeout(self.place.limits.probe, acknowledgement).await;
        match granted {
            Ok(Ok(granted)) if !begin || granted.iter().any(|known| known == uri) => Ok(()),
            Ok(Ok(_)) => {
                self.state().subscribed.remove(uri);
                Err(Failure::rpc(
                    codes::INVALID_PARAMS,
                    "the agent does not grant this subscription",
                ))
            }
            _ => {
                self.state().subscribed.remove(uri);
                Err(self.place.lost().into())
            }
        }
    }

    /// Begins the subscription for what the client is to hear of, in place of the one before.
    pub(super) fn listen(self: &Arc<Self>, mut acknowledged: Option<oneshot::Sender<Vec<String>>>) {
        let (filter, stop, before) = {
            let mut state = self.state();
            let mut filter = json!({});
            for (list, is_told) in LISTS.iter().zip(state.server.lists) {
                if is_told {
                    filter[format!("{list}ListChanged")] = true.into();
                }
            }
            if !state.subscribed.is_empty() {
                filter["resourceSubscriptions"] = json!(state.subscribed);
            }
            let stop = self.stop.child_token();
            let before = state.listening.replace(stop.clone());
            (filter, stop, before)
        };
        if filter.as_object().is_some_and(serde_json::Map::is_empty) {
            if let Some(before) = before {
                before.cancel();
            }
            if let Some(acknowledged) = acknowledged {
                let _ = acknowledged.send(Vec::new());
            }
            return;
        }
        let session = Arc::clone(self);
        self.place.tasks.spawn(async move {
            let mut before = before;
            let listening = async {
                loop {
                    let ended = session.listen_once(&filter, &mut acknowledged, &mut before).await;
                    if let Err(fault) = ended {
                        tracing::debug!(agent = %session.place.agent, %fault, "a subscription ended");
                    }
                    if let Some(before) = before.take() {
                        before.cancel();
                    }
                    tokio::time::sleep(RESUBSCRIBE).await;
                }
            };
            // A newer subscription, or the end of the session, ends this one.
            let _: Option<std::convert::Infallible> = stop.run_until_cancelled(listening).await;
        });
    }

    async fn listen_once(
        &self,
        filter: &Value,
        acknowledged: &mut Option<oneshot::Sender<Vec<String>>>,
        before: &mut Option<CancellationToken>,
    ) -> Result<(), Fault> {
        let lost = self.place.lost();
        let params = json!({ "notifications": filter }).to_string();
        let id = format!("\"dawn-listen-{:016x}\"", rand::random::<u64>());
        let request = amended(
            &Message::request(&id, "subscriptions/listen", &params),
            "",
            &self.meta(false),
        );
        let mut link = (self.open)().await?;
        link.sender
            .send(request.into())
            .await
            .map_err(|error| error.fault(&lost))?;
        while let Some(frame) = link.receiver.recv().await.map_err(|error| error.fault(&lost))? {
            let Ok(peek) = frame.message.peek() else { continue };
            match (peek.kind(), peek.method()) {
                (Kind::Response, _) => break,
                (_, "notifications/subscriptions/acknowledged") => {
                    if let Some(before) = before.take() {
                        before.cancel();
                    }
                    let granted = peek.params.map(value).unwrap_or_default();
                    let granted = granted["notifications"]["resourceSubscriptions"].clone();
                    if let Some(acknowledged) = acknowledged.take() {
                        let _ = acknowledged.send(serde_json::from_value(granted).unwrap_or_default());
                    }
                }
                (_, "notifications/tasks") => {
                    let task = task::to_legacy(&peek.params.map(value).unwrap_or_default());
                    let told = Message::notification("notifications/tasks/status", Some(&task.to_string()));
                    self.tell(told, None).await;
                }
                _ => self.tell(frame.message.clone(), None).await,
            }
        }
        Ok(())
    }
}
