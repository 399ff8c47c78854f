//! The server behind both transports: methods, sessions, subscriptions, cancellation.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tasks::{self, Tasks};
use crate::{Eras, fixtures, input_required, tools};

/// Where messages go.
pub(crate) type Sink = mpsc::UnboundedSender<Value>;

/// A JSON-RPC error: code, message, data.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) i64, pub(crate) String, pub(crate) Value);

impl Failure {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self(code, message.into(), Value::Null)
    }

    /// The error member of a response.
    pub(crate) fn into_error(self) -> Value {
        let Self(code, message, data) = self;
        let mut error = json!({ "code": code, "message": message });
        if !data.is_null() {
            error["data"] = data;
        }
        error
    }
}

pub(crate) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";

/// From the least severe to the most.
const LOG_LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

fn severity(level: &str) -> Option<usize> {
    LOG_LEVELS.iter().position(|known| *known == level)
}

/// What all connections share.
pub(crate) struct Server {
    pub(crate) eras: Eras,
    pub(crate) calls: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) extra_tools: Mutex<Vec<String>>,
    pub(crate) tasks: Tasks,
    listeners: Mutex<HashMap<u64, Listener>>,
    next_listener: AtomicU64,
    connections: Mutex<Vec<Weak<Connection>>>,
}

struct Listener {
    id: Value,
    filter: Value,
    sink: Sink,
    ended: CancellationToken,
}

/// Forgets a listener when its request ends, however it ends.
struct Listening<'a> {
    server: &'a Server,
    key: u64,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.server.listeners.lock().unwrap().remove(&self.key);
    }
}

/// One client: a pipe, or an HTTP session.
pub(crate) struct Connection {
    session: Sink,
    questions: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    asked: Mutex<HashSet<String>>,
    next: AtomicU64,
    running: Mutex<HashMap<String, CancellationToken>>,
    is_initialized: AtomicBool,
    log_level: AtomicUsize,
    subscribed: Mutex<HashSet<String>>,
    capabilities: Mutex<Value>,
    tasks: TaskTracker,
}

/// One request at work.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) params: Value,
    pub(crate) is_modern: bool,
    pub(crate) stop: CancellationToken,
    sink: Sink,
}

impl Connection {
    pub(crate) fn new(server: &Arc<Server>, session: Sink) -> Arc<Self> {
        let connection = Arc::new(Self {
            session,
            questions: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::new(1),
            running: Mutex::default(),
            is_initialized: AtomicBool::new(false),
            log_level: AtomicUsize::new(0),
            subscribed: Mutex::default(),
            capabilities: Mutex::new(json!({})),
            tasks: TaskTracker::new(),
        });
        server.connections.lock().unwrap().push(Arc::downgrade(&connection));
        connection
    }

    /// Lets what is at work finish, for a while.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }

    /// Tells the client something that belongs to no request.
    pub(crate) fn tell(&self, method: &str, params: Value) {
        let _ = self
            .session
            .send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Cancels everything at work.
    pub(crate) fn cancel_all(&self) {
        self.running
            .lock()
            .unwrap()
            .values()
            .for_each(CancellationToken::cancel);
    }
}

impl Call {
    pub(crate) fn notify(&self, method: &str, params: Value) {
        let _ = self
            .sink
            .send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    pub(crate) fn capabilities(&self) -> Value {
        if self.is_modern {
            self.params["_meta"][CAPABILITIES_KEY].clone()
        } else {
            self.connection.capabilities.lock().unwrap().clone()
        }
    }

    /// Logs, if the client wants to read messages of this level.
    pub(crate) fn log(&self, level: &str, data: &Value) {
        let least = if self.is_modern {
            self.params["_meta"][LOG_LEVEL_KEY].as_str().and_then(severity)
        } else {
            Some(self.connection.log_level.load(Ordering::Relaxed))
        };
        if least.is_some_and(|least| severity(level).is_some_and(|level| level >= least)) {
            self.notify("notifications/message", json!({ "level": level, "data": data }));
        }
    }

    pub(crate) fn progress(&self, progress: f64, total: f64) {
        if let Some(token) = self.params["_meta"].get("progressToken") {
            self.notify(
                "notifications/progress",
                json!({ "progressToken": token, "progress": progress, "total": total }),
            );
        }
    }

    /// Asks the client something, as legacy revisions do, and waits for its answer.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Result<Value, Failure> {
        self.ask_as("question", method, params).await
    }

