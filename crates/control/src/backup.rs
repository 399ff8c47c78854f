//! Back-up and restore: one file with everything, the key of the control plane included, from which either database is
//! made again. So it is also the way from SQLite to PostgreSQL.
//!
//! The file is lines of JSON: what it is, a line for each row, and at the end how many and the SHA-256 of all before. It
//! is read and verified as a whole before anything is changed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use dawn_identity::{UnixTime, keyfile};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Column as _, Connection as _, Executor as _, Row as _};

use crate::error::ControlError;
use crate::key;
use crate::store::{self, Place};

/// The tables, so that whatever is referred to comes first.
const TABLES: [&str; 12] = [
    "networks",
    "people",
    "devices",
    "invites",
    "tokens",
    "changes",
    "audit",
    "certificates",
    "revocations",
    "documents",
    "answers",
    "nonces",
];
/// Those of the first version.
const FIRST: usize = 7;
/// Longest line, bytes.
const MAX_LINE: usize = 1 << 20;

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The version of the file.
    dawn_control_backup: u32,
    /// The version of the database.
    schema: i64,
    /// When it was made.
    at: UnixTime,
    /// The key file.
    key: String,
}

/// A row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    table: String,
    row: Map<String, Value>,
}

/// The last line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    rows: u64,
    sha256: String,
}

/// What was backed up or restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// How many rows it has.
    pub rows: u64,
    /// The version of the database in it.
    pub schema: i64,
    /// When it was made.
    pub at: UnixTime,
}

fn unusable(why: impl std::fmt::Display) -> ControlError {
    ControlError::Backup(why.to_string())
}

/// Writes everything into a file that its user alone can read. The control plane may run meanwhile.
///
/// # Errors
/// The file exists and `replace` is not set, or cannot be written; the database failed.
pub async fn backup(place: &Place, data: &Path, file: &Path, replace: bool) -> Result<Summary, ControlError> {
    if !replace && file.exists() {
        return Err(ControlError::file(file)(std::io::ErrorKind::AlreadyExists.into()));
    }
    place.must_exist()?;
    let path = key::path(data);
    let text = std::fs::read_to_string(&path).map_err(ControlError::file(&path))?;
    keyfile::open(&text, None)?;
    let pool = store::pool(place, 1).await?;
    let mut connection = pool.acquire().await?;
    let schema: i64 = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await?;
    if schema > store::newest() {
        return Err(unusable("the database is newer than this program"));
    }
    let head = Head {
        dawn_control_backup: 1,
        schema,
        at: crate::control::now(),
        key: text,
    };
    // All of one moment.
    connection.execute(place.dialect.begin_reading()).await?;
    place.dialect.take_time(&mut connection).await?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let new = PathBuf::from(beside);
    let mut out = Out::create(&new)?;
    out.line(&head)?;
    for table in tables(schema) {
        read(&mut connection, table, &mut out).await?;
    }
    connection.execute("COMMIT").await?;
    drop(connection);
    pool.close().await;
    let rows = out.rows;
    out.finish(file)?;
    Ok(Summary {
        file: file.to_owned(),
        rows,
        schema,
        at: head.at,
    })
}

fn tables(schema: i64) -> impl Iterator<Item = &'static str> {
    let known = if schema < 2 { FIRST } else { TABLES.len() };
    TABLES.into_iter().take(known)
}

/// Reads a table in pages.
async fn read(connection: &mut AnyConnection, table: &'static str, out: &mut Out) -> Result<(), ControlError> {
    use futures::TryStreamExt as _;
    let sql = AssertSqlSafe(format!("SELECT * FROM {table}"));
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        out.rows += 1;
        out.line(&Line {
            table: table.to_owned(),
            row: columns(&row)?,
        })?;
    }
    Ok(())
}

/// All columns are texts or numbers.
fn columns(row: &AnyRow) -> Result<Map<String, Value>, ControlError> {
    let read = |column: &<sqlx::Any as sqlx::Database>::Column| {
        let place = column.ordinal();
        let value = match row.try_get::<Option<i64>, _>(place) {
            Ok(number) => number.map_or(Value::Null, Value::from),
            Err(_) => row
                .try_get::<Option<String>, _>(place)?
                .map_or(Value::Null, Value::from),
        };
        Ok((column.name().to_owned(), value))
    };
    row.columns().iter().map(read).collect()
}

/// A file that is written.
struct Out {
    path: PathBuf,
    file: std::io::BufWriter<std::fs::File>,
    hash: Sha256,
    rows: u64,
}

impl Out {
    fn create(path: &Path) -> Result<Self, ControlError> {
        let file = key::private(path).map_err(ControlError::file(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: std::io::BufWriter::new(file),
            hash: Sha256::new(),
            rows: 0,
        })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), ControlError> {
        let mut text = serde_json::to_vec(value).map_err(unusable)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.file.write_all(&text).map_err(ControlError::file(&self.path))
    }

    fn finish(mut self, to: &Path) -> Result<(), ControlError> {
        let tail = Tail {
            rows: self.rows,
            sha256: data_encoding::HEXLOWER.encode(&self.hash.clone().finalize()),
        };
        self.line(&tail)?;
        let path = self.path;
        let kept = || -> std::io::Result<()> {
            let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&path, to)?;
            let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        kept().map_err(ControlError::file(to))
    }
}

/// A line of a back-up that is being read.
enum Part {
    Head(Head),
    Row(Line),
}

