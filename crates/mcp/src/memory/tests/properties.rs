use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Raw, at, tagged};
use crate::memory::{MemoryAgent, MemoryStore, Query, Tag, tools};

/// Texts that hurt: any characters, the query language's own signs, control characters, long runs.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"[\x00-\x7f]{0,200}"#,
        r#"([a-z]{1,4}|["'*^(){}:+-]|NEAR|AND|OR|NOT| ){0,40}"#,
        (any::<char>(), 0..5000usize).prop_map(|(c, n)| c.to_string().repeat(n)),
    ]
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

fn store(runtime: &Runtime) -> MemoryStore {
    runtime.block_on(MemoryStore::in_memory()).unwrap()
}

#[test]
fn whatever_the_arguments_are_a_tool_succeeds_or_says_what_is_wrong() {
    let runtime = Runtime::new().unwrap();
    let store = store(&runtime);
    let any_value = prop_oneof![
        any_text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        proptest::collection::vec(any_text(), 0..20).prop_map(Value::from),
    ];
    let fields = proptest::sample::select(vec!["text", "tags", "key", "query", "limit", "tag", "before", "id"]);
    let arguments = proptest::collection::btree_map(fields, any_value, 0..4);
    let tool = proptest::sample::select(vec!["remember", "recall", "list", "forget"]);
    let case = |(name, arguments): (&str, std::collections::BTreeMap<&str, Value>)| {
        let arguments = arguments
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let result = runtime.block_on(tools::call(&store, name, arguments, None, at(0)));
        prop_assert!(result.is_ok(), "{result:?}");
        Ok(())
    };
    runner(400).run(&(tool, arguments), case).unwrap();
}

#[test]
fn any_text_is_kept_as_it_is_and_any_query_is_answered() {
    let runtime = Runtime::new().unwrap();
    let store = store(&runtime);
    let case = |(text, query, tag): (String, String, Option<String>)| {
        let call = |name: &'static str, arguments: Value| {
            let arguments = arguments.as_object().unwrap().clone();
            runtime
                .block_on(tools::call(&store, name, arguments, Some(&query), at(0)))
                .unwrap()
        };
        let tags: Vec<_> = tag.iter().collect();
        let kept = call("remember", json!({ "text": text, "tags": tags }));
        if let Some(kept) = kept.structured_content {
            prop_assert_eq!(kept["note"]["text"].as_str(), Some(text.as_str()));
            call("recall", json!({ "query": text }));
        }
        for arguments in [json!({ "query": query }), json!({ "query": query, "tag": tag })] {
            let found = call("recall", arguments);
            prop_assert!(found.structured_content.is_some() || found.is_error == Some(true));
        }
        Ok(())
    };
    runner(300)
        .run(&(any_text(), any_text(), proptest::option::of(any_text())), case)
        .unwrap();
}

#[test]
fn a_note_is_found_by_any_of_its_words() {
    let runtime = Runtime::new().unwrap();
    let case = |words: Vec<String>| {
        let store = store(&runtime);
        let text = words.join(" ");
        runtime
            .block_on(store.remember(&tagged(&text, &[]), None, at(0)))
            .unwrap();
        for word in &words {
            let found = runtime
                .block_on(store.recall(&Query::parse(word).unwrap(), None, 5))
                .unwrap();
            prop_assert_eq!(found.hits.len(), 1, "{}", word);
        }
        Ok(())
    };
    runner(60)
        .run(&proptest::collection::vec("[a-zäöüéñčж0-9]{1,10}", 1..8), case)
        .unwrap();
}

#[test]
fn pages_of_any_size_hold_every_note_of_a_tag_once() {
    let runtime = Runtime::new().unwrap();
    let case = |(notes, size): (Vec<(i64, bool)>, u32)| {
        let store = store(&runtime);
        let mut wanted = BTreeSet::new();
        for (second, chosen) in notes {
            let tag = if chosen { "chosen" } else { "other" };
            let kept = runtime
                .block_on(store.remember(&tagged("x", &[tag]), None, at(second)))
                .unwrap();
            if chosen {
                wanted.insert(kept.note.id);
            }
        }
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = runtime
                .block_on(store.list(Some(&Tag::parse("chosen").unwrap()), before, size))
                .unwrap();
            seen.extend(page.notes.into_iter().map(|note| note.id));
            before = page.next.map(|next| next.to_string().parse().unwrap());
            if before.is_none() {
                break;
            }
        }
        prop_assert_eq!(seen.len(), wanted.len());
        prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted);
        Ok(())
    };
    runner(40)
        .run(
            &(proptest::collection::vec((0..5i64, any::<bool>()), 0..30), 1..8u32),
            case,
        )
        .unwrap();
}

#[test]
fn lines_of_nonsense_do_not_end_a_connection() {
    let runtime = Runtime::new().unwrap();
    let store = store(&runtime);
    let nonsense = prop_oneof![
        any_text(),
        (any_text(), any_text()).prop_map(|(method, params)| {
            json!({ "jsonrpc": "2.0", "id": "x", "method": method, "params": params }).to_string()
        }),
        any_text().prop_map(|id| json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string()),
    ];
    let case = |lines: Vec<String>| {
        runtime.block_on(async {
            let mut raw = Raw::connect(&MemoryAgent::new(store.clone()));
            for line in lines {
                raw.line(&line).await;
            }
            let answer = raw.bare(1, "ping", json!({})).await;
            prop_assert!(answer["result"].is_object());
            Ok(())
        })
    };
    runner(60)
        .run(&proptest::collection::vec(nonsense, 0..6), case)
        .unwrap();
}
