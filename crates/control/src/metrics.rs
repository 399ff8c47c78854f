//! What the control plane counts, in the OpenMetrics text format.

use std::sync::Mutex;
use std::time::Duration;

use dawn_identity::{NetworkId, UnixTime};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::control::locked;

/// A kind of request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: String,
    status: u16,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPresence {
    presence: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNetwork {
    network: String,
}

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    refused: Family<ByCode, Counter>,
    seconds: Histogram,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were refused because there were too many.
    pub connections_refused: Counter,
    devices: Family<ByPresence, Gauge>,
    /// Requests that wait for a change.
    pub waiting: Gauge,
    authorised: Family<ByNetwork, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dawn_control");
        let requests = Family::<Request, Counter>::default();
        let refused = Family::<ByCode, Counter>::default();
        let buckets = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
        let seconds = Histogram::new(buckets);
        let (connections, connections_refused) = (Gauge::default(), Counter::default());
        let devices = Family::<ByPresence, Gauge>::default();
        let waiting = Gauge::default();
        let authorised = Family::<ByNetwork, Gauge>::default();
        registry.register(
            "requests",
            "Requests answered, by route, method and status",
            requests.clone(),
        );
        registry.register(
            "refused",
            "Requests refused, by the code of the problem",
            refused.clone(),
        );
        registry.register(
            "request_seconds",
            "Time to answer, but for requests that wait for a change",
            seconds.clone(),
        );
        registry.register("connections", "Connections that are open", connections.clone());
        registry.register(
            "connections_refused",
            "Connections beyond the limit",
            connections_refused.clone(),
        );
        registry.register("devices", "Approved devices, by presence", devices.clone());
        registry.register(
            "authorised_until",
            "Until when certificates may be issued for a network, seconds since 1970",
            authorised.clone(),
        );
        registry.register("waiting", "Requests that wait for a change", waiting.clone());
        Self {
            registry: Mutex::new(registry),
            requests,
            refused,
            seconds,
            connections,
            connections_refused,
            devices,
            waiting,
            authorised,
        }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, route: &str, method: &str, status: u16, took: Option<Duration>) {
        let request = Request {
            route: route.to_owned(),
            method: method.to_owned(),
            status,
        };
        self.requests.get_or_create(&request).inc();
        if let Some(took) = took {
            self.seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a refusal.
    pub fn refused(&self, code: dawn_control_api::Code) {
        self.refused.get_or_create(&ByCode { code: code.as_str() }).inc();
    }

    /// Notes until when it may issue for a network.
    pub fn authorised(&self, network: &NetworkId, until: UnixTime) {
        let network = network.to_string();
        let until = i64::try_from(until.0).unwrap_or(i64::MAX);
        self.authorised.get_or_create(&ByNetwork { network }).set(until);
    }

    /// Notes how many devices are there: online, idle, offline.
    pub fn devices(&self, [online, idle, offline]: [usize; 3]) {
        for (presence, many) in [("online", online), ("idle", idle), ("offline", offline)] {
            let many = i64::try_from(many).unwrap_or(i64::MAX);
            self.devices.get_or_create(&ByPresence { presence }).set(many);
        }
    }

    /// Everything, as text.
    ///
    /// # Errors
    /// It cannot be written, which does not happen to memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &locked(&self.registry))?;
        Ok(out)
    }
}