/// Reads a back-up line by line, and verifies it at its end.
fn each(file: &Path, mut take: impl FnMut(Part) -> Result<(), ControlError>) -> Result<Summary, ControlError> {
    let opened = std::fs::File::open(file).map_err(ControlError::file(file))?;
    let mut lines = BufReader::new(opened);
    let (mut hash, mut rows, mut head) = (Sha256::new(), 0, None);
    loop {
        let mut line = Vec::new();
        let mut bounded = std::io::Read::take(&mut lines, MAX_LINE as u64);
        bounded.read_until(b'\n', &mut line).map_err(ControlError::file(file))?;
        let text = line.strip_suffix(b"\n").ok_or_else(|| unusable("it ends too early"))?;
        match head {
            None => {
                let first: Head =
                    serde_json::from_slice(text).map_err(|_| unusable("it is no back-up of a control plane"))?;
                let is_known = first.dawn_control_backup == 1 && (1..=store::newest()).contains(&first.schema);
                if !is_known {
                    return Err(unusable("it was made by a newer version of Dawn"));
                }
                keyfile::open(&first.key, None)?;
                head = Some((first.schema, first.at));
                take(Part::Head(first))?;
            }
            Some((schema, at)) => {
                if let Ok(tail) = serde_json::from_slice::<Tail>(text) {
                    let sum = data_encoding::HEXLOWER.encode(&hash.finalize());
                    let mut more = [0];
                    let ends = std::io::Read::read(&mut lines, &mut more).map_err(ControlError::file(file))? == 0;
                    if tail.rows != rows || tail.sha256 != sum || !ends {
                        return Err(unusable("it was altered or is damaged"));
                    }
                    return Ok(Summary {
                        file: file.to_owned(),
                        rows,
                        schema,
                        at,
                    });
                }
                let row: Line = serde_json::from_slice(text).map_err(|_| unusable("a line is none of a back-up"))?;
                let is_name = |name: &String| {
                    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                };
                if !tables(schema).any(|table| table == row.table) || !row.row.keys().all(is_name) {
                    return Err(unusable("a line is of no table that is known"));
                }
                rows += 1;
                take(Part::Row(row))?;
            }
        }
        hash.update(&line);
    }
}

/// Verifies a back-up.
///
/// # Errors
/// It cannot be read, or is none, or not whole.
pub fn verify(file: &Path) -> Result<Summary, ControlError> {
    each(file, |_| Ok(()))
}

/// Makes database and key from a back-up: all of it, or nothing. The control plane may not run meanwhile.
///
/// # Errors
/// The back-up is unusable; there is something already and `force` is not set; the database failed.
pub async fn restore(place: &Place, data: &Path, file: &Path, force: bool) -> Result<Summary, ControlError> {
    let summary = verify(file)?;
    std::fs::create_dir_all(data).map_err(ControlError::file(data))?;
    let _lock = place.file.as_deref().map(store::lock).transpose()?;
    let mut owner = store::writer::connect(place).await?;
    let outcome = restored(place, data, file, force, summary.schema, &mut owner).await;
    // Whoever comes next finds the database free, whatever became of this.
    owner.close().await?;
    outcome.map(|()| summary)
}

async fn restored(
    place: &Place,
    data: &Path,
    file: &Path,
    force: bool,
    schema: i64,
    owner: &mut AnyConnection,
) -> Result<(), ControlError> {
    let mut all = owner.begin().await?;
    place.dialect.take_time(&mut all).await?;
    if !force && (key::path(data).exists() || !is_empty(place, &mut all).await?) {
        let words = "there is a control plane already: nothing is overwritten without --force";
        return Err(unusable(words));
    }
    for table in TABLES.iter().rev().chain(&["epoch", "_sqlx_migrations"]) {
        all.execute(AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}")))
            .await?;
    }
    store::migrate_within(&mut all, schema).await?;
    let mut rows = Vec::new();
    let mut text = None;
    each(file, |part| {
        match part {
            Part::Head(head) => text = Some(head.key),
            Part::Row(row) => rows.push(row),
        }
        Ok(())
    })?;
    for row in rows {
        insert(&mut all, row).await?;
    }
    store::migrate_within(&mut all, store::newest()).await?;
    // The key first: a database without its key would be given a new one, which nobody has authorised.
    if let Some(text) = text {
        key::write(data, &keyfile::open(&text, None)?, true)?;
    }
    all.commit().await?;
    Ok(())
}

/// Whether a database has nothing in it that could be lost.
async fn is_empty(place: &Place, connection: &mut AnyConnection) -> Result<bool, ControlError> {
    for table in ["networks", "tokens", "audit"] {
        let is_there: i64 = sqlx::query_scalar(place.dialect.has_table())
            .bind(table)
            .fetch_one(&mut *connection)
            .await?;
        if is_there == 0 {
            continue;
        }
        let sql = AssertSqlSafe(format!("SELECT CAST(1 AS BIGINT) FROM {table} LIMIT 1"));
        let row: Option<i64> = sqlx::query_scalar(sql).fetch_optional(&mut *connection).await?;
        if row.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn insert(connection: &mut AnyConnection, line: Line) -> Result<(), ControlError> {
    // Which table and which columns was checked when the line was read.
    let row: Vec<_> = line.row.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let names: Vec<_> = row.iter().map(|(name, _)| name.as_str()).collect();
    let places: Vec<_> = (1..=row.len()).map(|place| format!("${place}")).collect();
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        line.table,
        names.join(", "),
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (_, value) in row {
        query = match value {
            Value::Number(number) => query.bind(
                number
                    .as_i64()
                    .ok_or_else(|| unusable("a number is none of a database"))?,
            ),
            Value::String(text) => query.bind(text),
            _ => return Err(unusable("a value is neither text nor number")),
        };
    }
    query.execute(connection).await?;
    Ok(())
}
