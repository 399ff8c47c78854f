//! A small internet in network namespaces: hosts behind what people have between them and the public network.
//!
//! ```text
//!  host a ── router (NAT) ─┐                       ┌─ router (NAT) ── router (NAT) ── host b     (double)
//!  192.168.1.11            net: routes, 10 ms each way
//!  host c (public) ────────┘                       └─ router (firewall) ── host d (public address)
//! ```
//!
//! Every site has a number N and the public address `11.0.N.2`; private networks are all `192.168.1.0/24`, as at home. What
//! the kernel's rules can do is done by them (`nft`): NATs that keep ports, those that give them by chance, firewalls. Other
//! mappings and filters, and ports that follow each other, are those of [`translator`]. Latency is that of [`middle`], not
//! of `tc netem`, which many kernels lack. Nothing leaves the namespaces, and all of it ends with the [`Internet`].

pub mod kind;
pub mod middle;
pub mod packet;
pub mod pair;
pub mod translator;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

pub use kind::{Filtering, Kind, Mapping, pairs};
use middle::Middle;
pub use pair::{Pair, Way, ways};
use translator::{Behaviour, Ports, Translator};

use crate::lab::{End, Lab};

/// The namespace that everything else hangs on.
const CORE: &str = "net";

/// How long a packet takes from one site to another, unless said otherwise.
pub const LATENCY: Duration = Duration::from_millis(10);

/// By how much the ports of [`Kind::Sequential`] move.
pub const STEP: u16 = 2;

/// Where a host is.
#[derive(Debug, Clone)]
struct Site {
    number: u8,
    device: String,
    /// Its router there, as an address to send everything to.
    gateway: String,
}

/// Sites around a public network.
#[derive(Debug)]
pub struct Internet {
    // Ends before the namespaces do.
    middles: Vec<Middle>,
    sites: BTreeMap<String, Site>,
    built: u8,
    /// The namespaces: one for each host, by its name.
    pub lab: Lab,
}

/// The rules of a router between `lan` and `wan`: what goes out goes, what answers comes in.
fn rules(masquerade: &str, refused: &str) -> String {
    format!(
        r#"table ip lab {{
            chain post {{ type nat hook postrouting priority srcnat; {masquerade}; }}
            chain pass {{
                type filter hook forward priority filter; policy drop;
                {refused};
                ct state established,related accept
                ct status dnat accept
                iifname "lan" accept
            }}
            chain own {{
                type filter hook input priority filter; policy drop;
                iifname != "wan" accept
                ct state established,related accept
            }}
        }}"#
    )
}

const KEEPS_PORTS: &str = r#"oifname "wan" masquerade"#;

impl Internet {
    /// An internet with a host for each name. Where it cannot be made here, says so loudly and gives nothing: the test is
    /// skipped.
    #[must_use]
    pub fn open(sites: &[(&str, Kind)]) -> Option<Self> {
        Self::with_latency(sites, LATENCY)
    }

