//! Where notes are kept: writing, finding, listing and forgetting them. Time is an argument.

use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use tokio::sync::watch;

use super::answer::{Before, Hit, Hits, Outcome, Page, Remembered, Stats, Tally};
use super::note::{Draft, Note, NoteError, NoteRef, Tag, cut};
use super::query::Query;
use super::schema::{self, Pools};
use super::{limits, note, snippet};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The caller asked for something that cannot be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The file cannot be made or opened.
    #[error("cannot open the memory's file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("the memory's database failed")]
    Database(#[from] sqlx::Error),
    /// The database cannot be brought to this version's tables.
    #[error("the memory's database cannot be migrated")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Notes in SQLite, in a file or in memory. A clone is another handle on the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    pools: Pools,
    changes: watch::Sender<u64>,
}

impl MemoryStore {
    /// Opens the store in this file, which is made where it is missing (its folder is not). The file is not shared
    /// with other tables.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, or is of a later version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, MemoryError> {
        Ok(Self::over(schema::open(path.as_ref()).await?))
    }

    /// A store that ends with its last handle.
    ///
    /// # Errors
    /// The database cannot be set up.
    pub async fn in_memory() -> Result<Self, MemoryError> {
        Ok(Self::over(schema::open_in_memory().await?))
    }

    fn over(pools: Pools) -> Self {
        Self {
            pools,
            changes: watch::Sender::new(0),
        }
    }

    /// Closes the database when what is under way has ended; later calls fail.
    pub async fn close(&self) {
        self.pools.reader.close().await;
        self.pools.writer.close().await;
    }

    /// Counts the changes of notes made through this store; whoever holds it can wait for the next one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Keeps a note. Under a key that is taken it replaces the note there.
    ///
    /// # Errors
    /// [`NoteError::Full`], or the database fails.
    pub async fn remember(
        &self,
        draft: &Draft,
        author: Option<&str>,
        now: Timestamp,
    ) -> Result<Remembered, MemoryError> {
        let mut transaction = self.pools.writer.begin_with("BEGIN IMMEDIATE").await?;
        let taken = match draft.key() {
            Some(key) => find(&mut transaction, &NoteRef::Key(key.clone())).await?,
            None => None,
        };
        check_room(&mut transaction, draft, taken.as_ref()).await?;
        let author = author.map(|name| cut(name, limits::AUTHOR_BYTES));
        let tags = match (draft.tags(), &taken) {
            (Some(tags), _) => tags.iter().map(Tag::as_str).collect(),
            (None, Some(taken)) => taken.tags.iter().map(String::as_str).collect(),
            (None, None) => Vec::new(),
        };
        let row = if let Some(taken) = &taken {
            sqlx::query(
                "UPDATE notes SET text = ?, tags = ?, author = ?, updated = ? WHERE id = ?
                 RETURNING id, key, text, tags, author, created, updated",
            )
            .bind(draft.text())
            .bind(tags.join("\n"))
            .bind(author)
            .bind(now.as_millisecond())
            .bind(taken.id)
        } else {
            sqlx::query(
                "INSERT INTO notes (text, tags, author, updated, key, created) VALUES (?1, ?2, ?3, ?4, ?5, ?4)
                 RETURNING id, key, text, tags, author, created, updated",
            )
            .bind(draft.text())
            .bind(tags.join("\n"))
            .bind(author)
            .bind(now.as_millisecond())
            .bind(draft.key().map(note::Key::as_str))
        };
        let note = schema::note(&row.fetch_one(&mut *transaction).await?)?;
        sqlx::query("DELETE FROM note_tags WHERE note = ?")
            .bind(note.id)
            .execute(&mut *transaction)
            .await?;
        for tag in tags {
            sqlx::query("INSERT INTO note_tags (tag, note) VALUES (?, ?)")
                .bind(tag)
                .bind(note.id)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        self.changed();
        let outcome = if taken.is_some() {
            Outcome::Replaced
        } else {
            Outcome::Created
        };
        Ok(Remembered { note, outcome })
    }

    /// Finds notes: those that share words with the query, ranked by bm25, or, where there are none, those that hold
    /// the query's text as it stands (for scripts without spaces, and for signs).
    ///
    /// # Errors
    /// The database fails.
    pub async fn recall(&self, query: &Query, tag: Option<&Tag>, limit: u32) -> Result<Hits, MemoryError> {
        if let Some(expression) = query.expression() {
            let words = sqlx::query(
                "SELECT n.id, n.key, n.text, n.tags, n.author, n.created, n.updated, -w.rank AS score
                 FROM note_words w CROSS JOIN notes n ON n.id = w.rowid
                 WHERE note_words MATCH ?1 AND w.rank MATCH 'bm25(1.0, 2.0, 2.0, 0.5)'
                   AND (?2 IS NULL OR EXISTS (SELECT 1 FROM note_tags t WHERE t.tag = ?2 AND t.note = n.id))
                 ORDER BY w.rank LIMIT ?3",
            )
            .bind(expression)
            .bind(tag.map(Tag::as_str))
            .bind(i64::from(limit) + 1);
            let excerpt = |text: &str| snippet::of_words(text, query.words());
            let found = self.collect_hits(words, limit, excerpt).await?;
            if !found.hits.is_empty() {
                return Ok(found);
            }
        }
        if query.text().len() > limits::SUBSTRING_BYTES {
            return Ok(Hits {
                hits: Vec::new(),
                more: false,
            });
        }
        let as_it_stands = sqlx::query(
            "SELECT n.id, n.key, n.text, n.tags, n.author, n.created, n.updated, 0.0 AS score FROM notes n
             WHERE instr(lower(n.text), lower(?1)) > 0
               AND (?2 IS NULL OR EXISTS (SELECT 1 FROM note_tags t WHERE t.tag = ?2 AND t.note = n.id))
             ORDER BY n.updated DESC, n.id DESC LIMIT ?3",
        )
        .bind(query.text())
        .bind(tag.map(Tag::as_str))
        .bind(i64::from(limit) + 1);
        self.collect_hits(as_it_stands, limit, |text| snippet::of_substring(text, query.text()))
            .await
    }

    async fn collect_hits(
        &self,
        statement: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
        limit: u32,
        excerpt: impl Fn(&str) -> String,
    ) -> Result<Hits, MemoryError> {
        let mut rows = statement.fetch(&self.pools.reader);
        let mut budget = Budget::new(limit);
        let mut hits = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let note = schema::note(&row)?;
            if !budget.admits(&note) {
                return Ok(Hits { hits, more: true });
            }
            hits.push(Hit {
                snippet: excerpt(&note.text),
                note,
                score: row.try_get("score")?,
            });
        }
        Ok(Hits { hits, more: false })
    }

    /// Lists notes, the last written first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list(&self, tag: Option<&Tag>, before: Option<Before>, limit: u32) -> Result<Page, MemoryError> {
        let (updated, id) = before.map_or((i64::MAX, i64::MAX), |before| {
            (before.updated.as_millisecond(), before.id)
        });
        let mut rows = sqlx::query(
            "SELECT n.id, n.key, n.text, n.tags, n.author, n.created, n.updated FROM notes n
             WHERE (n.updated, n.id) < (?1, ?2)
               AND (?3 IS NULL OR EXISTS (SELECT 1 FROM note_tags t WHERE t.tag = ?3 AND t.note = n.id))
             ORDER BY n.updated DESC, n.id DESC LIMIT ?4",
        )
        .bind(updated)
        .bind(id)
        .bind(tag.map(Tag::as_str))
        .bind(i64::from(limit) + 1)
        .fetch(&self.pools.reader);
        let mut budget = Budget::new(limit);
        let mut notes: Vec<Note> = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let note = schema::note(&row)?;
            if !budget.admits(&note) {
                let next = notes.last().map(|last| Before {
                    updated: last.updated,
                    id: last.id,
                });
                return Ok(Page { notes, next });
            }
            notes.push(note);
        }
        Ok(Page { notes, next: None })
    }

    /// Removes a note and gives it back.
    ///
    /// # Errors
    /// [`NoteError::NotFound`], or the database fails.
    pub async fn forget(&self, target: &NoteRef) -> Result<Note, MemoryError> {
        let mut transaction = self.pools.writer.begin_with("BEGIN IMMEDIATE").await?;
        let note = find(&mut transaction, target)
            .await?
            .ok_or_else(|| NoteError::NotFound(target.clone()))?;
        sqlx::query("DELETE FROM notes WHERE id = ?")
            .bind(note.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.changed();
        Ok(note)
    }

    /// Counts what is there, as of one moment.
    ///
    /// # Errors
    /// The database fails.
    pub async fn stats(&self) -> Result<Stats, MemoryError> {
        let mut connection = self.pools.reader.acquire().await?;
        let mut moment = connection.begin().await?;
        let (notes, bytes) = totals(&mut moment).await?;
        let tags = tallies(
            &mut moment,
            "SELECT tag AS name, count(*) AS notes FROM note_tags GROUP BY tag ORDER BY notes DESC, name LIMIT ?",
        )
        .await?;
        let authors = tallies(
            &mut moment,
            "SELECT author AS name, count(*) AS notes FROM notes WHERE author IS NOT NULL
             GROUP BY author ORDER BY notes DESC, name LIMIT ?",
        )
        .await?;
        let ends = sqlx::query(
            "SELECT (SELECT min(created) FROM notes) AS oldest, (SELECT max(updated) FROM notes) AS newest",
        )
        .fetch_one(&mut *moment)
        .await?;
        let end = |column| ends.try_get::<Option<i64>, _>(column)?.map(schema::time).transpose();
        let stats = Stats {
            notes,
            bytes,
            notes_limit: limits::NOTES,
            bytes_limit: limits::STORE_BYTES,
            tags,
            authors,
            oldest: end("oldest")?,
            newest: end("newest")?,
        };
        moment.commit().await?;
        Ok(stats)
    }
}

