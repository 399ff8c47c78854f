//! The node's metrics in the OpenMetrics text format.

use std::sync::atomic::{AtomicU64, Ordering};

use dawn_mcp::router::Directory as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::node::NodeState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric: Counter = Counter::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let metric: Gauge = Gauge::default();
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, metric);
}

impl NodeState {
    fn punch_metrics(&self, registry: &mut Registry) {
        let mesh = self.mesh.counters();
        for (name, help, of) in [
            (
                "mesh_punches",
                "Holes through NATs that became connections",
                &mesh.punched,
            ),
            (
                "mesh_punches_failed",
                "Tries to punch a hole that found no way",
                &mesh.failed_punches,
            ),
            (
                "mesh_punches_hopeless",
                "Holes not tried: both behind a symmetric NAT, or nothing known of one",
                &mesh.hopeless_punches,
            ),
            (
                "mesh_punches_refused",
                "Holes that peers wanted while too many were under way",
                &mesh.refused_punches,
            ),
            (
                "mesh_dial_backs",
                "Addresses of members that were dialled at their wish",
                &mesh.dial_backs,
            ),
            (
                "mesh_dial_backs_refused",
                "Such wishes that were refused: for the address, or since there were too many",
                &mesh.refused_dial_backs,
            ),
        ] {
            counter(registry, name, help, of.load(Ordering::Relaxed));
        }
    }

    fn forwarding_metrics(&self, registry: &mut Registry) {
        let mesh = self.mesh.counters();
        let words = [
            ("mesh_tunnels_begun", "Tunnels begun, here or by peers", &mesh.tunnels),
            (
                "mesh_tunnels_resumed",
                "Tunnels that went on over another path",
                &mesh.resumed,
            ),
            ("mesh_carriers_accepted", "Carriers for other members", &mesh.carriers),
            ("mesh_carriers_refused", "Carriers refused", &mesh.refused_carriers),
            (
                "mesh_carried_bytes",
                "Bytes carried for other members",
                &mesh.carried_bytes,
            ),
            (
                "mesh_route_queries",
                "Routes asked for by this node",
                &mesh.route_queries,
            ),
            (
                "mesh_route_messages_refused",
                "Messages of route discovery that were refused",
                &mesh.refused_queries,
            ),
        ];
        for (name, help, value) in words {
            counter(registry, name, help, value.load(Ordering::Relaxed));
        }
        gauge(registry, "mesh_tunnels", "Tunnels that are open", self.mesh.tunnels());
        let carriers = self.mesh.carriers();
        gauge(
            registry,
            "mesh_carriers",
            "Streams of other members carried now",
            carriers,
        );
    }

    /// What went through relays, and what this node carries as one.
    fn relay_metrics(&self, registry: &mut Registry) {
        let mesh = self.mesh.counters();
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let relayed = "Connections established through relays";
        counter(registry, "mesh_relayed", relayed, load(&mesh.relayed));
        let reserved = "Reservations that relays gave this node";
        counter(registry, "mesh_reservations", reserved, load(&mesh.reservations));
        let Some(relay) = self.mesh.relay() else { return };
        let (reservations, circuits, bytes) = relay.usage();
        gauge(
            registry,
            "relay_reservations",
            "Reservations of members at this node",
            reservations,
        );
        gauge(registry, "relay_circuits", "Circuits that this node carries", circuits);
        counter(registry, "relay_carried_bytes", "Bytes of circuits carried", bytes);
        let refused: u64 = relay.counters().refused().iter().map(|(_, count)| count).sum();
        counter(registry, "relay_refused", "Reservations and circuits refused", refused);
    }

    fn gossip_metrics(&self, registry: &mut Registry) {
        let linked = self.directory.linked();
        let size = linked.size;
        for (name, help, value) in [
            (
                "gossip_members",
                "Members that the gossip knows, this one included",
                size.members,
            ),
            (
                "gossip_neighbours",
                "Members with whom there is a link",
                linked.neighbours.len(),
            ),
            ("gossip_eager", "Neighbours that news are sent to at once", linked.eager),
            ("gossip_tries", "Links that are tried", size.tries),
            ("gossip_pauses", "Members that are not tried for a while", size.pauses),
            (
                "gossip_kept_bytes",
                "News that are kept for those who ask",
                size.kept_bytes,
            ),
            ("gossip_pending", "News that wait to be read", size.pending),
        ] {
            gauge(registry, name, help, value);
        }
    }

