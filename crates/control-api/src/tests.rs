//! What goes over the wire, as JSON.

use dawn_identity::{Authority, Keypair, NetworkId, NodeId, Request, Role, Roles, Serial, UnixTime};
use serde_json::json;

use crate::*;

fn network() -> NetworkId {
    Keypair::from_seed([1; 32]).network_id()
}

fn node() -> NodeId {
    Keypair::from_seed([2; 32]).node_id()
}

fn device() -> Device {
    Device {
        node: node(),
        name: "laptop".parse().unwrap(),
        state: State::Approved,
        role: Role::Member,
        person: Some(PersonId::from_bytes([3; 16])),
        software: Some("dawn/0.1.0".to_owned()),
        addresses: vec!["/ip4/192.0.2.1/udp/7401/quic-v1".to_owned()],
        presence: Presence::Online,
        presence_since: UnixTime(5),
        last_seen: Some(UnixTime(6)),
        registered_at: UnixTime(1),
        admitted_at: Some(UnixTime(2)),
        expires: Some(UnixTime(9)),
        words: None,
    }
}

#[test]
fn a_change_says_its_kind_and_one_of_a_later_version_is_passed_over() {
    let root = Authority::Root {
        key: Keypair::from_seed([1; 32]),
    };
    let revocation = Box::new(root.revoke(node(), UnixTime(3)).unwrap());
    let news = [
        (
            "device",
            News::Device {
                device: Box::new(device()),
            },
        ),
        (
            "presence",
            News::Presence {
                node: node(),
                presence: Presence::Idle,
                since: UnixTime(4),
            },
        ),
        ("removed", News::Removed { node: node() }),
        ("revocation", News::Revocation { revocation }),
        (
            "relays",
            News::Relays {
                relays: Relays::default(),
            },
        ),
    ];
    for (number, (kind, news)) in (1..).zip(news) {
        let at = UnixTime(7);
        let change = Change { number, at, news };
        let value = serde_json::to_value(&change).unwrap();
        assert_eq!(value["kind"], kind);
        assert_eq!(value["number"], number);
        assert_eq!(serde_json::from_value::<Change>(value).unwrap(), change);
    }
    let later = json!({"number": 9, "at": 1, "kind": "weather", "rain": {"tomorrow": true}});
    assert_eq!(serde_json::from_value::<Change>(later).unwrap().news, News::Unknown);
}

#[test]
fn chains_travel_in_json() {
    let root = Authority::Root {
        key: Keypair::from_seed([1; 32]),
    };
    let request = Request {
        subject: node(),
        name: "laptop".parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(1),
        not_before: UnixTime(1),
        expires: UnixTime(9),
        serial: Serial::from_bytes([4; 16]),
    };
    let chain = root.issue(request, UnixTime(1)).unwrap();
    let registered = Registered {
        device: device(),
        network_name: "home".parse().unwrap(),
        membership: Some(Membership {
            chain,
            renew_at: UnixTime(5),
        }),
    };
    let text = serde_json::to_string(&registered).unwrap();
    assert_eq!(serde_json::from_str::<Registered>(&text).unwrap(), registered);
}

#[test]
fn what_a_request_says_that_is_not_known_is_refused() {
    assert!(serde_json::from_value::<Heartbeat>(json!({"leaving": true})).is_ok());
    assert!(serde_json::from_value::<Heartbeat>(json!({"leaving": true, "loud": 1})).is_err());
    assert!(serde_json::from_value::<ChangesQuery>(json!({"since": 3, "sinse": 4})).is_err());
    assert!(serde_json::from_value::<Approve>(json!({"role": "emperor"})).is_err());
}

#[test]
fn ids_in_paths_have_nothing_to_escape() {
    let path = paths::heartbeat(&network(), &node());
    assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/'));
    assert!(path.starts_with("/v1/networks/z6Mk") && path.ends_with("/heartbeat"));
    assert_eq!(
        paths::token(TokenId::from_bytes([0xab; 16])),
        format!("/v1/tokens/{}", "ab".repeat(16))
    );
}

#[test]
fn cursors_are_opaque_and_of_bounded_length() {
    let cursor = Cursor::of(b"after 7").unwrap();
    assert_eq!(cursor.bytes().unwrap(), b"after 7");
    assert!(Cursor::of(&[0; 193]).is_err());
    for text in ["", "a b", "a'b", "é", &"a".repeat(257)] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
    assert_eq!(
        PageQuery {
            limit: Some(1_000_000),
            cursor: None
        }
        .items(),
        limits::MAX_PAGE_ITEMS
    );
    assert_eq!(PageQuery::default().items(), limits::PAGE_ITEMS);
}

#[test]
fn ids_come_back_from_their_text_and_from_nothing_else() {
    let id = PersonId::from_bytes([0xcd; 16]);
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", "cd", &"CD".repeat(16), &"cd".repeat(17), &"zz".repeat(16)] {
        assert_eq!(text.parse::<PersonId>(), Err(ParseIdError));
    }
}
