//! Who may admit and revoke whom, and until when.

use super::*;

fn verify(chain: &CertificateChain) -> Result<Membership, CertificateError> {
    chain.verify(&network(), NOW, SKEW, &Revocations::new())
}

/// A revocation set of these, each verified.
fn revoked(revocations: impl IntoIterator<Item = Revocation>) -> Revocations {
    revocations
        .into_iter()
        .map(|revocation| revocation.verify(&network(), NOW + DAY, SKEW).unwrap())
        .collect()
}

#[test]
fn a_member_admitted_by_the_network_key_or_by_an_admin_is_a_member() {
    for chain in chains() {
        let membership = verify(&chain).unwrap();
        assert_eq!(membership.node, node(1));
        assert_eq!(membership.name.as_str(), "node-1");
        assert_eq!(membership.roles, Role::Member.into());
        assert_eq!(membership.expires, NOW + DAY);
        assert_eq!(membership.issuer, chain.issuer.as_ref().map(|_| node(2)));
    }
}

#[test]
fn a_membership_ends_with_the_first_certificate_of_its_chain() {
    let mut long = request(1, Role::Member);
    long.expires = NOW + DAY * 30;
    let chain = admin(2).issue(long, NOW).unwrap();
    assert_eq!(verify(&chain).unwrap().expires, NOW + DAY);
    let error = chain.verify(&network(), NOW + DAY + SKEW, SKEW, &Revocations::new());
    assert_eq!(
        error,
        Err(CertificateError::Issuer(Box::new(CertificateError::Expired(NOW + DAY))))
    );
}

#[test]
fn a_certificate_is_valid_from_its_beginning_to_its_end_give_or_take_the_skew() {
    let [chain, _] = chains();
    let at = |now| chain.verify(&network(), now, SKEW, &Revocations::new()).map(|_| ());
    assert_eq!(at(NOW - SKEW), Ok(()));
    assert_eq!(at(NOW - SKEW - SECOND), Err(CertificateError::NotYetValid(NOW)));
    assert_eq!(at(NOW + DAY + SKEW - SECOND), Ok(()));
    assert_eq!(at(NOW + DAY + SKEW), Err(CertificateError::Expired(NOW + DAY)));
}

#[test]
fn a_certificate_dated_in_the_future_is_refused() {
    let later = NOW + SKEW + SECOND;
    let chain = root().issue(request(1, Role::Member), later).unwrap();
    assert_eq!(verify(&chain), Err(CertificateError::NotYetValid(later)));
}

#[test]
fn a_certificate_of_another_network_is_refused() {
    let other = Authority::Root { key: key(201) };
    let chain = other.issue(request(1, Role::Member), NOW).unwrap();
    assert_eq!(verify(&chain), Err(CertificateError::WrongNetwork(other.network())));
}

#[test]
fn an_admin_grants_neither_owner_nor_admin() {
    for role in [Role::Owner, Role::Admin] {
        let roles = Roles::from(Role::Member).with(role);
        assert_eq!(
            admin(2).issue(request(1, roles), NOW),
            Err(IssueError::RolesTooHigh(roles))
        );
        assert!(root().issue(request(1, roles), NOW).is_ok());
    }
}

#[test]
fn a_forged_grant_of_admin_by_an_admin_is_refused() {
    let Authority::Delegated { key, chain } = admin(2) else {
        unreachable!()
    };
    let forged = CertificateChain {
        leaf: forge(&key, network(), Issuer::Node(key.node_id()), Role::Admin),
        issuer: Some(chain.leaf),
    };
    assert_eq!(verify(&forged), Err(CertificateError::RolesTooHigh(Role::Admin.into())));
}

/// A certificate for node 1 made without the checks of [`Authority`].
fn forge(key: &Keypair, network: NetworkId, issuer: Issuer, role: Role) -> Certificate {
    let claims = Claims {
        network,
        subject: node(1),
        name: "node-1".parse().unwrap(),
        roles: role.into(),
        admitted_at: NOW,
        issued_at: NOW,
        not_before: NOW,
        expires: NOW + DAY,
        serial: Serial::from_bytes([1; 16]),
    };
    Certificate::sign(claims, issuer, key).unwrap()
}