    /// Asks under an id that begins so, and is just that the first time.
    pub(crate) async fn ask_as(&self, name: &str, method: &str, params: Value) -> Result<Value, Failure> {
        let is_first = self.connection.asked.lock().unwrap().insert(name.to_owned());
        let id = if is_first {
            name.to_owned()
        } else {
            format!("{name}-{}", self.connection.next.fetch_add(1, Ordering::Relaxed))
        };
        let (sender, receiver) = oneshot::channel();
        self.connection.questions.lock().unwrap().insert(id.clone(), sender);
        let _ = self
            .sink
            .send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let answer = receiver.await.map_err(|_| Failure::new(-32603, "the client left"))?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(Failure::new(-32603, format!("the client answered {}", answer["error"]))),
        }
    }
}

impl Server {
    pub(crate) fn new(eras: Eras) -> Arc<Self> {
        Arc::new(Self {
            eras,
            calls: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            extra_tools: Mutex::default(),
            tasks: Tasks::default(),
            listeners: Mutex::default(),
            next_listener: AtomicU64::new(0),
            connections: Mutex::default(),
        })
    }

    /// Takes one message; what belongs to it goes to `sink`.
    pub(crate) fn handle(self: &Arc<Self>, connection: &Arc<Connection>, message: Value, sink: &Sink) {
        let id = message.get("id").cloned();
        match (message["method"].as_str(), id) {
            (Some(method), Some(id)) => {
                self.request(connection, method.to_owned(), id, message["params"].clone(), sink);
            }
            (Some("notifications/cancelled"), None) => Self::cancel(connection, &message["params"]["requestId"]),
            (Some(_), None) => {}
            (None, Some(id)) => {
                let waiting = id
                    .as_str()
                    .and_then(|id| connection.questions.lock().unwrap().remove(id));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(message);
                }
            }
            (None, None) => {}
        }
    }

    fn cancel(connection: &Connection, id: &Value) {
        if let Some(stop) = connection.running.lock().unwrap().remove(&id.to_string()) {
            stop.cancel();
        }
    }

    fn request(self: &Arc<Self>, connection: &Arc<Connection>, method: String, id: Value, params: Value, sink: &Sink) {
        let stop = CancellationToken::new();
        connection.running.lock().unwrap().insert(id.to_string(), stop.clone());
        let is_modern = params["_meta"].get(VERSION_KEY).is_some();
        let call = Call {
            server: Arc::clone(self),
            connection: Arc::clone(connection),
            params,
            is_modern,
            stop,
            sink: sink.clone(),
        };
        let (server, sink) = (Arc::clone(self), sink.clone());
        connection.tasks.spawn(async move {
            let stop = call.stop.clone();
            let connection = Arc::clone(&call.connection);
            let answered = tokio::select! {
                answer = server.answer(&method, &id, &call) => Some(answer),
                () = stop.cancelled() => None,
                // A lost connection cancels in the stateless revision only.
                () = sink.closed(), if is_modern => None,
            };
            connection.running.lock().unwrap().remove(&id.to_string());
            match answered {
                None => {
                    server.cancelled.fetch_add(1, Ordering::Relaxed);
                }
                Some(Ok(mut result)) => {
                    if is_modern {
                        finish_modern(&method, &mut result);
                    }
                    let _ = sink.send(json!({ "jsonrpc": "2.0", "id": id, "result": result }));
                }
                Some(Err(failure)) => {
                    let _ = sink.send(json!({ "jsonrpc": "2.0", "id": id, "error": failure.into_error() }));
                }
            }
        });
    }

    async fn answer(self: &Arc<Self>, method: &str, id: &Value, call: &Call) -> Result<Value, Failure> {
        let unknown = || Err(Failure::new(-32601, format!("Method not found: {method}")));
        if call.is_modern {
            if self.eras == Eras::Legacy {
                return unknown();
            }
            let meta = &call.params["_meta"];
            if meta[VERSION_KEY] != MODERN {
                return Err(Failure(
                    -32022,
                    "Unsupported protocol version".into(),
                    json!({ "supported": [MODERN], "requested": meta[VERSION_KEY] }),
                ));
            }
            if !meta[CAPABILITIES_KEY].is_object() {
                return Err(Failure::new(-32602, "params._meta lacks the client's capabilities"));
            }
        } else if self.eras == Eras::Modern && method == "initialize" {
            let requested = call.params["protocolVersion"].clone();
            return Err(Failure(
                -32022,
                format!("There is no initialize in {MODERN}, the only revision spoken here"),
                json!({ "supported": [MODERN], "requested": requested }),
            ));
        } else if self.eras == Eras::Modern
            || (self.eras == Eras::Both && matches!(method, "server/discover" | "subscriptions/listen"))
        {
            return Err(Failure::new(-32602, format!("params._meta lacks {VERSION_KEY}")));
        }
        match (method, call.is_modern) {
            ("server/discover", true) => Ok(
                json!({ "supportedVersions": [MODERN], "capabilities": capabilities(true), "instructions": "a server for tests" }),
            ),
            ("subscriptions/listen", true) => self.listen(id, call).await,
            ("initialize", false) => {
                self.sessions.fetch_add(1, Ordering::Relaxed);
                call.connection.is_initialized.store(true, Ordering::Relaxed);
                *call.connection.capabilities.lock().unwrap() = call.params["capabilities"].clone();
                let wanted = call.params["protocolVersion"].as_str().unwrap_or_default();
                let version = LEGACY.iter().find(|version| **version == wanted).unwrap_or(&LEGACY[0]);
                Ok(json!({ "protocolVersion": version, "capabilities": capabilities(false), "serverInfo": info() }))
            }
            ("ping", false) => Ok(json!({})),
            ("logging/setLevel", false) => match severity(call.params["level"].as_str().unwrap_or_default()) {
                Some(level) => {
                    call.connection.log_level.store(level, Ordering::Relaxed);
                    Ok(json!({}))
                }
                None => Err(Failure::new(-32602, "no such level")),
            },
            ("resources/subscribe", false) => {
                let uri = call.params["uri"].as_str().unwrap_or_default().to_owned();
                call.connection.subscribed.lock().unwrap().insert(uri);
                Ok(json!({}))
            }
            ("resources/unsubscribe", false) => {
                call.connection
                    .subscribed
                    .lock()
                    .unwrap()
                    .remove(call.params["uri"].as_str().unwrap_or_default());
                Ok(json!({}))
            }
            ("tools/list", modern) => Ok(json!({ "tools": tools::list(&self.extra_tools.lock().unwrap(), modern) })),
            ("tools/call", _) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                match tasks::called(call).await {
                    Some(called) => called,
                    None => tools::call(call).await,
                }
            }
            ("prompts/list", _) => Ok(json!({ "prompts": fixtures::prompts() })),
            ("prompts/get", modern) => match call.params["name"].as_str() {
                Some(name) if name == input_required::PROMPT => {
                    input_required::answered(call, modern, input_required::prompt).await
                }
                _ => fixtures::prompt(&call.params),
            },
            ("resources/list", _) => Ok(json!({ "resources": fixtures::resources() })),
            ("resources/templates/list", _) => Ok(json!({ "resourceTemplates": fixtures::templates() })),
            ("resources/read", modern) => fixtures::read(call.params["uri"].as_str().unwrap_or_default(), modern),
            ("completion/complete", _) => {
                Ok(json!({ "completion": { "values": ["paris", "park", "party"], "total": 3, "hasMore": false } }))
            }
            (method, false) => self.tasks.legacy(method, call).await.unwrap_or_else(unknown),
            (method, true) => self.tasks.modern(method, call).unwrap_or_else(unknown),
        }
    }

    async fn listen(&self, id: &Value, call: &Call) -> Result<Value, Failure> {
        let filter = call.params["notifications"].clone();
        if filter.get("taskIds").is_some() {
            tasks::needs_extension(call)?;
        }
        call.notify(
            "notifications/subscriptions/acknowledged",
            json!({ "_meta": { SUBSCRIPTION_KEY: id }, "notifications": filter }),
        );
        let ended = CancellationToken::new();
        let listener = Listener {
            id: id.clone(),
            filter,
            sink: call.sink.clone(),
            ended: ended.clone(),
        };
        let key = self.next_listener.fetch_add(1, Ordering::Relaxed);
        self.listeners.lock().unwrap().insert(key, listener);
        let _listening = Listening { server: self, key };
        ended.cancelled().await;
        Ok(json!({ "_meta": { SUBSCRIPTION_KEY: id } }))
    }

    /// How many subscriptions of the stateless revision are open.
    pub(crate) fn subscriptions(&self) -> usize {
        self.listeners.lock().unwrap().len()
    }

    /// Ends every subscription as a server does that has nothing more to say: with a result.
    pub(crate) fn end_subscriptions(&self) {
        for listener in self.listeners.lock().unwrap().values() {
            listener.ended.cancel();
        }
    }

    /// Tells every client that listens that a list changed.
    pub(crate) fn list_changed(&self, list: &str) {
        let method = format!("notifications/{list}/list_changed");
        self.tell_listeners(&method, &json!({}), |filter| {
            filter[format!("{list}ListChanged")] == true
        });
        for connection in self.connections() {
            if connection.is_initialized.load(Ordering::Relaxed) {
                let _ = connection.session.send(json!({ "jsonrpc": "2.0", "method": method }));
            }
        }
    }

    /// Tells every client that watches a resource that it changed.
    pub(crate) fn updated(&self, uri: &str) {
        let method = "notifications/resources/updated";
        self.tell_listeners(method, &json!({ "uri": uri }), |filter| {
            filter["resourceSubscriptions"]
                .as_array()
                .is_some_and(|uris| uris.iter().any(|known| known == uri))
        });
        for connection in self.connections() {
            if connection.subscribed.lock().unwrap().contains(uri) {
                let _ = connection
                    .session
                    .send(json!({ "jsonrpc": "2.0", "method": method, "params": { "uri": uri } }));
            }
        }
    }

    pub(crate) fn tell_listeners(&self, method: &str, params: &Value, wants: impl Fn(&Value) -> bool) {
        for listener in self
            .listeners
            .lock()
            .unwrap()
            .values()
            .filter(|listener| wants(&listener.filter))
        {
            let mut params = params.clone();
            params["_meta"] = json!({ SUBSCRIPTION_KEY: listener.id });
            let _ = listener
                .sink
                .send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
        }
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let mut connections = self.connections.lock().unwrap();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }
}

fn info() -> Value {
    json!({ "name": "dawn-test-agent", "title": "Dawn's test agent", "version": env!("CARGO_PKG_VERSION") })
}

fn capabilities(is_modern: bool) -> Value {
    let mut capabilities = json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "logging": {},
    });
    if is_modern {
        capabilities["extensions"] = json!({ tasks::EXTENSION: {} });
    } else {
        capabilities["tasks"] = json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } });
    }
    capabilities
}

/// What every modern result carries.
fn finish_modern(method: &str, result: &mut Value) {
    if result.get("resultType").is_none() {
        result["resultType"] = json!("complete");
    }
    let is_cacheable = method.ends_with("/list") || matches!(method, "resources/read" | "server/discover");
    if is_cacheable && result["resultType"] == "complete" {
        result["ttlMs"] = json!(1000);
        result["cacheScope"] = json!("private");
    }
    result["_meta"]["io.modelcontextprotocol/serverInfo"] = info();
}
