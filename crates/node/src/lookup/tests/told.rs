//! What becomes of nodes that members tell of.

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
    let outcome = first.lookup.look(|core, at| core.kademlia.find_nodes(gold, at)).await;
    assert_eq!(outcome.asked, 1 + 8, "{outcome:?}");
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
