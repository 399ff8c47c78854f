//! Who may use a relay token, and when.

use proptest::prelude::*;

use super::*;

fn verify(token: &RelayToken, peer: u8, at: UnixTime) -> Result<RelayClaims, RelayTokenError> {
    token.verify(&network(), &node(peer), at, SKEW, &Revocations::new())
}

#[test]
fn a_relay_token_is_good_for_its_peer_until_it_expires() {
    for token in relay_tokens() {
        let read = RelayToken::decode(&token.encode()).unwrap();
        assert_eq!(read, token);
        assert_eq!(verify(&read, 1, NOW).unwrap().subject, node(1));
        assert_eq!(verify(&read, 3, NOW), Err(RelayTokenError::WrongPeer(node(1))));
        let late = verify(&read, 1, NOW + DAY + SKEW);
        assert!(
            matches!(late, Err(RelayTokenError::Expired(_) | RelayTokenError::Issuer(_))),
            "{late:?}"
        );
        let early = verify(&read, 1, NOW - SKEW - SECOND);
        assert!(
            matches!(early, Err(RelayTokenError::NotYetValid(_) | RelayTokenError::Issuer(_))),
            "{early:?}"
        );
    }
}

#[test]
fn a_relay_token_ends_with_the_revocation_of_its_peer_or_of_its_issuer() {
    let [by_root, by_admin] = relay_tokens();
    let revoked = |who: u8| {
        let mut revocations = Revocations::new();
        let revocation = root().revoke(node(who), NOW).unwrap();
        revocations.add(revocation.verify(&network(), NOW, SKEW).unwrap());
        revocations
    };
    let check = |token: &RelayToken, revocations| token.verify(&network(), &node(1), NOW, SKEW, &revocations);
    assert_eq!(check(&by_root, revoked(1)), Err(RelayTokenError::Revoked(node(1))));
    assert!(check(&by_root, revoked(2)).is_ok());
    assert!(matches!(check(&by_admin, revoked(2)), Err(RelayTokenError::Issuer(_))));
}

#[test]
fn a_member_that_is_no_admin_makes_no_relay_tokens() {
    let chain = Box::new(root().issue(request(1, Role::Member), NOW).unwrap());
    let member = Authority::Delegated { key: key(1), chain };
    let serial = Serial::from_bytes([1; 16]);
    let made = member.relay_token(node(1), RelayQuota::default(), NOW + DAY, serial, NOW);
    assert_eq!(made, Err(IssueError::NotAuthorised));
    let void = root().relay_token(node(1), RelayQuota::default(), NOW, serial, NOW);
    assert_eq!(void, Err(IssueError::Void));
}

#[test]
fn an_admins_token_ends_with_its_certificate_and_the_network_keys_when_it_says() {
    let serial = Serial::from_bytes([1; 16]);
    let asked = NOW + 30 * DAY;
    let by = |authority: Authority| {
        authority
            .relay_token(node(1), RelayQuota::default(), asked, serial, NOW)
            .unwrap()
    };
    assert_eq!(by(root()).claims().expires, asked);
    let by_admin = by(admin(2));
    assert_eq!(by_admin.claims().expires, NOW + DAY);
    assert_eq!(verify(&by_admin, 1, NOW).unwrap().expires, NOW + DAY);
    assert!(by_admin.certificate().is_some());
}

proptest! {
    #[test]
    fn an_altered_relay_token_is_refused(at: prop::sample::Index, bit in 0u8..8, admin: bool) {
        let token = &relay_tokens()[usize::from(admin)];
        let mut bytes = token.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let read = RelayToken::decode(&bytes);
        prop_assert!(read.is_err() || verify(&read.unwrap(), 1, NOW).is_err());
    }

    #[test]
    fn what_a_token_grants_comes_back_from_its_bytes(circuits: Option<u32>, bytes: Option<u32>, rate: Option<u32>) {
        let quota = RelayQuota {
            circuits: circuits.map(u64::from),
            bytes: bytes.map(u64::from),
            bytes_per_second: rate.map(u64::from),
        };
        let token = root().relay_token(node(1), quota, NOW + DAY, Serial::from_bytes([1; 16]), NOW).unwrap();
        prop_assert_eq!(RelayToken::decode(&token.encode()).unwrap().claims().quota, quota);
    }
}