    fn control_metrics(&self, registry: &mut Registry) {
        let counters = self.control.counters();
        for (name, help, value) in [
            (
                "control_beats",
                "Beats that the control plane answered",
                &counters.beats,
            ),
            (
                "control_changes",
                "Changes that the control plane told of",
                &counters.changes,
            ),
            (
                "control_unreachable",
                "Requests to the control plane that got no answer",
                &counters.unreachable,
            ),
            (
                "control_problems",
                "Requests that the control plane refused",
                &counters.problems,
            ),
            (
                "control_not_believed",
                "Answers of the control plane that were not believed or understood",
                &counters.not_believed,
            ),
        ] {
            counter(registry, name, help, value.load(Ordering::Relaxed));
        }
        let reachable = self.control.standing().is_some_and(|standing| standing.reachable);
        gauge(
            registry,
            "control_reachable",
            "Whether the control plane answered the last beat",
            usize::from(reachable),
        );
        let until = self.control.standing().and_then(|standing| standing.authorised_until);
        if let Some(until) = until {
            gauge(
                registry,
                "control_authorised_until",
                "Until when the control plane may issue, seconds since 1970",
                usize::try_from(until.0).unwrap_or(usize::MAX),
            );
        }
    }

    /// Everything that is counted, now.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut registry = Registry::with_prefix("dawn");
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mesh = self.mesh.counters();
        counter(
            &mut registry,
            "mesh_connections",
            "Connections established",
            load(&mesh.connections),
        );
        self.relay_metrics(&mut registry);
        counter(
            &mut registry,
            "mesh_members_refused",
            "Peers whose membership was refused",
            load(&mesh.refused_members),
        );
        counter(
            &mut registry,
            "mesh_members_turned_away",
            "Members that dialled this node and were told through whom it is reached",
            load(&mesh.turned_away),
        );
        counter(
            &mut registry,
            "mesh_strangers_refused",
            "Streams of strangers to protocols of members",
            load(&mesh.refused_strangers),
        );
        counter(
            &mut registry,
            "mesh_streams_refused",
            "Streams over a limit",
            load(&mesh.refused_streams),
        );
        counter(
            &mut registry,
            "mesh_messages_dropped",
            "Published messages that a slow peer missed",
            load(&mesh.dropped_messages),
        );
        self.punch_metrics(&mut registry);
        gauge(
            &mut registry,
            "mesh_peers",
            "Connected members",
            self.mesh.connected().len(),
        );
        self.forwarding_metrics(&mut registry);
        self.gossip_metrics(&mut registry);
        self.control_metrics(&mut registry);
        let gateway = self.gateway.counters();
        counter(
            &mut registry,
            "mcp_posts",
            "HTTP requests with a JSON-RPC message",
            load(&gateway.posts),
        );
        counter(
            &mut registry,
            "mcp_sessions_opened",
            "Legacy sessions opened",
            load(&gateway.sessions),
        );
        counter(
            &mut registry,
            "mcp_exchanges",
            "Modern exchanges",
            load(&gateway.exchanges),
        );
        counter(
            &mut registry,
            "mcp_bridges",
            "Connections of dawn mcp",
            load(&gateway.bridges),
        );
        counter(
            &mut registry,
            "mcp_sockets_opened",
            "Plain WebSocket connections",
            load(&gateway.sockets),
        );
        counter(
            &mut registry,
            "mcp_secure_sockets_opened",
            "WebSocket connections in a secure channel",
            load(&gateway.secure_sockets),
        );
        gauge(
            &mut registry,
            "mcp_sockets",
            "WebSocket connections that are open",
            self.gateway.sockets(),
        );
        let endings = Family::<ByReason, Counter>::default();
        for (reason, count) in gateway.endings() {
            endings.get_or_create(&ByReason { reason: reason.slug() }).inc_by(count);
        }
        registry.register("mcp_sockets_ended", "WebSocket connections that ended", endings);
        counter(
            &mut registry,
            "mcp_refused",
            "Requests refused before they reached an agent",
            load(&gateway.refused),
        );
        counter(
            &mut registry,
            "mcp_admitted",
            "Requests from beyond this machine that were let in",
            load(&gateway.admitted),
        );
        counter(
            &mut registry,
            "mcp_challenged",
            "Requests from beyond this machine that were not let in",
            load(&gateway.challenged),
        );
        gauge(
            &mut registry,
            "mcp_sessions",
            "Legacy sessions that are open",
            self.gateway.sessions(),
        );
        let faults = Family::<ByCode, Counter>::default();
        for (code, count) in gateway.faults() {
            faults.get_or_create(&ByCode { code: code.slug() }).inc_by(count);
        }
        registry.register("mcp_faults", "Errors of the way told to clients", faults);
        counter(
            &mut registry,
            "pin_violations",
            "How often somebody was not who was pinned",
            self.members.pins().violations(),
        );
        for (name, help, counted) in [
            (
                "registry_refused",
                "What members sent of the registry and was not taken",
                self.directory.refused(),
            ),
            (
                "registry_deltas",
                "What became of changes in the registry",
                self.directory.deltas(),
            ),
            (
                "registry_sync",
                "How comparisons of the registry with members ended",
                self.directory.sessions(),
            ),
            (
                "registry_sync_bytes",
                "Bytes of comparisons of the registry, both ways",
                self.directory.session_bytes().to_vec(),
            ),
            (
                "gossip_links",
                "How links with neighbours began and ended",
                self.directory.gossip_links(),
            ),
            (
                "gossip_news",
                "What became of news that neighbours told",
                self.directory.gossip_news(),
            ),
            (
                "gossip_refused",
                "Messages of neighbours that were not taken",
                self.directory.gossip_refused(),
            ),
            (
                "kademlia_refused",
                "What members asked for in lookups and was refused",
                self.lookup.refused(),
            ),
            (
                "kademlia_asked",
                "What became of what members were asked in lookups",
                self.lookup.asked(),
            ),
            (
                "charter",
                "What became of comparisons of documents that hold for all",
                self.charter.counted(),
            ),
            (
                "charter_refused",
                "Documents of members that were refused",
                self.charter.refused(),
            ),
            (
                "orders_refused",
                "Orders of other nodes that were not obeyed",
                self.migrations.refused(),
            ),
            (
                "lock_refused",
                "Statements of the network lock that were not taken",
                self.members.network_lock().refused(),
            ),
            (
                "lock_kept_out",
                "How often the network lock kept somebody out, or this node",
                self.members.network_lock().counted(),
            ),
            (
                "policy_denied",
                "What the network's policy did not allow here, by what was wanted",
                self.policies.denied(),
            ),
            ("keys", "What became of key exchanges", self.exchange.counted()),
            ("envelopes", "What became of envelopes", self.envelopes.counted()),
            (
                "mail",
                "What became of notices to members that were away",
                self.mail.counted(),
            ),
        ] {
            let family = Family::<ByCode, Counter>::default();
            for (code, count) in counted {
                family.get_or_create(&ByCode { code }).inc_by(count);
            }
            registry.register(name, help, family);
        }
        let version = self
            .policies
            .with_log(|log| log.current().map_or(0, dawn_policy::SignedPolicy::version));
        gauge(
            &mut registry,
            "policy_version",
            "The version of the network's policy that is in force here",
            usize::try_from(version).unwrap_or(usize::MAX),
        );
        gauge(
            &mut registry,
            "shared_keys",
            "Keys shared with other nodes",
            self.keyring.all().len(),
        );
        gauge(
            &mut registry,
            "registry_bytes",
            "Memory that the registry takes, about",
            self.directory.bytes(),
        );
        let lookup = self.lookup.size();
        for (name, help, value) in [
            ("kademlia_members", "Members in the table of lookups", lookup.members),
            ("kademlia_words", "Words of providers that are kept here", lookup.words),
            ("kademlia_provided", "Keys that this node provides", lookup.provided),
        ] {
            gauge(&mut registry, name, help, value);
        }
        gauge(
            &mut registry,
            "agents",
            "Agents that can be called",
            self.directory.agents().len(),
        );
        gauge(
            &mut registry,
            "nodes",
            "Nodes that are known",
            self.directory.nodes().len(),
        );
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }
}
