//! What only one instance of an agent knows: tasks, and calls that wait for input. Requests about them go to that
//! instance, though each request to an agent of several nodes is routed anew.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use dawn_identity::{AgentName, NodeId};

use crate::jsonrpc::{Members, Message, Peek, text};

/// Tasks and states that are remembered.
const MOST: usize = 4096;

/// Who keeps what.
#[derive(Debug, Default)]
pub(super) struct Keepers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<(AgentName, String), NodeId>,
    order: VecDeque<(AgentName, String)>,
}

/// What a request is about that one instance alone may know: a task, or the state of a call.
pub(crate) fn about(peek: &Peek<'_>) -> Option<String> {
    let key = match peek.method() {
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        "tools/call" | "prompts/get" | "resources/read" => "requestState",
        _ => return None,
    };
    let params = Members::of(peek.params?)?;
    Some(text(params.get(key)?)?.into_owned())
}

impl Keepers {
    /// A message of an instance may say that it keeps something.
    pub(super) fn learn(&self, message: &Message, agent: &AgentName, node: NodeId) {
        let holds = |word: &[u8]| memchr::memmem::find(message.as_bytes(), word).is_some();
        if !holds(b"\"taskId\"") && !holds(b"\"requestState\"") {
            return;
        }
        let result = message.peek().ok().and_then(|peek| peek.result).and_then(Members::of);
        let Some(result) = result else { return };
        let kind = result.get("resultType").and_then(text);
        let key = match kind.as_deref() {
            Some("task") => "taskId",
            Some("input_required") => "requestState",
            _ => return,
        };
        let Some(id) = result.get(key).and_then(text) else {
            return;
        };
        let id = (agent.clone(), id.into_owned());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.nodes.insert(id.clone(), node).is_none() {
            known.order.push_back(id);
        }
        if known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.nodes.remove(&oldest);
        }
    }

    /// Which instance keeps it.
    pub(super) fn keeper(&self, agent: &AgentName, about: &str) -> Option<NodeId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.nodes.get(&(agent.clone(), about.to_owned())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    #[test]
    fn what_an_instance_keeps_is_found_by_what_a_later_request_says() {
        let keepers = Keepers::default();
        let (agent, node): (AgentName, _) = ("files".parse().unwrap(), NodeId::from_bytes([1; 32]));
        for (answer, request, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"a"}}"#,
                r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"a"}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"b"}}"#,
                r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x","requestState":"b"}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","taskId":"c"}}"#,
                r#"{"jsonrpc":"2.0","id":2,"method":"tasks/cancel","params":{"taskId":"c"}}"#,
                false,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
                r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"taskId":"a"}}"#,
                false,
            ),
        ] {
            keepers.learn(&message(answer), &agent, node);
            let request = message(request);
            let about = about(&request.peek().unwrap());
            let keeper = about.and_then(|about| keepers.keeper(&agent, &about));
            assert_eq!(keeper, expected.then_some(node));
        }
        for number in 0..=MOST {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"task","taskId":"{number}"}}}}"#);
            keepers.learn(&message(&answer), &agent, node);
        }
        assert_eq!(keepers.keeper(&agent, "a"), None, "the oldest are forgotten");
        assert_eq!(keepers.keeper(&agent, "4096"), Some(node));
    }
}
