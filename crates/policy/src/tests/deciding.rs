//! Who may do what.

use dawn_identity::{Role, Roles};
use proptest::prelude::*;

use crate::{Action, Administered, Person, Policy, Subject, Target, Verdict, Who};

fn node(name: &str, role: Role) -> Subject<'_> {
    Subject {
        node: format!("id-of-{name}"),
        name,
        roles: Roles::from(role),
        person: None,
    }
}

const NOTES: Target<'static> = Target {
    node: "home",
    node_id: "id-of-home",
    agent: "notes",
};

fn decide(policy: &str, subject: &Subject<'_>, action: &Action<'_>) -> (Verdict, String) {
    let decision = Policy::parse(policy).unwrap().decide(subject, action);
    (decision.verdict, decision.reason.to_string())
}

#[test]
fn without_rules_members_may_and_guests_may_not() {
    let actions = [
        Action::Call(NOTES, Some("read")),
        Action::Submit("embed"),
        Action::Relay,
    ];
    for action in actions {
        for (role, verdict) in [
            (Role::Owner, Verdict::Allow),
            (Role::Admin, Verdict::Allow),
            (Role::Member, Verdict::Allow),
            (Role::Guest, Verdict::Deny),
        ] {
            let (decided, reason) = decide("", &node("den", role), &action);
            assert_eq!(decided, verdict, "{role} {action}: {reason}");
            assert!(reason.starts_with("what holds for "), "{reason}");
        }
    }
    for action in [Action::Invite(Role::Guest), Action::Administer(Administered::Policy)] {
        for role in [Role::Owner, Role::Admin, Role::Member, Role::Guest] {
            let is_allowed = decide("", &node("den", role), &action).0 == Verdict::Allow;
            assert_eq!(
                is_allowed,
                role == Role::Owner || role == Role::Admin,
                "{role} {action}"
            );
        }
    }
}

#[test]
fn the_owner_can_always_administer() {
    let policy = "[[deny]]\nwho = [\"*\"]\nwhat = [\"*\"]\n";
    let owner = node("home", Role::Owner);
    let (verdict, reason) = decide(policy, &owner, &Action::Administer(Administered::Policy));
    assert_eq!(
        (verdict, reason.as_str()),
        (Verdict::Allow, "that the owner administers the network")
    );
    assert_eq!(decide(policy, &owner, &Action::Relay).0, Verdict::Deny);
    let admin = node("lab", Role::Admin);
    assert_eq!(
        decide(policy, &admin, &Action::Administer(Administered::Policy)).0,
        Verdict::Deny
    );
}

#[test]
fn what_denies_goes_before_what_allows_and_is_named() {
    let policy = r#"
[[allow]]
name = "all"
who = ["role:guest"]
what = ["call *"]

[[deny]]
name = "not the safe"
who = ["den"]
what = ["call home:notes/secret_*"]
"#;
    let den = node("den", Role::Guest);
    let call = |name| Action::Call(NOTES, Some(name));
    assert_eq!(
        decide(policy, &den, &call("read")),
        (Verdict::Allow, "the rule \"all\"".to_owned())
    );
    let denied = (Verdict::Deny, "the rule \"not the safe\"".to_owned());
    assert_eq!(decide(policy, &den, &call("secret_read")), denied);
    assert_eq!(
        decide(policy, &node("lab", Role::Guest), &call("secret_read")).0,
        Verdict::Allow
    );
    // By the ids of both nodes, too.
    let policy = "[[deny]]\nwho = [\"id-of-den\"]\nwhat = [\"call id-of-home:notes\"]\n";
    assert_eq!(
        decide(policy, &node("den", Role::Member), &call("read")).0,
        Verdict::Deny
    );
}

#[test]
fn people_are_not_the_node_that_lets_them_in_but_share_what_is_denied_to_it() {
    let person = |is_own| Subject {
        person: Some(Person { name: "alice", is_own }),
        ..node("den", Role::Member)
    };
    let call = Action::Call(NOTES, Some("read"));
    let with = |verdict: &str, who: &str, default: &str| {
        format!("[default]\nuser = {default:?}\n[[{verdict}]]\nwho = [{who:?}]\nwhat = [\"call *\"]\n")
    };
    for (verdict, who, own, other) in [
        ("allow", "den", Verdict::Deny, Verdict::Deny),
        ("allow", "role:member", Verdict::Deny, Verdict::Deny),
        ("allow", "user:alice", Verdict::Allow, Verdict::Deny),
        ("allow", "den/user:alice", Verdict::Allow, Verdict::Allow),
        ("allow", "*/user:al*", Verdict::Allow, Verdict::Allow),
        ("deny", "den", Verdict::Deny, Verdict::Deny),
        ("deny", "user:alice", Verdict::Deny, Verdict::Allow),
    ] {
        let default = if verdict == "allow" { "deny" } else { "allow" };
        for (is_own, expected) in [(true, own), (false, other)] {
            let decided = decide(&with(verdict, who, default), &person(is_own), &call).0;
            assert_eq!(decided, expected, "{verdict} {who} {is_own}");
        }
    }
    let of_guest = Subject {
        roles: Roles::from(Role::Guest),
        ..person(false)
    };
    assert_eq!(decide("", &of_guest, &call).0, Verdict::Deny, "no more than the guest");
}

