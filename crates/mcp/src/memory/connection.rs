//! One connection to the memory agent: a byte stream with one JSON-RPC message a line.
//!
//! rmcp decides by the first request which era a connection has. Here each request is judged by itself, so that a
//! host may put a legacy session and modern exchanges through one pipe: a request with the modern metadata is
//! modern, any other belongs to the session that `initialize` began, and without either it is refused.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rmcp::ErrorData;
use rmcp::model::{
    ClientNotification, ClientRequest, InitializeResult, ProtocolVersion, RequestMetaObject, ServerResult,
};
use rmcp::service::{NotificationContext, QuitReason, RequestContext, RoleServer, Service, serve_directly};
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::agent::MemoryAgent;
use super::limits;
use super::subscriptions::ListenBounds;

/// Why a connection ended other than by its client's will.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The connection's task failed.
    #[error("the connection to the memory agent broke down")]
    Failed(#[from] JoinError),
}

/// Serves `transport` until the client closes it. Dropping the future closes the connection.
pub(super) async fn serve(
    agent: MemoryAgent,
    transport: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(), ConnectionError> {
    let (read, write) = tokio::io::split(transport);
    let ended = CancellationToken::new();
    let read = UntilEnd {
        read,
        ended: ended.clone(),
    };
    let transport = AsyncRwTransport::<RoleServer, _, _>::new(read, write).with_max_line_length(limits::LINE_BYTES);
    let connection = Connection {
        agent,
        initialized: AtomicBool::new(false),
        ended,
    };
    match serve_directly(connection, transport, None).waiting().await? {
        QuitReason::JoinError(error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// What rmcp calls for each message of a connection.
struct Connection {
    agent: MemoryAgent,
    initialized: AtomicBool,
    ended: CancellationToken,
}

impl Connection {
    /// Refuses a request that belongs to no era.
    fn check_era(&self, request: &ClientRequest, meta: &RequestMetaObject) -> Result<(), ErrorData> {
        let needs_no_session = matches!(
            request,
            ClientRequest::InitializeRequest(_) | ClientRequest::PingRequest(_)
        );
        if needs_no_session || self.initialized.load(Ordering::Acquire) {
            return Ok(());
        }
        let missing = meta.missing_required_keys(&ProtocolVersion::V_2026_07_28);
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "send `initialize` first, or give each request these fields of _meta: {}",
            missing.join(", ")
        );
        Err(ErrorData::invalid_params(message, None))
    }
}

impl Service<RoleServer> for Connection {
    async fn handle_request(
        &self,
        request: ClientRequest,
        mut context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        self.check_era(&request, &context.meta)?;
        if matches!(request, ClientRequest::SubscriptionsListenRequest(_)) {
            let bounds = ListenBounds {
                changes: self.agent.store().changes(),
                ended: self.ended.clone(),
            };
            // Nothing else puts such a value there, so none is replaced.
            let _ = context.extensions.insert(bounds);
        }
        let result = Box::pin(Service::handle_request(&self.agent, request, context)).await;
        if matches!(result, Ok(ServerResult::InitializeResult(_))) {
            self.initialized.store(true, Ordering::Release);
        }
        result
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Service::handle_notification(&self.agent, notification, context).await
    }

    fn get_info(&self) -> InitializeResult {
        Service::get_info(&self.agent)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Service::supported_protocol_versions(&self.agent)
    }
}

/// A reading half that says when it has ended. rmcp waits for requests under way before it closes, so subscriptions
/// have to learn of the end from here.
struct UntilEnd<R> {
    read: R,
    ended: CancellationToken,
}

impl<R: AsyncRead + Unpin> AsyncRead for UntilEnd<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let result = ready!(Pin::new(&mut self.read).poll_read(context, buffer));
        if result.is_err() || (room > 0 && buffer.filled().len() == before) {
            self.ended.cancel();
        }
        Poll::Ready(result)
    }
}
