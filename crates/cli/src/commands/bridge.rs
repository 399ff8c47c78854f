//! `dawn mcp`: the bridge between a client that speaks MCP over standard I/O and the running node.
//!
//! The bridge reads no message. It asks the node for a connection that carries frames, one a line, and copies: standard
//! input into it, and what comes out of it to standard output. When standard input ends, the node hears so and answers
//! what is open before it ends the connection. Nothing but frames goes to standard output; failures are told on standard
//! error, and where no node runs each request is answered with the error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand, ValueEnum};
use dawn_identity::AgentAddress;
use dawn_mcp::fault::{Fault, FaultCode};
use dawn_mcp::jsonrpc::{Kind, Message};
use dawn_node::client::{Bridge, segment};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::client_config::{self, Change, McpClient};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// How much is copied at once, bytes.
const CHUNK: usize = 128 * 1024;

/// Serve MCP over standard I/O: all agents as one server, or one agent unchanged
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  dawn mcp                          all agents of the network, tools named node__agent__tool\n  dawn mcp lab:files                one agent\n  dawn mcp any:search               the same agent of whichever node is nearest\n  dawn mcp install cursor           writes it into an MCP client's configuration, after showing the change\n  dawn mcp --print-config claude    what an MCP client has to be told"
)]
pub(crate) struct McpArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Print the configuration that an MCP client needs to use this, and serve nothing
    #[arg(long, value_enum, value_name = "CLIENT")]
    print_config: Option<McpClient>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write this into an MCP client's configuration, after showing the change
    Install {
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Take it out of an MCP client's configuration
    Uninstall {
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

/// What a client is to reach.
#[derive(Debug, Clone, Args)]
struct Endpoint {
    /// The agent's address, node:agent; any:agent is the nearest node that has it
    address: Option<AgentAddress>,
    /// A group of agents, [groups.NAME] in config.toml
    #[arg(long, value_name = "NAME", conflicts_with = "address")]
    group: Option<String>,
    /// Whether all tools are listed, or found with the tool find_tools
    #[arg(long, value_enum, conflicts_with = "address")]
    tools: Option<Tools>,
}

/// How tools are disclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tools {
    /// All are listed
    Full,
    /// `find_tools` and `call_tool` stand for all
    Search,
}

impl Endpoint {
    /// The arguments by which a client runs the same.
    fn own(&self) -> Vec<String> {
        let mut own: Vec<String> = self.address.iter().map(ToString::to_string).collect();
        if let Some(group) = &self.group {
            own.extend(["--group".to_owned(), group.clone()]);
        }
        if let Some(tools) = self.tools.and_then(|tools| tools.to_possible_value()) {
            own.extend(["--tools".to_owned(), tools.get_name().to_owned()]);
        }
        own
    }

    /// What a client calls the server.
    fn name(&self) -> String {
        match (&self.address, &self.group) {
            (Some(address), _) => format!("dawn-{}-{}", address.node, address.agent),
            (None, Some(group)) => format!("dawn-{group}"),
            (None, None) => "dawn".to_owned(),
        }
    }
}

pub(crate) fn run(context: &Context, args: &McpArgs) -> Result<(), Failure> {
    match &args.action {
        Some(Action::Install { change, endpoint }) => {
            return client_config::install(context, change, &endpoint.name(), &endpoint.own());
        }
        Some(Action::Uninstall { change, endpoint }) => {
            return client_config::uninstall(context, change, &endpoint.name());
        }
        None => {}
    }
    let endpoint = &args.endpoint;
    if let Some(client) = args.print_config {
        return client_config::print(context, client, &endpoint.name(), &endpoint.own());
    }
    let served = match connect(context, endpoint) {
        Ok(bridge) => carry(bridge),
        Err(failure) => {
            refuse(&failure, io::stdin().lock(), io::stdout().lock());
            Err(failure)
        }
    };
    served.map_err(|failure| {
        // Standard output belongs to the client.
        Output {
            json: false,
            ..context.out
        }
        .failure(&failure);
        Failure::Said(failure.exit_code())
    })
}

/// The endpoint at the node's gateway.
fn path(args: &Endpoint) -> String {
    let mut path = match (&args.address, &args.group) {
        (Some(address), _) => format!(
            "/mcp/{}/{}",
            segment(&address.node.to_string()),
            segment(address.agent.as_str())
        ),
        (None, Some(group)) => format!("/mcp/groups/{}", segment(group)),
        (None, None) => "/mcp".to_owned(),
    };
    if let Some(tools) = args.tools {
        path.push_str(match tools {
            Tools::Full => "?tools=full",
            Tools::Search => "?tools=search",
        });
    }
    path
}

fn connect(context: &Context, args: &Endpoint) -> Result<Bridge, Failure> {
    let path = path(args);
    let client = context.client()?;
    context.wait(async { Ok(client.upgrade(&path).await?) })
}

/// Copies both ways until the node ends the connection.
fn carry(bridge: Bridge) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("the bridge could not be set up", &error);
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    dawn_mcp::host::widen(&stdin);
    dawn_mcp::host::widen(&stdout);
    let Bridge {
        stream: mut node,
        early,
    } = bridge;
    let mut to_node = node.try_clone().map_err(failed)?;
    let said_all = Arc::new(AtomicBool::new(false));
    let saying = Arc::clone(&said_all);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || say(&mut stdin, &mut to_node, &saying))
        .map_err(failed)?;
    let heard = write_all(&mut stdout, &early)
        .map_err(|_| Side::Write)
        .and_then(|()| copy(&mut node, &mut stdout));
    match heard {
        Ok(()) if said_all.load(Ordering::SeqCst) => Ok(()),
        // The client is gone.
        Err(Side::Write) => Err(Failure::Said(0)),
        Ok(()) => Err(broken("the node ended the connection")),
        Err(Side::Read(error)) => Err(broken(&format!("the connection to the node broke: {error}"))),
    }
}