#[test]
fn a_member_that_is_no_admin_admits_nobody() {
    for role in [Role::Member, Role::Guest] {
        let chain = root().issue(request(3, role), NOW).unwrap();
        let pretender = Authority::Delegated {
            key: key(3),
            chain: Box::new(chain.clone()),
        };
        assert_eq!(
            pretender.issue(request(1, Role::Guest), NOW),
            Err(IssueError::NotAuthorised)
        );
        assert_eq!(pretender.revoke(node(1), NOW), Err(IssueError::NotAuthorised));
        let forged = CertificateChain {
            leaf: forge(&key(3), network(), Issuer::Node(node(3)), Role::Guest),
            issuer: Some(chain.leaf),
        };
        assert_eq!(verify(&forged), Err(CertificateError::IssuerMayNotAdmit(node(3))));
    }
}

#[test]
fn a_chain_of_three_is_not_possible() {
    // Node 3 got its certificate from an admin: it cannot go on to admit others, whatever roles it claims.
    let member = admin(2).issue(request(3, Role::Member), NOW).unwrap();
    let grandchild = CertificateChain {
        leaf: forge(&key(3), network(), Issuer::Node(node(3)), Role::Guest),
        issuer: Some(member.leaf.clone()),
    };
    assert_eq!(
        verify(&grandchild),
        Err(CertificateError::Issuer(Box::new(CertificateError::WrongIssuer(
            Issuer::Node(node(2))
        ))))
    );
    let authority = Authority::Delegated {
        key: key(3),
        chain: Box::new(member),
    };
    assert_eq!(
        authority.issue(request(1, Role::Guest), NOW),
        Err(IssueError::NotAuthorised)
    );
}

#[test]
fn a_leaf_needs_the_certificate_of_its_own_issuer() {
    let [_, by_admin] = chains();
    let alone = CertificateChain {
        issuer: None,
        ..by_admin.clone()
    };
    assert_eq!(
        verify(&alone),
        Err(CertificateError::WrongIssuer(Issuer::Node(node(2))))
    );
    let Authority::Delegated { chain: other, .. } = admin(4) else {
        unreachable!()
    };
    let mixed = CertificateChain {
        issuer: Some(other.leaf),
        ..by_admin
    };
    assert_eq!(
        verify(&mixed),
        Err(CertificateError::WrongIssuer(Issuer::Node(node(2))))
    );
    let impostor = CertificateChain {
        leaf: forge(&key(5), network(), Issuer::Network(network()), Role::Owner),
        issuer: None,
    };
    assert_eq!(verify(&impostor), Err(CertificateError::BadSignature));
}

#[test]
fn a_revocation_is_not_read_as_a_certificate() {
    let [revocation, _] = revocations();
    assert!(matches!(
        CertificateChain::decode(&revocation.encode()),
        Err(CertificateError::Malformed(_))
    ));
    let [chain, _] = chains();
    assert!(matches!(
        Revocation::decode(&chain.encode()),
        Err(RevocationError::Malformed(_))
    ));
}

#[test]
fn an_authority_whose_certificate_is_not_its_own_or_not_valid_issues_nothing() {
    let Authority::Delegated { chain, .. } = admin(2) else {
        unreachable!()
    };
    let thief = Authority::Delegated {
        key: key(3),
        chain: chain.clone(),
    };
    assert_eq!(
        thief.issue(request(1, Role::Guest), NOW),
        Err(IssueError::NotAuthorised)
    );
    let late = Authority::Delegated { key: key(2), chain };
    assert_eq!(
        late.issue(request(1, Role::Guest), NOW + DAY),
        Err(IssueError::NotValidNow(CertificateError::Expired(NOW + DAY)))
    );
}

#[test]
fn a_certificate_that_grants_nothing_is_not_issued() {
    let mut backwards = request(1, Role::Member);
    backwards.expires = backwards.not_before;
    assert_eq!(root().issue(backwards, NOW), Err(IssueError::Void));
    assert_eq!(root().issue(request(1, Roles::NONE), NOW), Err(IssueError::Void));
    let mut endless = request(1, Role::Member);
    endless.expires = UnixTime(u64::MAX);
    assert!(matches!(root().issue(endless, NOW), Err(IssueError::Unencodable(_))));
}

