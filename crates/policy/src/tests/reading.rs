//! The file, and what is said of what is wrong with it.

use proptest::prelude::*;

use crate::{Errors, Policy, Verdict};

const WHOLE: &str = r#"
[groups]
builders = ["desk", "laptop", "group:servers"]
servers = ["home-*", "role:admin"]

[default]
guest = "deny"
member = "allow"
user = "deny"

[[allow]]
name = "guests read the notes"
who = ["role:guest", "home/user:alice"]
what = ["call *:notes/read_*", "relay"]

[[deny]]
name = "only builders touch the files"
who = ["role:member"]
what = ["call home:files/write_*"]

[[allow]]
who = ["group:builders"]
what = ["submit embed", "invite guest", "administer policy"]

[[test]]
name = "a guest reads"
who = "role:guest"
what = "call home:notes/read_note"
expect = "allow"

[[test]]
name = "a guest does not write"
who = { role = "guest", node = "den" }
what = "call home:notes/write_note"
expect = "deny"

[[test]]
name = "a builder submits"
who = "desk"
what = "submit embed"
expect = "allow"
"#;

fn errors(text: &str) -> Vec<(usize, usize, String)> {
    let Err(Errors(problems)) = Policy::accept(text) else {
        panic!("it is accepted: {text}")
    };
    problems
        .into_iter()
        .map(|problem| (problem.line, problem.column, problem.message))
        .collect()
}

#[test]
fn a_file_is_read_and_its_tests_pass() {
    let policy = Policy::accept(WHOLE).unwrap();
    assert_eq!(policy.size(), (3, 3));
    let findings = policy.check();
    assert_eq!(findings.passed.len(), 3, "{findings:?}");
    assert!(findings.failed.is_empty() && findings.shadowed.is_empty());
    assert_eq!(Policy::accept("").unwrap(), Policy::default());
}

#[test]
fn what_is_wrong_is_said_with_line_and_column_and_all_at_once() {
    let text = r#"
[groups]
own = ["group:own"]

[[allow]]
who = ["group:nobody", "role:king"]
what = ["dance", "call files"]

[[deny]]
who = []
what = ["*"]

[[test]]
name = "vague"
who = "*"
what = "call home"
expect = "perhaps"
"#;
    let expected = [
        (3, 8, "the group \"own\" holds itself"),
        (6, 8, "there is no group \"nobody\""),
        (6, 24, "there is no role \"king\""),
        (7, 9, "\"dance\" is nothing that anybody does"),
        (7, 18, "\"files\" names no agent"),
        (10, 7, "the rule speaks of nobody; \"*\" is everybody"),
        (15, 7, "this is nobody in particular"),
        (16, 8, "\"call home\" is nothing in particular"),
        (17, 10, "\"perhaps\" is neither \"allow\" nor \"deny\""),
    ];
    let expected = expected.map(|(line, column, message)| (line, column, message.to_owned()));
    assert_eq!(errors(text), expected);
}

#[test]
fn what_toml_does_not_know_is_said_where_it_stands() {
    for (text, line, words) in [
        (
            "[[allow]]\nwho = [\"a\"]\nwhat = [\"relay\"]\nwhen = \"now\"\n",
            4,
            "when",
        ),
        ("[[allow]]\nwho = [\"a\"]\n", 1, "what"),
        ("allow = 3\n", 1, "invalid type"),
        ("[[allow\n", 1, ""),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].0, line, "{errors:?}");
        assert!(errors[0].2.contains(words), "{errors:?}");
    }
}

#[test]
fn a_test_that_fails_keeps_a_policy_from_being_accepted_and_says_what_decided() {
    let text = "[[test]]\nname = \"guests are welcome\"\nwho = \"role:guest\"\nwhat = \"relay\"\nexpect = \"allow\"\n";
    let errors = errors(text);
    assert_eq!(errors[0].0, 1);
    assert_eq!(
        errors[0].2,
        "the test \"guests are welcome\" fails: it expects allow, and the outcome is deny by what holds for guests where no rule fits"
    );
    assert_eq!(Policy::parse(text).unwrap().check().failed[0].expected, Verdict::Allow);
}

#[test]
fn a_rule_that_another_covers_is_told() {
    let text = r#"
[[deny]]
who = ["*"]
what = ["call *:files/*"]

[[allow]]
name = "in vain"
who = ["den"]
what = ["call home:files/read"]

[[allow]]
name = "wide"
who = ["role:*"]
what = ["submit *"]

[[allow]]
name = "narrow"
who = ["role:guest"]
what = ["submit embed"]
"#;
    let shadowed = Policy::parse(text).unwrap().check().shadowed;
    let told: Vec<_> = shadowed
        .iter()
        .map(|shadowed| (shadowed.rule.as_str(), shadowed.by.as_str(), shadowed.by_line))
        .collect();
    assert_eq!(told, [("in vain", "deny 1", 2), ("narrow", "wide", 11)]);
}

#[test]
fn the_nodes_that_rules_name_are_told_each_once_for_a_rule() {
    let text = r#"
[groups]
staff = ["labb", "role:guest"]

[[deny]]
who = ["group:staff", "desk/user:ann"]
what = ["call hmoe:memory/*", "call labb:notes", "call r*:notes", "relay"]

[[allow]]
name = "open"
who = ["*"]
what = ["call *:notes", "call home:notes"]
"#;
    let named = Policy::parse(text).unwrap().named();
    let told: Vec<_> = named
        .iter()
        .map(|named| (named.rule.as_str(), named.node.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("deny 1", "labb"),
            ("deny 1", "desk"),
            ("deny 1", "hmoe"),
            ("open", "home")
        ]
    );
}

#[test]
fn groups_within_groups_are_read_once_each_however_often_they_are_named() {
    use std::fmt::Write as _;
    let mut text = "[groups]\ng0 = [\"desk\"]\n".to_owned();
    for number in 1..200 {
        let before = format!("\"group:g{}\"", number - 1);
        writeln!(text, "g{number} = [{before}, {before}]").unwrap();
    }
    text.push_str("[[deny]]\nwho = [\"group:g199\"]\nwhat = [\"relay\"]\n");
    text.push_str("[[test]]\nname = \"desk\"\nwho = \"desk\"\nwhat = \"relay\"\nexpect = \"deny\"\n");
    assert!(Policy::accept(&text).is_ok());
}

#[test]
fn a_file_is_bounded() {
    let long = "#".repeat(crate::MAX_POLICY_BYTES + 1);
    assert!(errors(&long)[0].2.contains("longer"));
    let names: Vec<String> = (0..900).map(|number| format!("\"n{number}\"")).collect();
    let mut text = format!("[groups]\nall = [{}]\n", names.join(","));
    for _ in 0..100 {
        text.push_str("[[deny]]\nwho = [\"group:all\"]\nwhat = [\"relay\"]\n");
    }
    assert!(errors(&text)[0].2.contains("more than 16384 subjects"));
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let text = include_str!("../../../../docs/policy.md");
    let examples: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let policy = Policy::accept(example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
        let findings = policy.check();
        assert!(
            !findings.passed.is_empty() && findings.shadowed.is_empty(),
            "{findings:?}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_a_policy_or_wrong_somewhere(text in "\\PC{0,200}") {
        if let Err(Errors(problems)) = Policy::accept(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_file_that_was_altered_is_a_policy_or_wrong_somewhere(at in 0..WHOLE.len(), letter in any::<char>()) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        text[at] = letter;
        let text: String = text.into_iter().collect();
        if let Err(Errors(problems)) = Policy::accept(&text) {
            prop_assert!(!problems.is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
        }
    }
}