#[test]
fn patterns_of_nodes_fit_no_role_and_no_person_whatever_it_is_called() {
    let call = Action::Call(NOTES, Some("read"));
    let of_guest = |name| Subject {
        person: Some(Person { name, is_own: false }),
        ..node("g", Role::Guest)
    };
    for who in ["*-lab", "r*", "u*", "*t", "*b"] {
        let policy = format!("[[allow]]\nwho = [{who:?}]\nwhat = [\"call home:notes\"]\n");
        for subject in [of_guest("x-lab"), of_guest("b"), node("g", Role::Guest)] {
            assert_eq!(decide(&policy, &subject, &call).0, Verdict::Deny, "{who} {subject:?}");
        }
    }
    let policy = "[default]\nuser = \"deny\"\n[[allow]]\nwho = [\"den*\"]\nwhat = [\"*\"]\n";
    let of_den = Subject {
        person: Some(Person {
            name: "x",
            is_own: false,
        }),
        ..node("den", Role::Member)
    };
    assert_eq!(
        decide(policy, &of_den, &call).0,
        Verdict::Deny,
        "the node, and none of its people"
    );
    for who in ["role:", "user:", "x/user:", "/user:x", "a:b", "a/b", "a:b/user:x", ""] {
        assert!(who.parse::<Who>().is_err(), "{who}");
    }
}

#[test]
fn what_may_be_called_of_an_agent_is_told_at_once() {
    let policy = r#"
[[allow]]
who = ["role:guest"]
what = ["call home:notes/read_*", "relay"]
[[deny]]
who = ["den"]
what = ["call home:*"]
[[deny]]
who = ["lab"]
what = ["call home:files/rm"]
"#;
    let policy = Policy::parse(policy).unwrap();
    let calls = |name: &str, role| policy.calls(&node(name, role), &NOTES);
    assert!(calls("lab", Role::Member).is_open());
    assert!(calls("lab", Role::Member).closed().is_none());
    assert_eq!(
        calls("den", Role::Member).closed().unwrap().to_string(),
        "the rule \"deny 1\""
    );
    let guest = calls("other", Role::Guest);
    assert!(!guest.is_open() && guest.closed().is_none());
    assert!(guest.decide("read_one").is_allowed() && !guest.decide("write_one").is_allowed());
    let files = Target {
        agent: "files",
        ..NOTES
    };
    assert!(policy.calls(&node("other", Role::Guest), &files).closed().is_some());
    assert!(!policy.calls(&node("lab", Role::Member), &files).is_open());
}

/// Rules over few names, so that they meet.
fn rule() -> impl Strategy<Value = (bool, String, String)> {
    let who = prop::sample::select(vec![
        "*",
        "den",
        "role:guest",
        "role:m*",
        "user:a",
        "den/user:*",
        "id-of-*",
    ]);
    let what = prop::sample::select(vec![
        "*",
        "call",
        "call home:*",
        "call *:notes/re*",
        "call home:notes/read",
        "submit",
        "submit e*",
        "relay",
        "invite guest",
        "administer policy",
    ]);
    (any::<bool>(), who, what).prop_map(|(allows, who, what)| (allows, who.to_owned(), what.to_owned()))
}

fn file(rules: &[(bool, String, String)], guest: bool) -> String {
    let verdict = |allows| if allows { "allow" } else { "deny" };
    let mut text = format!("[default]\nguest = {:?}\n", verdict(guest));
    for (allows, who, what) in rules {
        text.push_str(&format!(
            "[[{}]]\nwho = [{who:?}]\nwhat = [{what:?}]\n",
            verdict(*allows)
        ));
    }
    text
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}

fn person() -> impl Strategy<Value = Option<Person<'static>>> {
    prop::option::of(any::<bool>().prop_map(|is_own| Person { name: "a", is_own }))
}

