//! The policy of one node beside its members: what counts does not depend on what came first.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::{Authority, CertificateChain, Keypair, Request, Serial, UnixTime};
use tempfile::TempDir;

use super::*;
use crate::charter::Document as _;
use crate::config::Config;
use crate::members::meta;

const NO_ADMINS: &str = "[[deny]]\nname = \"the owner alone\"\nwho = [\"role:admin\"]\nwhat = [\"administer *\"]\n";

fn key(node: u8) -> Keypair {
    Keypair::from_seed([node; 32])
}

fn chain(node: u8, role: Role) -> CertificateChain {
    let admitted = UnixTime(now().0 - 3600);
    let request = Request {
        subject: key(node).node_id(),
        name: format!("node-{node}").parse().unwrap(),
        roles: Roles::from(role),
        admitted_at: admitted,
        not_before: admitted,
        expires: now() + Duration::from_secs(86_400),
        serial: Serial::from_bytes([node; 16]),
    };
    Authority::Root { key: key(200) }.issue(request, admitted).unwrap()
}

/// The home of a node of the network.
async fn home(node: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
    let network = key(200).network_id();
    store.set(meta::NETWORK_ID, network.as_bytes()).await.unwrap();
    store.set(meta::NETWORK_NAME, b"test").await.unwrap();
    store
        .set(meta::CHAIN, &chain(node, Role::Member).encode())
        .await
        .unwrap();
    store.close().await;
    folder
}

async fn open(node: u8, home: &Path) -> (Members, Policies) {
    let (store, events) = (Store::open(&home.join("dawn.db")).await.unwrap(), Events::default());
    let root = (node == 1).then(|| key(200));
    let config = Config::default();
    let members = Members::load(store.clone(), key(node), root, &config, events.clone(), home)
        .await
        .unwrap();
    let policies = Policies::load(store, members.clone(), events).await.unwrap();
    members.set_policies(policies.clone());
    (members, policies)
}

#[tokio::test]
async fn whether_a_revocation_counts_does_not_depend_on_what_a_node_heard_of_first() {
    let homes = [home(1).await, home(2).await];
    let (first, policy) = open(1, homes[0].path()).await;
    let (second, late) = open(2, homes[1].path()).await;
    policy.apply(NO_ADMINS).await.unwrap();
    let admin = Authority::Delegated {
        key: key(3),
        chain: Box::new(chain(3, Role::Admin)),
    };
    let revocation = admin.revoke(key(5).node_id(), now()).unwrap();
    let bytes = Bytes::from(revocation.encode());
    assert_eq!(first.add_revocation(&bytes).await.unwrap_err().code(), "policy_denied");
    assert!(second.add_revocation(&bytes).await.unwrap());
    assert!(first.revoked_nodes().is_empty() && second.revoked_nodes() == [key(5).node_id()]);
    // What the other one has not heard of yet is taken back.
    let given = policy.since(&late.head()).unwrap();
    assert_eq!(late.take(key(1).node_id(), given).await, Ok(true));
    assert!(second.revoked_nodes().is_empty());
    for members in [&first, &second] {
        assert!(!members.add_revocation(&bytes).await.unwrap(), "it is known");
    }
    drop((second, late));
    let (again, _late) = open(2, homes[1].path()).await;
    assert!(again.revoked_nodes().is_empty(), "and after a restart");
    // The owner's word counts whatever a policy says.
    let known = crate::members::Known::unheard(key(5).node_id());
    first.revoke(&known).await.unwrap();
    assert_eq!(first.revoked_nodes(), [key(5).node_id()]);
}

#[tokio::test]
async fn who_may_not_administer_nodes_by_the_policy_orders_nobody_about() {
    let folder = home(1).await;
    let (members, policies) = open(1, folder.path()).await;
    let admin = members.membership(&chain(3, Role::Admin).encode()).unwrap();
    let member = members.membership(&chain(4, Role::Member).encode()).unwrap();
    assert_eq!(policies.may_order(&admin), Ok(()));
    assert!(policies.may_order(&member).is_err());
    policies.apply(NO_ADMINS).await.unwrap();
    assert!(policies.may_order(&admin).is_err());
    assert_eq!(policies.may_order_itself(), Ok(()), "the owner always may");
    assert_eq!(policies.denied(), [("administer", 2)]);
}
