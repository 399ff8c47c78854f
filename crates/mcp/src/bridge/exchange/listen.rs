//! Subscriptions of modern clients to what a legacy session tells.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Event, Failure, Listener, Live, QUEUE, lock};
use crate::bridge::{LISTS, SUBSCRIPTION_KEY, ToClient, task};
use crate::jsonrpc::{Message, Peek, codes};

/// Unregisters a subscription when its exchange ends.
struct Listening {
    live: Arc<Live>,
    key: u64,
    uris: Vec<String>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let gone: Vec<String> = {
            let mut state = lock(&self.live.state);
            state.listeners.remove(&self.key);
            let mut gone = Vec::new();
            for uri in self.uris.drain(..) {
                let left = state.subscribed.get_mut(&uri).map(|count| {
                    *count -= 1;
                    *count
                });
                if left == Some(0) {
                    state.subscribed.remove(&uri);
                    gone.push(uri);
                }
            }
            gone
        };
        let live = Arc::clone(&self.live);
        self.live.place.tasks.clone().spawn(async move {
            for uri in gone {
                if let Err(failure) = live.ask("resources/unsubscribe", &json!({ "uri": uri })).await {
                    tracing::debug!(agent = %live.place.agent, ?failure, "a subscription could not be ended");
                }
            }
        });
    }
}

impl Live {
    /// One subscription, for as long as its client listens.
    pub(super) async fn listen(
        self: &Arc<Self>,
        peek: &Peek<'_>,
        raw: &str,
        to_client: &ToClient,
    ) -> Result<(), Failure> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Filter {
            tools_list_changed: bool,
            prompts_list_changed: bool,
            resources_list_changed: bool,
            resource_subscriptions: BTreeSet<String>,
            task_ids: BTreeSet<String>,
        }
        #[derive(Deserialize)]
        struct Listen {
            notifications: Filter,
        }
        let wanted = peek
            .params
            .and_then(|params| serde_json::from_str::<Listen>(params.get()).ok());
        let wanted = wanted
            .ok_or_else(|| Failure::rpc(codes::INVALID_PARAMS, "the subscription has no valid `notifications`"))?
            .notifications;
        if !wanted.task_ids.is_empty() && !task::is_known_to(peek) {
            return Err(Failure::Error(task::missing()));
        }
        let offered = &self.server["capabilities"];
        let asked = [
            wanted.tools_list_changed,
            wanted.prompts_list_changed,
            wanted.resources_list_changed,
        ];
        let mut granted = json!({});
        let mut lists = [false; 3];
        for (at, list) in LISTS.iter().enumerate() {
            if asked[at] && offered[list]["listChanged"] == true {
                lists[at] = true;
                granted[format!("{list}ListChanged")] = true.into();
            }
        }
        let mut listening = Listening {
            live: Arc::clone(self),
            key: rand::random(),
            uris: Vec::new(),
        };
        if offered["resources"]["subscribe"] == true {
            for uri in &wanted.resource_subscriptions {
                let is_new = {
                    let mut state = lock(&self.state);
                    let count = state.subscribed.entry(uri.clone()).or_default();
                    *count += 1;
                    *count == 1
                };
                listening.uris.push(uri.clone());
                if is_new
                    && let Err(Failure::Fault(fault)) = self.ask("resources/subscribe", &json!({ "uri": uri })).await
                {
                    return Err(fault.into());
                }
            }
            if !listening.uris.is_empty() {
                granted["resourceSubscriptions"] = json!(listening.uris);
            }
        }
        if !wanted.task_ids.is_empty() && self.has_task_calls() {
            granted["taskIds"] = json!(wanted.task_ids);
        }
        let (sender, mut events) = mpsc::channel(QUEUE);
        let listener = Listener {
            events: sender,
            raw_id: raw.to_owned(),
            lists,
            uris: wanted.resource_subscriptions,
            tasks: wanted.task_ids,
        };
        lock(&self.state).listeners.insert(listening.key, listener);
        let params = format!(r#"{{"_meta":{{"{SUBSCRIPTION_KEY}":{raw}}},"notifications":{granted}}}"#);
        let acknowledged = Message::notification("notifications/subscriptions/acknowledged", Some(&params));
        if to_client.send(Ok(acknowledged.into())).await.is_err() {
            return Ok(());
        }
        loop {
            match events.recv().await {
                Some(Event::Notification(message)) => {
                    if to_client.send(Ok(message.into())).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Event::Lost(fault)) => return Err(fault.into()),
                Some(_) => {}
                None => return Err(self.over().into()),
            }
        }
    }
}
