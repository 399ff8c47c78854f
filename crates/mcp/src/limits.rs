//! Every limit of this crate, with its unit. The node's configuration fills it; nothing else holds a limit.

use std::time::Duration;

/// Limits and time-outs of routing, hosting and the gateway.
#[derive(Debug, Clone)]
pub struct McpLimits {
    /// Longest JSON-RPC message, bytes.
    pub message_bytes: usize,
    /// Longest header line of the mesh protocol, bytes.
    pub header_bytes: usize,
    /// Messages that wait in a channel between two tasks before the sender waits.
    pub queue_messages: usize,
    /// Legacy sessions the gateway keeps at once.
    pub sessions: usize,
    /// A legacy session without a request for this long is closed.
    pub session_idle: Duration,
    /// Requests in flight on one session or stdio client.
    pub in_flight: usize,
    /// Messages kept for a legacy client that has no stream open to take them.
    pub backlog_messages: usize,
    /// Bytes kept for a legacy client that has no stream open to take them.
    pub backlog_bytes: usize,
    /// How long opening a link to an agent may take.
    pub open: Duration,
    /// How long an agent may take to answer `initialize` or `server/discover` when it is probed.
    pub probe: Duration,
    /// How long the aggregated endpoint waits for one agent's part of a list.
    pub aggregate: Duration,
    /// A response that takes longer than this is begun as an event stream, so that the client sees it is alive.
    pub sse_after: Duration,
    /// Server-sent events: a comment is sent when a stream was silent this long.
    pub keep_alive: Duration,
    /// WebSocket connections at once.
    pub sockets: usize,
    /// A WebSocket of which nothing was heard for this long, not even an answer to a ping, is closed.
    pub socket_idle: Duration,
    /// How many bytes are read of a WebSocket peer that has not shown who it is.
    pub unproven_bytes: usize,
    /// How long the handshake of a secure channel may take, and a member to show its certificate.
    pub handshake: Duration,
    /// Processes one agent may have at once.
    pub processes_per_agent: usize,
    /// How long an agent may go on with open requests after a stdio client said that nothing more comes.
    pub linger: Duration,
    /// Time from SIGTERM to SIGKILL.
    pub kill_after: Duration,
    /// First delay before a crashed process is started again.
    pub restart_first: Duration,
    /// Longest delay before a crashed process is started again.
    pub restart_max: Duration,
}

impl Default for McpLimits {
    fn default() -> Self {
        Self {
            message_bytes: 64 << 20,
            header_bytes: 4 << 10,
            queue_messages: 256,
            sessions: 1024,
            session_idle: Duration::from_secs(30 * 60),
            in_flight: 4096,
            backlog_messages: 1024,
            backlog_bytes: 16 << 20,
            open: Duration::from_secs(15),
            probe: Duration::from_secs(20),
            aggregate: Duration::from_secs(5),
            sse_after: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            sockets: 256,
            socket_idle: Duration::from_secs(60),
            unproven_bytes: 16 << 10,
            handshake: Duration::from_secs(10),
            processes_per_agent: 64,
            linger: Duration::from_secs(30),
            kill_after: Duration::from_secs(3),
            restart_first: Duration::from_millis(200),
            restart_max: Duration::from_secs(30),
        }
    }
}
