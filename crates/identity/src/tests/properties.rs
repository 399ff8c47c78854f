//! Properties of every encoding: it comes back, damage is noticed, and no input makes a reader panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::admission::AdmissionError;

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn accepted(chain: &[u8]) -> bool {
    CertificateChain::decode(chain)
        .and_then(|chain| chain.verify(&network(), NOW, SKEW, &Revocations::new()))
        .is_ok()
}

fn stands(revocation: &[u8]) -> bool {
    Revocation::decode(revocation)
        .and_then(|revocation| revocation.verify(&network(), NOW, SKEW))
        .is_ok()
}

#[test]
fn any_flipped_bit_in_a_chain_is_refused() {
    for chain in chains() {
        let bytes = chain.encode();
        assert!(accepted(&bytes));
        for bit in 0..bytes.len() * 8 {
            assert!(!accepted(&flipped(&bytes, bit)), "bit {bit}");
        }
    }
}

#[test]
fn any_flipped_bit_in_a_certificate_is_refused() {
    let [chain, _] = chains();
    let bytes = chain.leaf.encode();
    for bit in 0..bytes.len() * 8 {
        if let Ok(leaf) = Certificate::decode(&flipped(&bytes, bit)) {
            let chain = CertificateChain { leaf, issuer: None };
            assert!(!accepted(&chain.encode()), "bit {bit}");
        }
    }
}

#[test]
fn any_flipped_bit_in_a_revocation_is_refused() {
    for revocation in revocations() {
        let bytes = revocation.encode();
        assert!(stands(&bytes));
        for bit in 0..bytes.len() * 8 {
            assert!(!stands(&flipped(&bytes, bit)), "bit {bit}");
        }
    }
}

#[test]
fn any_flipped_bit_in_a_ticket_is_refused() {
    for text in [ticket().to_string(), ticket().to_string().to_ascii_uppercase()] {
        for bit in 0..text.len() * 8 {
            if let Ok(text) = String::from_utf8(flipped(text.as_bytes(), bit)) {
                assert!(text.parse::<Ticket>().is_err(), "bit {bit} of {text}");
            }
        }
    }
}

/// Whether an admission succeeds whose handshake passes through `alter`, with the name of each message.
fn comes_through(alter: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> bool {
    let travel = |name: &str, message: AdmissionMessage| AdmissionMessage::decode(&alter(name, message.encode()?));
    let (mut joiner, commit) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
    let mut admitter = Admitter::new(network(), node(2));
    let mut admission = || {
        let challenge = admitter.on_commit(travel("commit", commit.clone())?, node(1), nonce(2))?;
        let reveal = joiner.on_challenge(travel("challenge", challenge)?)?;
        admitter.on_reveal(travel("reveal", reveal)?, &ticket().secret)
    };
    admission().is_ok()
}

#[test]
fn any_flipped_bit_in_the_handshake_of_an_admission_ends_it() {
    assert!(comes_through(|_, bytes| bytes));
    for (name, message) in messages().into_iter().take(3) {
        for bit in 0..message.encode().unwrap().len() * 8 {
            let alter = |at: &str, bytes: Vec<u8>| if at == name { flipped(&bytes, bit) } else { bytes };
            assert!(!comes_through(alter), "{name}, bit {bit}");
        }
    }
}

#[test]
fn no_flipped_bit_in_an_admission_message_goes_unnoticed() {
    // The answers are vouched for by the encrypted stream and, where it counts, by the signatures in them; a changed
    // byte is never read as the message that was sent.
    for (name, message) in messages() {
        let bytes = message.encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let read = AdmissionMessage::decode(&flipped(&bytes, bit));
            assert_ne!(read, Ok(message.clone()), "{name}, bit {bit}");
        }
    }
}

#[test]
fn anything_behind_a_message_is_refused() {
    for (name, message) in messages() {
        let mut bytes = message.encode().unwrap();
        assert_eq!(AdmissionMessage::decode(&bytes), Ok(message), "{name}");
        bytes.push(0);
        assert_eq!(
            AdmissionMessage::decode(&bytes),
            Err(AdmissionError::Malformed),
            "{name}"
        );
    }
    for chain in chains() {
        let mut bytes = chain.encode();
        bytes.push(0);
        assert!(!accepted(&bytes));
    }
}

