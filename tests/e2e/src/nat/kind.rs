//! The kinds of sites, in the words of RFC 4787, and what theory says of a pair of them.

/// By what a NAT chooses the public port of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// By its inside endpoint alone; also where nothing is translated.
    EndpointIndependent,
    /// By the address it goes to, too.
    AddressDependent,
    /// By the address and the port it goes to, too: "symmetric".
    AddressAndPortDependent,
}

/// From whom a packet to a public endpoint is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// From anybody.
    EndpointIndependent,
    /// From addresses that were sent to.
    AddressDependent,
    /// From endpoints that were sent to.
    AddressAndPortDependent,
}

/// What stands between a host and the public network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: a host with a public address.
    Open,
    /// No NAT, but a firewall that lets in only what answers.
    Firewall,
    /// A NAT that lets everybody in to a port that is in use.
    FullCone,
    /// A NAT that lets in whom was sent to, from whatever port.
    Restricted,
    /// The most common NAT: ports are kept, and only what answers comes in.
    PortRestricted,
    /// A NAT with another port for each address that is sent to.
    AddressMapped,
    /// A NAT with another port, by chance, for each endpoint that is sent to.
    Symmetric,
    /// As `Symmetric`, but the ports follow each other.
    Sequential,
    /// A NAT behind the NAT of a carrier.
    Double,
    /// A NAT that lets no UDP through.
    UdpBlocked,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Firewall,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::AddressMapped,
        Self::Symmetric,
        Self::Sequential,
        Self::Double,
        Self::UdpBlocked,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Firewall => "firewall",
            Self::FullCone => "full cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::AddressMapped => "address-mapped",
            Self::Symmetric => "symmetric",
            Self::Sequential => "sequential",
            Self::Double => "double",
            Self::UdpBlocked => "UDP blocked",
        }
    }

    /// How it maps.
    #[must_use]
    pub fn mapping(self) -> Mapping {
        match self {
            Self::AddressMapped => Mapping::AddressDependent,
            Self::Symmetric | Self::Sequential => Mapping::AddressAndPortDependent,
            _ => Mapping::EndpointIndependent,
        }
    }

    /// How it filters.
    #[must_use]
    pub fn filtering(self) -> Filtering {
        match self {
            Self::Open | Self::FullCone => Filtering::EndpointIndependent,
            Self::Restricted => Filtering::AddressDependent,
            _ => Filtering::AddressAndPortDependent,
        }
    }

    /// Whether UDP comes through.
    #[must_use]
    pub fn has_udp(self) -> bool {
        self != Self::UdpBlocked
    }

    /// Whether what an endpoint of this kind sends first reaches one of the other, both having sent to what a third party
    /// saw of the other's endpoint.
    fn reaches(self, other: Self) -> bool {
        match (other.filtering(), other.mapping()) {
            (Filtering::EndpointIndependent, _) => true,
            // What it sent went out of another port than the one that is known, so that one lets only the third party in.
            (_, Mapping::AddressDependent | Mapping::AddressAndPortDependent) => false,
            (Filtering::AddressDependent, _) => true,
            (Filtering::AddressAndPortDependent, _) => self.mapping() == Mapping::EndpointIndependent,
        }
    }

    /// Whether two hosts reach each other when both send to the endpoint that a third party saw of the other, and answer
    /// to wherever something comes from ("simple hole punching", RFC 5128 section 3.3).
    #[must_use]
    pub fn punches_simply(self, other: Self) -> bool {
        self.reaches(other) || other.reaches(self)
    }

    /// Whether theory allows a hole between the two. Over UDP: simply, or where the one whose endpoint is known sends to many
    /// ports of the other, or to the next ones. Of two whose ports depend on whom they send to neither knows where to send.
    /// Over TCP, where UDP is blocked: if both endpoints are known (RFC 5128, section 3.4).
    #[must_use]
    pub fn punches(self, other: Self) -> bool {
        let is_known = |kind: Self| kind.mapping() == Mapping::EndpointIndependent;
        match self.has_udp() && other.has_udp() {
            true => is_known(self) || is_known(other),
            false => is_known(self) && is_known(other),
        }
    }
}

/// Each pair once, also of a kind with itself.
#[must_use]
pub fn pairs() -> Vec<(Kind, Kind)> {
    let all = Kind::ALL.iter().enumerate();
    all.flat_map(|(at, &a)| Kind::ALL[at..].iter().map(move |&b| (a, b)))
        .collect()
}
