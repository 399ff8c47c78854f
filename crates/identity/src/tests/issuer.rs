//! Issuers: who issues for the network and is no member of it.

use super::*;
use crate::statement::Issuer;

fn verify(chain: &CertificateChain) -> Result<Membership, CertificateError> {
    chain.verify(&network(), NOW, SKEW, &Revocations::new())
}

/// Node `seed` as an issuer, appointed by the network key.
fn issuer(seed: u8) -> Authority {
    Authority::Delegated {
        key: key(seed),
        chain: Box::new(root().issue(request(seed, Role::Issuer), NOW).unwrap()),
    }
}

/// A certificate made without the checks of [`Authority`].
fn forge(by: u8, subject: u8, roles: impl Into<Roles>) -> Certificate {
    let request = request(subject, roles);
    let claims = Claims {
        network: network(),
        subject: request.subject,
        name: request.name,
        roles: request.roles,
        admitted_at: NOW,
        issued_at: NOW,
        not_before: NOW,
        expires: NOW + DAY,
        serial: request.serial,
    };
    Certificate::sign(claims, Issuer::Node(node(by)), &key(by)).unwrap()
}

#[test]
fn an_issuer_makes_members_and_guests() {
    for role in [Role::Member, Role::Guest] {
        let chain = issuer(6).issue(request(1, role), NOW).unwrap();
        let membership = verify(&CertificateChain::decode(&chain.encode()).unwrap()).unwrap();
        assert_eq!((membership.node, membership.issuer), (node(1), Some(node(6))));
        assert_eq!(membership.roles, role.into());
    }
}

#[test]
fn an_issuer_is_never_a_member() {
    let own = root().issue(request(6, Role::Issuer), NOW).unwrap();
    assert_eq!(verify(&own), Err(CertificateError::NoMembership(node(6))));
    assert_eq!(
        own.leaf.verify_issuer(&network(), NOW, SKEW, &Revocations::new()),
        Ok(())
    );
    // Nor with a role of a member beside it, though the network key itself had signed that.
    for role in [Role::Owner, Role::Admin, Role::Member, Role::Guest] {
        let both = Roles::from(role).with(Role::Issuer);
        assert_eq!(root().issue(request(6, both), NOW), Err(IssueError::IssuerAlone));
        let request = request(6, both);
        let claims = Claims {
            roles: both,
            ..own.leaf.claims().clone()
        };
        let leaf = Certificate::sign(claims, Issuer::Network(network()), &key(200)).unwrap();
        let chain = CertificateChain { leaf, issuer: None };
        assert_eq!(verify(&chain), Err(CertificateError::NoMembership(request.subject)));
    }
}

#[test]
fn an_issuer_makes_neither_issuers_nor_admins_nor_owners() {
    let Authority::Delegated { chain, .. } = issuer(6) else {
        unreachable!()
    };
    for role in [Role::Owner, Role::Admin, Role::Issuer] {
        let asked = issuer(6).issue(request(1, role), NOW);
        assert_eq!(asked, Err(IssueError::RolesTooHigh(role.into())));
        let forged = CertificateChain {
            leaf: forge(6, 1, role),
            issuer: Some(chain.leaf.clone()),
        };
        assert_eq!(verify(&forged), Err(CertificateError::RolesTooHigh(role.into())));
    }
    // Nor itself a member.
    let asked = issuer(6).issue(request(6, Role::Member), NOW);
    assert_eq!(asked, Err(IssueError::NotAuthorised));
    let forged = CertificateChain {
        leaf: forge(6, 6, Role::Member),
        issuer: Some(chain.leaf.clone()),
    };
    assert_eq!(verify(&forged), Err(CertificateError::NoMembership(node(6))));
}

#[test]
fn an_admin_makes_no_issuer() {
    let asked = admin(2).issue(request(6, Role::Issuer), NOW);
    assert_eq!(asked, Err(IssueError::RolesTooHigh(Role::Issuer.into())));
}

#[test]
fn members_of_an_issuer_go_when_it_is_revoked() {
    let chain = issuer(6).issue(request(1, Role::Member), NOW).unwrap();
    for authority in [root(), admin(2)] {
        let revocation = authority.revoke(node(6), NOW).unwrap();
        let set: Revocations = [revocation.verify(&network(), NOW, SKEW).unwrap()]
            .into_iter()
            .collect();
        assert_eq!(
            chain.verify(&network(), NOW, SKEW, &set),
            Err(CertificateError::Issuer(Box::new(CertificateError::Revoked(node(6)))))
        );
    }
}

#[test]
fn an_issuer_puts_members_out_and_nobody_who_would_put_it_out() {
    let by_issuer = |seed| {
        let revocation = issuer(6).revoke(node(seed), NOW + SECOND).unwrap();
        revocation.verify(&network(), NOW + DAY, SKEW).unwrap()
    };
    let mut set: Revocations = [1, 2, 3].map(by_issuer).into_iter().collect();
    for (seed, role, is_out) in [
        (1, Role::Member, true),
        (1, Role::Guest, true),
        (2, Role::Admin, false),
        (3, Role::Owner, false),
    ] {
        assert_eq!(set.is_revoked(&node(seed), role.into(), NOW), is_out, "{role}");
    }
    // Nor another issuer.
    set.add(by_issuer(7));
    assert!(!set.is_revoked(&node(7), Role::Issuer.into(), NOW));
    // An admin whom an issuer revoked revokes the issuer, whose later words are void.
    let end = admin(2).revoke(node(6), NOW + SECOND * 2).unwrap();
    set.add(end.verify(&network(), NOW + DAY, SKEW).unwrap());
    assert!(set.is_revoked(&node(6), Role::Issuer.into(), NOW));
    let late = issuer(6).revoke(node(4), NOW + SECOND * 3).unwrap();
    set.add(late.verify(&network(), NOW + DAY, SKEW).unwrap());
    assert!(!set.is_revoked(&node(4), Role::Member.into(), NOW));
    assert!(set.is_revoked(&node(1), Role::Member.into(), NOW));
}