fn broken(words: &str) -> Failure {
    Failure::new(Exit::Failed, "connection_broken", words)
        .next("start the node with `dawn up` if it has ended, then connect again")
}

/// What the client says goes to the node. A client that says nothing more may still be answered.
fn say(stdin: &mut File, to_node: &mut TcpStream, said_all: &AtomicBool) {
    // A node that is gone is noticed by who listens to it.
    if !matches!(copy(stdin, to_node), Err(Side::Write)) {
        said_all.store(true, Ordering::SeqCst);
        let _ = to_node.shutdown(Shutdown::Write);
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Side {
    /// Nothing more can be read, and why.
    Read(io::Error),
    /// Nobody takes what is written.
    Write,
}

fn copy<R: Read + AsFd, W: Write + AsFd>(from: &mut R, to: &mut W) -> Result<(), Side> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) => {
                retry(from, PollFlags::POLLIN, error).map_err(Side::Read)?;
                continue;
            }
        };
        write_all(to, chunk.get(..count).unwrap_or_default()).map_err(|_| Side::Write)?;
    }
}

fn write_all<W: Write + AsFd>(to: &mut W, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) => retry(to, PollFlags::POLLOUT, error)?,
        }
    }
    Ok(())
}

/// Waits where a client handed over a stream that does not block; any other error stays one.
fn retry(stream: &impl AsFd, ready: PollFlags, error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => match poll(&mut [PollFd::new(stream.as_fd(), ready)], PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
        _ => Err(error),
    }
}

/// Answers each request with the failure until the client has nothing more to say.
fn refuse(failure: &Failure, from: impl Read, mut to: impl Write) {
    let words = failure.words().map_or_else(String::new, |(message, next)| match next {
        Some(next) => format!("{message}: {next}"),
        None => message.to_owned(),
    });
    // What the node said of itself is passed on; that it does not run is as if it were offline.
    let code = failure.document().map(|document| document["error"]["code"].clone());
    let code = code.and_then(|code| serde_json::from_value(code).ok());
    let fault = Fault::new(code.unwrap_or(FaultCode::NodeOffline), words);
    for line in BufReader::new(from).split(b'\n') {
        // A client that is gone or cannot be read needs no answer.
        let Ok(line) = line else { return };
        let told = answers(&fault, line).iter().try_for_each(|answer| {
            to.write_all(answer.as_bytes())?;
            to.write_all(b"\n")
        });
        if told.and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn answers(fault: &Fault, line: Vec<u8>) -> Vec<Message> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Vec::new();
    }
    let message = Message::new(line.into());
    let messages = if message.is_batch() {
        message.batch().unwrap_or_default()
    } else {
        vec![message]
    };
    let answer = |message: &Message| match message.peek() {
        Ok(peek) if peek.kind() == Kind::Request => Some(fault.answer(peek.id.map(|id| id.get()))),
        Ok(_) => None,
        Err(error) => Some(Message::error(None, error.code(), &error.to_string(), None)),
    };
    messages.iter().filter_map(answer).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn without_a_node_each_request_is_answered_and_nothing_else() {
        let failure = Failure::new(Exit::NotRunning, "not_running", "no node").next("dawn up");
        let said = concat!(
            "{\"jsonrpc\":\"2.0\",\"id\":1.50,\"method\":\"initialize\"}\n",
            "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n\n",
            "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"tools/list\"}\n",
            "nonsense\n",
        );
        let mut heard = Vec::new();
        refuse(&failure, said.as_bytes(), &mut heard);
        let text = String::from_utf8(heard).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.contains("\"id\":1.50"), "{text}");
        assert_eq!(lines[0]["error"]["code"], -31001);
        assert_eq!(lines[0]["error"]["message"], "no node: dawn up");
        assert_eq!(lines[1]["id"], "x");
        assert_eq!(lines[2]["error"]["code"], -32700);
    }

    #[test]
    fn a_copy_waits_for_streams_that_do_not_block() {
        use std::os::unix::net::UnixStream;
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (mut out, mut seen) = UnixStream::pair().unwrap();
        out.set_nonblocking(true).unwrap();
        let copying = std::thread::spawn(move || copy(&mut theirs, &mut out).is_ok());
        let sent = vec![7; 1 << 20];
        let writing = std::thread::spawn({
            let sent = sent.clone();
            move || ours.write_all(&sent).unwrap()
        });
        let mut got = Vec::new();
        seen.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(copying.join().unwrap());
        assert!(got == sent);
    }
}