#[test]
fn a_ticket_survives_line_breaks_and_capitals_but_not_typing_errors() {
    let text = ticket().to_string();
    assert_eq!(text.parse(), Ok(ticket()));
    assert_eq!(text.to_ascii_uppercase().parse(), Ok(ticket()));
    let wrapped: Vec<String> = text
        .as_bytes()
        .chunks(40)
        .map(|line| String::from_utf8_lossy(line).into())
        .collect();
    assert_eq!(format!(" {} \n", wrapped.join("\r\n  ")).parse(), Ok(ticket()));
    assert_eq!(text[..text.len() - 1].parse::<Ticket>(), Err(TicketError::Damaged));
    assert_eq!(format!("{text}a").parse::<Ticket>(), Err(TicketError::Damaged));
    assert_eq!("dawn1".parse::<Ticket>(), Err(TicketError::Damaged));
    assert_eq!(
        text.replace("dawn1", "dawn2").parse::<Ticket>(),
        Err(TicketError::UnsupportedVersion)
    );
    for other in [
        "",
        "hello",
        "dawn",
        "dawnchorus",
        "https://dawn.example",
        &"dawn1".repeat(1000),
    ] {
        assert_eq!(other.parse::<Ticket>(), Err(TicketError::NotATicket), "{other}");
    }
    assert!(!format!("{:?}", ticket()).contains("8, 8"));
}

#[test]
fn oversized_statements_are_refused_before_they_are_read() {
    assert_eq!(
        CertificateChain::decode(&vec![0; MAX_CHAIN_BYTES + 1]),
        Err(CertificateError::TooLarge)
    );
    assert_eq!(
        Revocation::decode(&vec![0; MAX_REVOCATION_BYTES + 1]),
        Err(RevocationError::TooLarge)
    );
}

#[test]
fn a_hostile_length_costs_nothing() {
    // A list, a byte string and a text that claim to be of 2^63 items, nested lists, and an endless one.
    for head in [0x9b, 0x5b, 0x7b, 0xbb] {
        let bytes = [&[head, 0x7f][..], &[0xff; 7]].concat();
        assert!(CertificateChain::decode(&bytes).is_err());
        assert!(AdmissionMessage::decode(&bytes).is_err());
    }
    for head in [0x81, 0x9f, 0xd2, 0xa1] {
        assert!(CertificateChain::decode(&[head; MAX_CHAIN_BYTES]).is_err());
        assert!(AdmissionMessage::decode(&[head; MAX_CHAIN_BYTES]).is_err());
    }
}

fn any_time() -> impl Strategy<Value = UnixTime> {
    (0..=i64::MAX as u64).prop_map(UnixTime)
}

fn any_roles() -> impl Strategy<Value = Roles> {
    let of_members = vec![Role::Owner, Role::Admin, Role::Member, Role::Guest];
    prop_oneof![
        vec(proptest::sample::select(of_members), 1..4).prop_map(Roles::from),
        Just(Roles::from(Role::Issuer)),
    ]
}

prop_compose! {
    fn any_request()(
        subject: [u8; 32],
        name in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
        roles in any_roles(),
        times in (any_time(), any_time()).prop_filter("not void", |(a, b)| a != b),
        serial: [u8; 16],
    ) -> Request {
        Request {
            subject: NodeId::from_bytes(subject),
            name: name.parse().unwrap(),
            roles,
            admitted_at: UnixTime(0),
            not_before: times.0.min(times.1),
            expires: times.0.max(times.1),
            serial: Serial::from_bytes(serial),
        }
    }
}

prop_compose! {
    fn any_ticket()(
        keys: ([u8; 32], [u8; 32]),
        network_name in "[^\\p{C}\\s]{1,12}( [^\\p{C}\\s]{1,3})?",
        addresses in vec("[!-~]{0,60}", 0..MAX_TICKET_ADDRESSES),
        secrets: ([u8; 8], [u8; 16]),
        expires: u64,
    ) -> Ticket {
        Ticket {
            network: NetworkId::from_bytes(keys.0),
            network_name: network_name.parse().unwrap(),
            issuer: NodeId::from_bytes(keys.1),
            addresses,
            invite: InviteId::from_bytes(secrets.0),
            secret: InviteSecret::from_bytes(secrets.1),
            expires: UnixTime(expires),
        }
    }
}