#[test]
fn a_revoked_member_is_out_and_one_readmitted_later_is_in_again() {
    for authority in [root(), admin(2)] {
        let revocations = revoked([authority.revoke(node(1), NOW + SECOND).unwrap()]);
        for at in [NOW, NOW + SECOND] {
            let chain = root().issue(request_at(1, Role::Member, at), at).unwrap();
            assert_eq!(
                chain.verify(&network(), NOW, SKEW, &revocations),
                Err(CertificateError::Revoked(node(1)))
            );
        }
        let again = revocations.revoked_at(&node(1)).unwrap() + SECOND;
        let chain = root().issue(request_at(1, Role::Member, again), again).unwrap();
        assert!(chain.verify(&network(), NOW + DAY / 2, SKEW, &revocations).is_ok());
    }
}

#[test]
fn a_renewal_by_somebody_who_has_not_heard_of_the_revocation_does_not_undo_it() {
    let revocations = revoked([root().revoke(node(1), NOW + SECOND).unwrap()]);
    for authority in [root(), admin(2)] {
        let renewed = authority.issue(request(1, Role::Member), NOW + DAY / 2).unwrap();
        assert_eq!(
            renewed.verify(&network(), NOW + DAY / 2, SKEW, &revocations),
            Err(CertificateError::Revoked(node(1)))
        );
    }
}

#[test]
fn nobody_is_admitted_after_the_certificate_was_issued() {
    assert_eq!(
        root().issue(request_at(1, Role::Member, NOW + SECOND), NOW),
        Err(IssueError::Void)
    );
    let mut claims = root()
        .issue(request(1, Role::Member), NOW)
        .unwrap()
        .leaf
        .claims()
        .clone();
    claims.admitted_at = NOW + SECOND;
    let forged = Certificate::sign(claims, Issuer::Network(network()), &key(200)).unwrap();
    assert!(matches!(
        Certificate::decode(&forged.encode()),
        Err(CertificateError::Malformed(_))
    ));
}

#[test]
fn members_admitted_by_an_admin_go_when_it_is_revoked() {
    let [by_root, by_admin] = chains();
    let revocations = revoked([root().revoke(node(2), NOW).unwrap()]);
    assert!(by_root.verify(&network(), NOW, SKEW, &revocations).is_ok());
    assert_eq!(
        by_admin.verify(&network(), NOW, SKEW, &revocations),
        Err(CertificateError::Issuer(Box::new(CertificateError::Revoked(node(2)))))
    );
}

#[test]
fn a_revocation_has_to_come_from_the_network_key_or_an_admin_of_the_time() {
    let verify = |revocation: Revocation| revocation.verify(&network(), NOW, SKEW).map(|_| ());
    let other = Authority::Root { key: key(201) };
    assert_eq!(
        verify(other.revoke(node(1), NOW).unwrap()),
        Err(RevocationError::WrongNetwork(other.network()))
    );
    let future = NOW + SKEW + SECOND;
    assert_eq!(
        verify(root().revoke(node(1), future).unwrap()),
        Err(RevocationError::FromTheFuture(future))
    );
    let sign = |at, issuer, key: &Keypair, certificate| {
        Revocation::sign(network(), node(1), at, issuer, key, certificate).unwrap()
    };
    assert_eq!(
        verify(sign(NOW, Issuer::Network(network()), &key(5), None)),
        Err(RevocationError::BadSignature)
    );
    assert_eq!(
        verify(sign(NOW, Issuer::Node(node(5)), &key(5), None)),
        Err(RevocationError::WrongIssuer(Issuer::Node(node(5))))
    );
    let member = root().issue(request(3, Role::Member), NOW).unwrap().leaf;
    assert_eq!(
        verify(sign(NOW, Issuer::Node(node(3)), &key(3), Some(member))),
        Err(RevocationError::IssuerMayNotRevoke(node(3)))
    );
    let admin = root().issue(request(2, Role::Admin), NOW).unwrap().leaf;
    let late = sign(NOW + DAY + SKEW, Issuer::Node(node(2)), &key(2), Some(admin));
    assert_eq!(
        late.verify(&network(), NOW + DAY * 2, SKEW),
        Err(RevocationError::Issuer(CertificateError::Expired(NOW + DAY)))
    );
}