/// What one answer may hold: a number of notes, and an amount of text.
struct Budget {
    notes: u32,
    bytes: usize,
    begun: bool,
}

impl Budget {
    fn new(notes: u32) -> Self {
        Self {
            notes,
            bytes: limits::PAGE_BYTES,
            begun: false,
        }
    }

    /// Whether the note fits beside those before it. The first one always does.
    fn admits(&mut self, note: &Note) -> bool {
        let fits = self.notes > 0 && (!self.begun || note.weight() <= self.bytes);
        if fits {
            self.notes -= 1;
            self.bytes = self.bytes.saturating_sub(note.weight());
            self.begun = true;
        }
        fits
    }
}

async fn find(connection: &mut SqliteConnection, target: &NoteRef) -> Result<Option<Note>, sqlx::Error> {
    let statement = match target {
        NoteRef::Id(id) => {
            sqlx::query("SELECT id, key, text, tags, author, created, updated FROM notes WHERE id = ?").bind(id)
        }
        NoteRef::Key(key) => {
            sqlx::query("SELECT id, key, text, tags, author, created, updated FROM notes WHERE key = ?")
                .bind(key.as_str())
        }
    };
    statement
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(schema::note)
        .transpose()
}

async fn check_room(
    connection: &mut SqliteConnection,
    draft: &Draft,
    replaced: Option<&Note>,
) -> Result<(), MemoryError> {
    let (notes, bytes) = totals(connection).await?;
    let freed = replaced.map_or(0, |note| note.text.len() as u64);
    let after = bytes.saturating_sub(freed) + draft.text().len() as u64;
    if (replaced.is_none() && notes >= limits::NOTES) || after > limits::STORE_BYTES {
        return Err(NoteError::Full { notes, bytes }.into());
    }
    Ok(())
}

async fn totals(connection: &mut SqliteConnection) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query("SELECT notes, bytes FROM totals")
        .fetch_one(connection)
        .await?;
    Ok((row.try_get("notes")?, row.try_get("bytes")?))
}

async fn tallies(connection: &mut SqliteConnection, sql: &'static str) -> Result<Vec<Tally>, sqlx::Error> {
    let rows = sqlx::query(sql).bind(limits::TALLIES).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(Tally {
                name: row.try_get("name")?,
                notes: row.try_get("notes")?,
            })
        })
        .collect()
}

#[cfg(test)]
impl MemoryStore {
    /// Makes the store believe that it holds this much.
    pub(super) async fn pretend_totals(&self, notes: u64, bytes: u64) {
        sqlx::query("UPDATE totals SET notes = ?, bytes = ?")
            .bind(i64::try_from(notes).unwrap())
            .bind(i64::try_from(bytes).unwrap())
            .execute(&self.pools.writer)
            .await
            .unwrap();
    }
}