proptest! {
    #[test]
    fn ids_come_back_from_their_text(bytes: [u8; 32]) {
        let (node, network) = (NodeId::from_bytes(bytes), NetworkId::from_bytes(bytes));
        prop_assert_eq!(node.to_string().parse(), Ok(node));
        prop_assert_eq!(network.to_string().parse(), Ok(network));
    }

    #[test]
    fn chains_come_back_from_their_bytes(request in any_request(), now in any_time(), before in any_time()) {
        let request = Request { admitted_at: now.min(before), ..request };
        let chain = root().issue(request.clone(), now).unwrap();
        let read = CertificateChain::decode(&chain.encode()).unwrap();
        prop_assert_eq!(&read, &chain);
        let claims = read.leaf.claims();
        prop_assert_eq!(claims.subject, request.subject);
        prop_assert_eq!(&claims.name, &request.name);
        prop_assert_eq!(claims.roles, request.roles);
        prop_assert_eq!(claims.admitted_at, request.admitted_at);
        prop_assert_eq!((claims.not_before, claims.expires, claims.issued_at), (request.not_before, request.expires, now));
        let json = serde_json::to_string(&chain).unwrap();
        prop_assert_eq!(serde_json::from_str::<CertificateChain>(&json).unwrap(), chain);
    }

    #[test]
    fn revocations_come_back_from_their_bytes(node: [u8; 32], at in any_time()) {
        let revocation = root().revoke(NodeId::from_bytes(node), at).unwrap();
        prop_assert_eq!(Revocation::decode(&revocation.encode()).unwrap(), revocation);
    }

    #[test]
    fn tickets_come_back_from_their_text(ticket in any_ticket()) {
        prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }

    #[test]
    fn suggested_names_are_valid(host in "\\PC{0,80}") {
        let name = NodeName::suggest(&host);
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn revocations_say_the_same_in_every_order(
        news in vec((0u8..5, 0u8..5, 0u64..6), 1..20).prop_shuffle(),
        rotation in 0usize..20,
    ) {
        // Authority 0 is the network key, the others are admins who also revoke one another.
        let set: Vec<VerifiedRevocation> = news
            .iter()
            .map(|(by, whom, after)| {
                let authority = if *by == 0 { root() } else { admin(*by) };
                let revocation = authority.revoke(node(*whom + 1), NOW + Duration::from_secs(*after)).unwrap();
                revocation.verify(&network(), NOW, SKEW).unwrap()
            })
            .collect();
        let mut turned = set.clone();
        turned.rotate_left(rotation % set.len());
        let (one, other): (Revocations, Revocations) = (set.into_iter().collect(), turned.into_iter().collect());
        for subject in 1..=5 {
            prop_assert_eq!(one.revoked_at(&node(subject)), other.revoked_at(&node(subject)));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(!accepted(&bytes));
        prop_assert!(!stands(&bytes));
        prop_assert!(Certificate::decode(&bytes).is_err());
        prop_assert!(AdmissionMessage::decode(&bytes).is_err());
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        which in 0usize..12,
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut pool: Vec<Vec<u8>> = messages().iter().map(|(_, message)| message.encode().unwrap()).collect();
        pool.extend(chains().iter().map(CertificateChain::encode));
        pool.extend(revocations().iter().map(Revocation::encode));
        let mut bytes = pool.swap_remove(which);
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            // Whatever these say, they say it without a panic.
            drop(CertificateChain::decode(bytes).map(|chain| chain.verify(&network(), NOW, SKEW, &Revocations::new())));
            drop(Revocation::decode(bytes).map(|revocation| revocation.verify(&network(), NOW, SKEW)));
            drop(AdmissionMessage::decode(bytes));
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "(dawn[0-9]|z6Mk|12D3KooW)?\\PC{0,120}") {
        prop_assert!(text.parse::<Ticket>().is_err());
        prop_assert!(text.parse::<NodeId>().is_err());
        prop_assert!(text.parse::<NetworkId>().is_err());
        // Names may well be valid.
        drop(text.parse::<AgentAddress>());
        drop(text.parse::<NetworkName>());
    }
}