    /// The same, with another time from one site to another.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn with_latency(sites: &[(&str, Kind)], latency: Duration) -> Option<Self> {
        if let Err(error) = Command::new("nft").arg("--version").output() {
            eprintln!("SKIPPED: `nft` does not start ({error}): `scripts/tools lab` installs it, as root");
            return None;
        }
        let lab = Lab::open(&[CORE])?;
        lab.forwards(CORE);
        let long_way = Middle::run(&lab, CORE, Box::new(move |_, _| Some(latency)));
        let long_way = match long_way {
            Ok(middle) => middle,
            Err(error) => {
                eprintln!("SKIPPED: no way between networks can be made here ({error})");
                return None;
            }
        };
        let mut internet = Self {
            middles: vec![long_way],
            sites: BTreeMap::new(),
            built: 0,
            lab,
        };
        for (name, kind) in sites {
            internet.lab.add(name).expect("a namespace");
            internet.build(name, *kind);
        }
        internet.lab.settle();
        Some(internet)
    }

    /// The public address of a host, or of the NAT that it is behind.
    #[must_use]
    pub fn public(&self, name: &str) -> Ipv4Addr {
        Ipv4Addr::new(11, 0, self.site(name).number, 2)
    }

    fn site(&self, name: &str) -> &Site {
        self.sites.get(name).expect("a host of this internet")
    }

    /// Pulls a host's cable.
    pub fn unplug(&self, name: &str) {
        self.device(name, "down");
    }

    /// Puts it back, with the address that it had.
    pub fn plug(&self, name: &str) {
        self.device(name, "up");
        let default = ["route", "add", "default", "via", &self.site(name).gateway];
        self.lab.ip(name, &default).expect("a route");
        self.lab.settle();
    }

    /// Forwards a port of the router that a host is behind to the host, as people do by hand. For the routers that the
    /// kernel's rules make.
    pub fn forward_port(&self, name: &str, port: u16) {
        let number = self.site(name).number;
        let rules = format!(
            r#"table ip forwarded {{
                chain pre {{
                    type nat hook prerouting priority dstnat;
                    iifname "wan" meta l4proto {{ tcp, udp }} th dport {port} dnat to 192.168.1.{}
                }}
            }}"#,
            10 + number
        );
        self.lab.rules(&format!("r{number}"), &rules).expect("rules");
    }

    fn device(&self, name: &str, state: &str) {
        let set = ["link", "set", &self.site(name).device, state];
        self.lab.ip(name, &set).expect("a device");
    }

    /// Takes a host away from where it is and puts it behind another network of this kind: another address inside and
    /// outside.
    pub fn roam(&mut self, name: &str, kind: Kind) {
        let gone = ["link", "del", self.site(name).device.as_str()].map(str::to_owned);
        let gone: Vec<_> = gone.iter().map(String::as_str).collect();
        self.lab.ip(name, &gone).expect("a device");
        self.build(name, kind);
        self.lab.settle();
    }

    /// Builds a site around a host.
    fn build(&mut self, name: &str, kind: Kind) {
        self.built += 1;
        let number = self.built;
        let router = format!("r{number}");
        let public = format!("11.0.{number}");
        let inside = format!("192.168.1.{}/24", 10 + number);
        match kind {
            Kind::Open => {
                self.to_core(number, name, &format!("eth{number}"), &public);
            }
            Kind::Firewall => {
                self.routed(number, &router, &public);
                self.lab.rules(&router, &rules("", "")).expect("rules");
                self.home(&router, name, number, &public, &format!("{public}.2/24"));
            }
            Kind::PortRestricted | Kind::Symmetric | Kind::UdpBlocked => {
                let masquerade = match kind {
                    Kind::Symmetric => r#"oifname "wan" masquerade fully-random"#,
                    _ => KEEPS_PORTS,
                };
                let refused = match kind {
                    Kind::UdpBlocked => "meta l4proto udp drop",
                    _ => "",
                };
                self.router(&router);
                self.to_core(number, &router, "wan", &public);
                self.lab.rules(&router, &rules(masquerade, refused)).expect("rules");
                self.home(&router, name, number, "192.168.1", &inside);
            }
            Kind::Double => {
                let carrier = format!("isp{number}");
                let between = format!("100.64.{number}");
                self.router(&carrier);
                self.to_core(number, &carrier, "wan", &public);
                self.router(&router);
                self.lab.connect(
                    End {
                        name: &carrier,
                        device: "lan",
                        address: &format!("{between}.1/24"),
                    },
                    End {
                        name: &router,
                        device: "wan",
                        address: &format!("{between}.2/24"),
                    },
                );
                self.leave_by(&router, &format!("{between}.1"));
                for nat in [&carrier, &router] {
                    self.lab.rules(nat, &rules(KEEPS_PORTS, "")).expect("rules");
                }
                self.home(&router, name, number, "192.168.1", &inside);
            }
            Kind::FullCone | Kind::Restricted | Kind::AddressMapped | Kind::Sequential => {
                self.routed(number, &router, &public);
                self.home(&router, name, number, "192.168.1", &inside);
                let ports = match kind {
                    Kind::Sequential => Ports::Step(STEP),
                    _ => Ports::Kept,
                };
                let behaviour = Behaviour {
                    mapping: kind.mapping(),
                    filtering: kind.filtering(),
                    ports,
                };
                let mut translator = Translator::new(Ipv4Addr::new(11, 0, number, 2), behaviour);
                let treat =
                    Box::new(move |packet: &mut [u8], now| translator.pass(packet, now).then_some(Duration::ZERO));
                let middle = Middle::run(&self.lab, &router, treat);
                self.middles.push(middle.expect("a translator"));
            }
        }
        let site = Site {
            number,
            device: format!("eth{number}"),
            gateway: match kind {
                Kind::Open | Kind::Firewall => format!("{public}.1"),
                _ => "192.168.1.1".to_owned(),
            },
        };
        self.sites.insert(name.to_owned(), site);
    }

    fn router(&mut self, name: &str) {
        self.lab.add(name).expect("a namespace");
        self.lab.forwards(name);
    }

    fn leave_by(&self, name: &str, gateway: &str) {
        let default = ["route", "add", "default", "via", gateway];
        self.lab.ip(name, &default).expect("a route");
    }

    /// A cable from the public network, with the address `NETWORK.2` at its far end.
    fn to_core(&self, number: u8, name: &str, device: &str, network: &str) {
        self.lab.connect(
            End {
                name: CORE,
                device: &format!("s{number}"),
                address: &format!("{network}.1/24"),
            },
            End {
                name,
                device,
                address: &format!("{network}.2/24"),
            },
        );
        self.leave_by(name, &format!("{network}.1"));
    }

    /// A router that the public network `network` is behind.
    fn routed(&mut self, number: u8, router: &str, network: &str) {
        self.router(router);
        let transit = format!("10.255.{number}");
        self.to_core(number, router, "wan", &transit);
        let route = [
            "route",
            "add",
            &format!("{network}.0/24"),
            "via",
            &format!("{transit}.2"),
        ];
        self.lab.ip(CORE, &route).expect("a route");
    }

    /// A cable from a router to its host.
    fn home(&self, router: &str, name: &str, number: u8, network: &str, inside: &str) {
        self.lab.connect(
            End {
                name: router,
                device: "lan",
                address: &format!("{network}.1/24"),
            },
            End {
                name,
                device: &format!("eth{number}"),
                address: inside,
            },
        );
        self.leave_by(name, &format!("{network}.1"));
    }
}