#[test]
fn the_revocation_of_an_admin_stands_after_its_certificate_expired() {
    let revocation = admin(2).revoke(node(1), NOW).unwrap();
    assert!(revocation.verify(&network(), NOW + DAY * 30, SKEW).is_ok());
}

#[test]
fn a_revoked_admin_revokes_nobody_any_more_whatever_order_the_news_come_in() {
    let early = admin(2).revoke(node(1), NOW).unwrap();
    let end = root().revoke(node(2), NOW + SECOND).unwrap();
    let late = admin(2).revoke(node(3), NOW + SECOND * 2).unwrap();
    for order in [
        [&early, &end, &late],
        [&late, &end, &early],
        [&end, &late, &early],
        [&late, &early, &end],
    ] {
        let set = revoked(order.into_iter().cloned());
        assert!(set.is_revoked(&node(1), Role::Member.into(), NOW));
        assert!(set.is_revoked(&node(2), Role::Member.into(), NOW));
        assert!(!set.is_revoked(&node(3), Role::Member.into(), NOW));
        assert_eq!(
            set.iter().map(Revocation::node).collect::<Vec<_>>(),
            [node(1), node(2), node(3)]
        );
    }
}

#[test]
fn an_admin_does_not_put_an_owner_out_and_the_network_key_does() {
    let owner = root().issue(request(1, Role::Owner), NOW).unwrap();
    let mut set = revoked([admin(2).revoke(node(1), NOW + SECOND).unwrap()]);
    assert!(owner.verify(&network(), NOW, SKEW, &set).is_ok());
    // What an owner revokes with its certificate stands too, an admin's word against it or not.
    let by_owner = Authority::Delegated {
        key: key(1),
        chain: Box::new(owner.clone()),
    };
    let verified = |revocation: Revocation| revocation.verify(&network(), NOW + DAY, SKEW).unwrap();
    set.extend([verified(by_owner.revoke(node(2), NOW + SECOND * 2).unwrap())]);
    assert!(set.is_revoked(&node(2), Role::Admin.into(), NOW));
    set.extend([verified(root().revoke(node(1), NOW + SECOND * 3).unwrap())]);
    assert_eq!(
        owner.verify(&network(), NOW, SKEW, &set),
        Err(CertificateError::Revoked(node(1)))
    );
}

#[test]
fn a_readmitted_admin_may_revoke_again() {
    let later = NOW + SECOND * 10;
    let mut set = revoked([root().revoke(node(2), NOW).unwrap()]);
    let again = Authority::Delegated {
        key: key(2),
        chain: Box::new(root().issue(request_at(2, Role::Admin, later), later).unwrap()),
    };
    set.extend([again
        .revoke(node(1), later)
        .unwrap()
        .verify(&network(), later, SKEW)
        .unwrap()]);
    assert!(set.is_revoked(&node(1), Role::Member.into(), NOW));
}

#[test]
fn a_revocation_is_added_once() {
    let verified = |revocation: Revocation| revocation.verify(&network(), NOW, SKEW).unwrap();
    let mut set = Revocations::new();
    assert!(set.is_empty());
    assert_eq!(set.add(verified(root().revoke(node(1), NOW).unwrap())), Added::New);
    assert_eq!(set.add(verified(root().revoke(node(1), NOW).unwrap())), Added::Known);
    assert_eq!(
        set.add(verified(root().revoke(node(1), NOW - DAY).unwrap())),
        Added::New
    );
    assert_eq!((set.len(), set.revoked_at(&node(1))), (2, Some(NOW)));
}

#[test]
fn one_admin_cannot_fill_the_memory_of_all() {
    let mut set = Revocations::new();
    let added = (0..1100u64)
        .map(|n| admin(2).revoke(node(1), NOW + Duration::from_secs(n)).unwrap())
        .map(|revocation| revocation.verify(&network(), NOW + DAY, SKEW).unwrap())
        .filter(|verified| set.add(verified.clone()) == Added::New)
        .count();
    assert_eq!(added, 1024);
    for (authority, outcome) in [(admin(2), Added::Full), (admin(4), Added::New), (root(), Added::New)] {
        let revocation = authority.revoke(node(3), NOW).unwrap();
        assert_eq!(set.add(revocation.verify(&network(), NOW, SKEW).unwrap()), outcome);
    }
}