fn action() -> impl Strategy<Value = Action<'static>> {
    prop::sample::select(vec![
        Action::Call(NOTES, Some("read")),
        Action::Call(NOTES, Some("write")),
        Action::Call(NOTES, None),
        Action::Submit("embed"),
        Action::Relay,
        Action::Invite(Role::Guest),
        Action::Administer(Administered::Policy),
    ])
}

proptest! {
    #[test]
    fn the_order_of_rules_changes_no_verdict(
        rules in prop::collection::vec(rule(), 0..8), turn in 0..8_usize, role in role(), person in person(),
        action in action(),
    ) {
        let mut turned = rules.clone();
        turned.rotate_left(if rules.is_empty() { 0 } else { turn % rules.len() });
        let subject = Subject { person, ..node("den", role) };
        prop_assert_eq!(
            decide(&file(&rules, false), &subject, &action).0,
            decide(&file(&turned, false), &subject, &action).0
        );
    }

    #[test]
    fn a_rule_that_denies_goes_before_whatever_allows(
        rules in prop::collection::vec(rule(), 0..8), role in role(), person in person(), action in action(),
    ) {
        let subject = Subject { person, ..node("den", role) };
        let mut all = rules;
        all.push((false, "*".into(), "*".into()));
        let is_owners = role == Role::Owner && person.is_none() && matches!(action, Action::Administer(_));
        let (verdict, _) = decide(&file(&all, true), &subject, &action);
        prop_assert_eq!(verdict == Verdict::Allow, is_owners);
    }

    #[test]
    fn one_more_rule_that_denies_allows_nothing_and_one_that_allows_denies_nothing(
        rules in prop::collection::vec(rule(), 0..8), more in rule(), role in role(), person in person(),
        action in action(),
    ) {
        let subject = Subject { person, ..node("den", role) };
        let before = decide(&file(&rules, false), &subject, &action).0;
        let mut all = rules;
        let allows = more.0;
        all.push(more);
        let after = decide(&file(&all, false), &subject, &action).0;
        let is_monotonic = if allows { after <= before } else { after >= before };
        prop_assert!(is_monotonic);
    }

    #[test]
    fn what_may_be_called_of_an_agent_is_what_is_decided_of_each_call(
        rules in prop::collection::vec(rule(), 0..8), role in role(), person in person(), guest in any::<bool>(),
    ) {
        let policy = Policy::parse(&file(&rules, guest)).unwrap();
        let subject = Subject { person, ..node("den", role) };
        let calls = policy.calls(&subject, &NOTES);
        for name in ["read", "write", "", "re"] {
            let decided = policy.decide(&subject, &Action::Call(NOTES, Some(name)));
            prop_assert_eq!(calls.decide(name).verdict, decided.verdict);
            prop_assert!(!calls.is_open() || decided.is_allowed());
            prop_assert!(calls.closed().is_none() || !decided.is_allowed());
        }
    }

    #[test]
    fn a_rule_about_nodes_decides_alike_whatever_the_person_is_called(
        who in "[a-z*]{1,6}", allows in any::<bool>(), name in "[a-z:/*-]{1,12}", role in role(), is_own in any::<bool>(),
    ) {
        prop_assume!(!who.parse::<Who>().is_ok_and(|who| who == Who::Everybody));
        let policy = file(&[(allows, who, "call home:*".into())], true);
        let person = |name| Subject { person: Some(Person { name, is_own }), ..node("den", role) };
        let call = Action::Call(NOTES, Some("read"));
        prop_assert_eq!(decide(&policy, &person(&name), &call).0, decide(&policy, &person("alice"), &call).0);
    }

    #[test]
    fn a_subject_is_written_as_it_was_read(text in "(role:|user:|[a-z*]{1,4}/user:)?[a-z*]{1,6}") {
        let who: Who = text.parse().unwrap();
        prop_assert_eq!(who.to_string().parse::<Who>(), Ok(who));
    }

    #[test]
    fn whoever_wants_whatever_is_answered(
        rules in prop::collection::vec(rule(), 0..4), name in "\\PC{0,12}", called in "\\PC{0,12}", role in role(),
    ) {
        let policy = Policy::parse(&file(&rules, false)).unwrap();
        let subject = Subject { node: name.clone(), name: &name, roles: Roles::from(role), person: None };
        let target = Target { node: &called, node_id: &name, agent: &called };
        for action in [Action::Call(target, Some(&called)), Action::Submit(&called)] {
            let _ = policy.decide(&subject, &action);
        }
    }
}
