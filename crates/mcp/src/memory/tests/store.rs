use std::collections::BTreeSet;

use super::{at, draft, keyed, tagged};
use crate::memory::{Before, Key, MemoryError, MemoryStore, NoteError, NoteRef, Outcome, Query, Tag, Tally, limits};

async fn recalled(store: &MemoryStore, query: &str) -> Vec<String> {
    let hits = store.recall(&Query::parse(query).unwrap(), None, 10).await.unwrap();
    hits.hits.into_iter().map(|hit| hit.note.text).collect()
}

#[tokio::test]
async fn notes_survive_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.sqlite");
    let store = MemoryStore::open(&path).await.unwrap();
    let note = store
        .remember(&tagged("the router is in the attic", &["home"]), Some("den"), at(0))
        .await
        .unwrap()
        .note;
    store.close().await;

    let store = MemoryStore::open(&path).await.unwrap();
    let page = store.list(None, None, 10).await.unwrap();
    assert_eq!(page.notes, [note]);
    assert_eq!(recalled(&store, "router").await, ["the router is in the attic"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.sqlite");
    let store = MemoryStore::open(&path).await.unwrap();
    store.remember(&draft("secret"), None, at(0)).await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_missing_folder_is_named_in_the_error() {
    let error = MemoryStore::open("/nonexistent/memory.sqlite").await.unwrap_err();
    assert!(matches!(error, MemoryError::File { .. }));
    assert!(error.to_string().contains("/nonexistent/memory.sqlite"));
}

#[tokio::test]
async fn a_note_under_a_taken_key_replaces_the_one_there() {
    let store = MemoryStore::in_memory().await.unwrap();
    let first = store
        .remember(&keyed("version one", "deploy"), Some("den"), at(0))
        .await
        .unwrap();
    let second = store
        .remember(&keyed("version two", "deploy"), Some("lab"), at(9))
        .await
        .unwrap();
    assert_eq!((first.outcome, second.outcome), (Outcome::Created, Outcome::Replaced));
    assert_eq!(second.note.id, first.note.id);
    assert_eq!((second.note.created, second.note.updated), (at(0), at(9)));
    assert_eq!(second.note.author.as_deref(), Some("lab"));
    assert_eq!(recalled(&store, "one").await, Vec::<String>::new());
    assert_eq!(recalled(&store, "two").await, ["version two"]);
    assert_eq!(store.stats().await.unwrap().bytes, "version two".len() as u64);
}

#[tokio::test]
async fn a_replaced_note_keeps_its_tags_unless_others_are_given() {
    let store = MemoryStore::in_memory().await.unwrap();
    let with_tags = |tags: Option<&[&str]>| {
        let tags = tags.map(|tags| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>());
        crate::memory::Draft::new("x".into(), tags.as_deref(), Some("k")).unwrap()
    };
    store
        .remember(&with_tags(Some(&["a", "b"])), None, at(0))
        .await
        .unwrap();
    assert_eq!(
        store.remember(&with_tags(None), None, at(1)).await.unwrap().note.tags,
        ["a", "b"]
    );
    assert_eq!(
        store
            .remember(&with_tags(Some(&["c"])), None, at(2))
            .await
            .unwrap()
            .note
            .tags,
        ["c"]
    );
    assert!(
        store
            .list(Some(&Tag::parse("a").unwrap()), None, 10)
            .await
            .unwrap()
            .notes
            .is_empty()
    );
}

#[tokio::test]
async fn the_note_that_shares_more_words_is_the_better_hit() {
    let store = MemoryStore::in_memory().await.unwrap();
    for text in [
        "the staging database is slow",
        "deploy staging from the release branch",
        "lunch is at noon",
    ] {
        store.remember(&draft(text), None, at(0)).await.unwrap();
    }
    let query = Query::parse("How do we deploy to staging?").unwrap();
    let hits = store.recall(&query, None, 10).await.unwrap().hits;
    assert_eq!(hits[0].note.text, "deploy staging from the release branch");
    assert_eq!(hits[0].snippet, "**deploy** **staging** from the release branch");
    assert!(hits.len() == 2 && hits[0].score > hits[1].score);
}

#[tokio::test]
async fn words_are_found_in_other_forms_by_their_beginning_and_without_accents() {
    let store = MemoryStore::in_memory().await.unwrap();
    store
        .remember(
            &tagged("Réunions are scheduled on Mondays", &["calendar"]),
            Some("atelier"),
            at(0),
        )
        .await
        .unwrap();
    for query in ["scheduling", "mond", "reunion", "calendar", "atelier"] {
        assert_eq!(recalled(&store, query).await.len(), 1, "{query}");
    }
}

#[tokio::test]
async fn text_that_is_no_word_of_the_index_is_found_as_it_stands() {
    let store = MemoryStore::in_memory().await.unwrap();
    store
        .remember(&draft("明日は東京で会議があります"), None, at(0))
        .await
        .unwrap();
    store.remember(&draft("shipped 🎉 at last"), None, at(0)).await.unwrap();
    assert_eq!(recalled(&store, "東京").await.len(), 1);
    assert_eq!(recalled(&store, "🎉").await, ["shipped 🎉 at last"]);
    assert!(recalled(&store, "%").await.is_empty());
}

#[tokio::test]
async fn a_tag_narrows_a_search() {
    let store = MemoryStore::in_memory().await.unwrap();
    store
        .remember(&tagged("blue paint", &["home"]), None, at(0))
        .await
        .unwrap();
    store
        .remember(&tagged("blue logo", &["work"]), None, at(0))
        .await
        .unwrap();
    let hits = store
        .recall(&Query::parse("blue").unwrap(), Some(&Tag::parse("Work").unwrap()), 10)
        .await
        .unwrap();
    assert_eq!(
        hits.hits.iter().map(|hit| hit.note.text.as_str()).collect::<Vec<_>>(),
        ["blue logo"]
    );
}

#[tokio::test]
async fn a_word_among_the_tags_counts_more_than_one_in_the_text() {
    let store = MemoryStore::in_memory().await.unwrap();
    store
        .remember(&tagged("copper pipe", &["kitchen"]), None, at(0))
        .await
        .unwrap();
    store
        .remember(&tagged("kitchen pipe", &["copper"]), None, at(1))
        .await
        .unwrap();
    store
        .remember(&tagged("kitchen pipe", &["tin"]), None, at(2))
        .await
        .unwrap();
    store
        .remember(&tagged("garden hose", &["tin"]), None, at(3))
        .await
        .unwrap();
    let hits = store
        .recall(&Query::parse("copper").unwrap(), None, 10)
        .await
        .unwrap()
        .hits;
    assert_eq!(hits.iter().map(|hit| hit.note.id).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn pages_hold_every_note_once_also_where_times_are_equal() {
    let store = MemoryStore::in_memory().await.unwrap();
    for n in 0..25 {
        store
            .remember(&draft(&format!("note {n}")), None, at(n / 10))
            .await
            .unwrap();
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.list(None, before, 7).await.unwrap();
        seen.extend(page.notes.into_iter().map(|note| note.id));
        let Some(next) = page.next else { break };
        assert_eq!(next.to_string().parse::<Before>().unwrap(), next);
        before = Some(next);
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
    let older = store
        .list(None, Some("2027-01-15T08:00:01Z".parse().unwrap()), 100)
        .await
        .unwrap();
    assert_eq!(at(1).to_string(), "2027-01-15T08:00:01Z");
    assert_eq!(older.notes.len(), 10);
}

#[tokio::test]
async fn an_answer_ends_where_its_text_would_be_too_much() {
    let store = MemoryStore::in_memory().await.unwrap();
    let text = "word ".repeat(limits::TEXT_BYTES / 5);
    for n in 0..10 {
        store.remember(&draft(&text), None, at(n)).await.unwrap();
    }
    let page = store.list(None, None, 100).await.unwrap();
    assert!(!page.notes.is_empty() && page.notes.len() * text.len() <= limits::PAGE_BYTES && page.next.is_some());
    let hits = store.recall(&Query::parse("word").unwrap(), None, 100).await.unwrap();
    assert!(hits.more && hits.hits.len() == page.notes.len());
}

#[tokio::test]
async fn a_forgotten_note_is_gone_from_every_view_and_its_id_is_not_given_again() {
    let store = MemoryStore::in_memory().await.unwrap();
    let note = store
        .remember(&keyed("old wifi password hint", "wifi"), None, at(0))
        .await
        .unwrap()
        .note;
    let key = NoteRef::Key(Key::parse("wifi").unwrap());
    assert_eq!(store.forget(&key).await.unwrap(), note);
    let error = store.forget(&key).await.unwrap_err();
    assert!(matches!(error, MemoryError::Note(NoteError::NotFound(_))));
    assert!(recalled(&store, "wifi").await.is_empty());
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.notes, stats.bytes, stats.oldest), (0, 0, None));
    assert!(store.remember(&draft("next"), None, at(1)).await.unwrap().note.id > note.id);
}

#[tokio::test]
async fn statistics_count_notes_tags_and_authors() {
    let store = MemoryStore::in_memory().await.unwrap();
    store
        .remember(&tagged("one", &["a", "b"]), Some("den"), at(5))
        .await
        .unwrap();
    store
        .remember(&tagged("three", &["b"]), Some("den"), at(7))
        .await
        .unwrap();
    store.remember(&draft("x"), None, at(6)).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.notes, stats.bytes), (3, 9));
    assert_eq!(
        stats.tags,
        [
            Tally {
                name: "b".into(),
                notes: 2
            },
            Tally {
                name: "a".into(),
                notes: 1
            }
        ]
    );
    assert_eq!(
        stats.authors,
        [Tally {
            name: "den".into(),
            notes: 2
        }]
    );
    assert_eq!((stats.oldest, stats.newest), (Some(at(5)), Some(at(7))));
}

#[tokio::test]
async fn a_full_store_says_so_and_still_lets_notes_be_replaced() {
    let store = MemoryStore::in_memory().await.unwrap();
    store.remember(&keyed("x", "k"), None, at(0)).await.unwrap();
    store.pretend_totals(limits::NOTES, 1).await;
    let error = store.remember(&draft("y"), None, at(1)).await.unwrap_err();
    assert!(error.to_string().contains("the memory is full (100000 notes"));
    store.remember(&keyed("y", "k"), None, at(1)).await.unwrap();
    store.pretend_totals(1, limits::STORE_BYTES).await;
    assert!(store.remember(&keyed("longer", "k"), None, at(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_readers_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::open(folder.path().join("memory.sqlite")).await.unwrap();
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..15 {
                store
                    .remember(&draft(&format!("writer {writer} note {n}")), None, at(n))
                    .await
                    .unwrap();
                store
                    .remember(&keyed(&format!("last of {writer}"), "shared"), None, at(n))
                    .await
                    .unwrap();
                store.recall(&Query::parse("writer").unwrap(), None, 5).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(store.stats().await.unwrap().notes, 8 * 15 + 1);
    let texts: BTreeSet<_> = {
        let first = store.list(None, None, 100).await.unwrap();
        let rest = store.list(None, first.next, 100).await.unwrap();
        first
            .notes
            .into_iter()
            .chain(rest.notes)
            .map(|note| note.text)
            .collect()
    };
    assert_eq!(texts.len(), 8 * 15 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_file_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.sqlite");
    let stores = [
        MemoryStore::open(&path).await.unwrap(),
        MemoryStore::open(&path).await.unwrap(),
    ];
    let writers = stores.clone().map(|store| {
        tokio::spawn(async move {
            for n in 0..40 {
                store
                    .remember(&keyed(&format!("note {n}"), &format!("key {}", n % 7)), None, at(n))
                    .await
                    .unwrap();
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(stores[0].stats().await.unwrap(), stores[1].stats().await.unwrap());
    assert_eq!(stores[0].stats().await.unwrap().notes, 7);
}

#[tokio::test]
async fn a_change_is_counted_once_it_is_kept() {
    let store = MemoryStore::in_memory().await.unwrap();
    let mut changes = store.clone().changes();
    store.remember(&draft("x"), None, at(0)).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(store.forget(&NoteRef::Id(99)).await.is_err());
    assert!(!changes.has_changed().unwrap());
}
