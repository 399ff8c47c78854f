//! What becomes of nodes that members tell of.

use super::super::ask::HINTED;
use super::*;

impl TestNode {
    /// Has a node asked, of which a member tells; nothing else may drive its lookups.
    async fn asks(&self, to: Contact) {
        let ask = {
            let mut core = lock(&self.lookup.0.core);
            core.kademlia.heard(to.clone(), Duration::ZERO);
            let begun = core.kademlia.find_nodes(Key::node(&to.node), Duration::ZERO);
            assert!(begun.is_some());
            let actions = std::iter::from_fn(|| core.kademlia.poll_action());
            actions
                .filter(|Action::Ask { to: asked, .. }| asked.node == to.node)
                .last()
        };
        let Some(Action::Ask { id, bytes, .. }) = ask else {
            panic!("it is not asked")
        };
        self.lookup.clone().ask(id, to, bytes).await;
    }
}

#[tokio::test]
async fn of_those_that_a_member_makes_up_few_are_asked() {
    let world = World::new();
    let nodes = world.chain(1).await;
    let [first] = nodes.as_slice() else { unreachable!() };
    let gold = Key::capability("gold");
    let liar = world.start_liar(2, world.network_id(), now(), gold).await;
    liar.links_with(first).await;
    until("it is in the table", || first.lookup.size().members > 0).await;
    // Looked for as an agent and as a capability: each time the liar is asked, and eight whom it made up.
    let sought = first.find("silver").await;
    assert_eq!(sought.asked, 2 * (1 + 8), "{sought:?}");
}

#[tokio::test]
async fn who_waits_in_vain_to_be_dialled_is_not_taken_for_away() {
    let world = World::new();
    let [asker, asked] = [world.start(1).await, world.start(2).await];
    asked.run();
    let hinted = std::sync::Arc::clone(&asker.lookup.0.hinted);
    let turns = hinted.acquire_many_owned(8).await.unwrap();
    asker.asks(contact(2)).await;
    assert_eq!((asker.asked("busy"), asker.asked("answered")), (1, 0));
    drop(turns);
    asker.asks(contact(2)).await;
    assert_eq!((asker.asked("busy"), asker.asked("answered")), (1, 1));
}

#[tokio::test]
async fn a_member_is_asked_and_told_of_where_it_says_itself_that_it_is() {
    let world = World::new();
    let [asker, asked] = [world.start(1).await, world.start(2).await];
    asked.run();
    [&asker, &asked].into_iter().for_each(TestNode::run_directory);
    asked.links_with(&asker).await;
    let said = || asker.directory.addresses_of(asked.id()).unwrap_or_default();
    until("it is known", || !said().is_empty()).await;
    // Nobody wants a connection any more, and there is none.
    for (node, other) in [(&asker, &asked), (&asked, &asker)] {
        node.stop.cancel();
        node.mesh.forget(other.id());
    }
    world.network.part(asker.id(), asked.id());
    world.network.join(asker.id(), asked.id());
    assert!(asker.mesh.peers().is_empty());
    let lie = Contact {
        node: asked.id(),
        addresses: vec!["/ip4/198.51.100.1/udp/1/quic-v1".to_owned()],
    };
    // Nobody gets a turn to be dialled where others say.
    let hinted = std::sync::Arc::clone(&asker.lookup.0.hinted);
    let _turns = hinted.acquire_many_owned(8).await.unwrap();
    timeout(HINTED, asker.asks(lie)).await.expect("it is asked at once");
    assert_eq!(asker.asked("answered"), 1);
    let told = {
        let mut core = lock(&asker.lookup.0.core);
        core.kademlia.find_nodes(Key::node(&asked.id()), Duration::ZERO);
        core.kademlia.poll_action()
    };
    assert!(
        matches!(&told, Some(Action::Ask { to, .. }) if to.addresses == said()),
        "{told:?}"
    );
}
