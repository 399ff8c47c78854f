use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::host::{AgentSpec, CallerHint, CallerLimits, Guard, Host, InProcess, Services, Source};
use crate::limits::McpLimits;

struct Silent;

impl InProcess for Silent {
    fn serve(&self, _: tokio::io::DuplexStream) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

type Far = mpsc::Receiver<Result<Frame, Fault>>;

fn state() -> State {
    let host = Host::new(Arc::new(McpLimits::default()), Guard::None, Services::default());
    let name: dawn_identity::AgentName = "shared".parse().unwrap();
    let spec = AgentSpec {
        source: Source::InProcess(Arc::new(Silent)),
        caller: CallerHint::None,
        access: Vec::new(),
        limits: CallerLimits::default(),
    };
    host.add(name.clone(), spec).unwrap();
    let agent = crate::host::lock(&host.0.agents).get(&name).cloned().unwrap();
    State::new(agent, 1 << 20)
}

fn open(state: &mut State, link: u64, caller: &str) -> Far {
    let (client, far) = mpsc::channel(64);
    state.command(Command::Open {
        link,
        mode: Mode::Session,
        caller: Some(caller.to_owned()),
        client,
    });
    far
}

fn say(state: &mut State, link: u64, text: &str) -> Vec<String> {
    state.command(Command::Say {
        link,
        message: Message::new(text.to_owned().into()),
    });
    taken(state)
}

fn hear(state: &mut State, text: &str) -> Vec<String> {
    state.heard(Message::new(text.to_owned().into()));
    taken(state)
}

fn taken(state: &mut State) -> Vec<String> {
    let shown = |message: Message| String::from_utf8_lossy(message.as_bytes()).into_owned();
    state.take().into_iter().map(shown).collect()
}

async fn next(far: &mut Far) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(5), far.recv()).await;
    let frame = frame.expect("in time").expect("a message").unwrap();
    String::from_utf8_lossy(frame.message.as_bytes()).into_owned()
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

fn initialized(state: &mut State) {
    let _ = hear(state, r#"{"jsonrpc":"2.0","id":1,"result":{"capabilities":{}}}"#);
}

#[tokio::test]
async fn a_client_that_leaves_or_cancels_while_it_initializes_does_not_take_that_from_the_others() {
    for leaves in [true, false] {
        let mut state = state();
        let _first = open(&mut state, 1, "a");
        assert_eq!(say(&mut state, 1, INITIALIZED), [""; 0], "not before it is initialized");
        assert_eq!(say(&mut state, 1, INITIALIZE).len(), 1);
        let mut second = open(&mut state, 2, "b");
        assert_eq!(say(&mut state, 2, INITIALIZE), [""; 0]);
        if leaves {
            state.command(Command::Close { link: 1 });
        } else {
            let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
            let _ = say(&mut state, 1, cancel);
        }
        assert_eq!(taken(&mut state), [""; 0], "nothing is cancelled");
        initialized(&mut state);
        assert!(next(&mut second).await.contains("capabilities"));
        assert_eq!(say(&mut state, 2, INITIALIZED), [INITIALIZED]);
    }
}

#[tokio::test]
async fn a_question_goes_to_the_one_caller_and_to_nobody_while_there_are_several() {
    let question = r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}"#;
    let mut state = state();
    let mut first = open(&mut state, 1, "a");
    let _initialize = say(&mut state, 1, INITIALIZE);
    initialized(&mut state);
    let _answer = next(&mut first).await;
    assert_eq!(hear(&mut state, question), [""; 0]);
    assert_eq!(next(&mut first).await, question);
    let mut other = open(&mut state, 2, "b");
    // Whoever was not asked has nothing to answer, and takes nothing from who was.
    let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    assert_eq!(say(&mut state, 2, answer), [""; 0]);
    assert_eq!(say(&mut state, 1, answer), [answer]);
    let refused = hear(&mut state, question);
    assert!(
        refused.len() == 1 && refused[0].contains("several nodes"),
        "{refused:?}"
    );
    assert!(other.try_recv().is_err() && first.try_recv().is_err());
}

#[tokio::test]
async fn what_is_about_a_task_goes_to_the_client_that_made_it() {
    let mut state = state();
    let mut first = open(&mut state, 1, "a");
    let mut other = open(&mut state, 2, "b");
    let _initialize = say(&mut state, 1, INITIALIZE);
    initialized(&mut state);
    let _answer = next(&mut first).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","task":{}}}"#;
    assert_eq!(say(&mut state, 1, call).len(), 1);
    let _ = hear(
        &mut state,
        r#"{"jsonrpc":"2.0","id":2,"result":{"task":{"taskId":"t"}}}"#,
    );
    assert!(next(&mut first).await.contains("taskId"));
    // The other one asked last, and yet it is not asked.
    let _ = say(&mut state, 2, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let question = |task: &str| {
        let related = format!(r#"{{"io.modelcontextprotocol/related-task":{{"taskId":"{task}"}}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{{"_meta":{related}}}}}"#)
    };
    assert_eq!(hear(&mut state, &question("t")), [""; 0]);
    assert_eq!(next(&mut first).await, question("t"));
    assert_eq!(hear(&mut state, &question("unknown")).len(), 1, "refused");
    let told = |task: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{{"taskId":"{task}"}}}}"#)
    };
    let _ = hear(&mut state, &told("t"));
    let _ = hear(&mut state, &told("unknown"));
    assert_eq!(next(&mut first).await, told("t"));
    assert!(first.try_recv().is_err() && other.try_recv().is_err());
    state.command(Command::Close { link: 1 });
    assert_eq!(hear(&mut state, &question("t")).len(), 1, "who made it left");
}

#[tokio::test]
async fn a_client_that_never_answers_is_asked_so_often_and_no_more() {
    let mut state = state();
    let _first = open(&mut state, 1, "a");
    let asked = (0..1000).filter(|id| {
        let question = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
        hear(&mut state, &question).is_empty()
    });
    assert_eq!(asked.count(), QUESTIONS_EACH);
}
