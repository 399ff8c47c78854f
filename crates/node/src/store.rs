//! The node's database. No SQL outside this module.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use dawn_identity::{Invite, InviteError, InviteId, InviteSecret, NodeId, NodeName, Redemption, Role, Roles, UnixTime};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::error::NodeError;

mod charter;
mod control;
mod keys;
mod mail;
mod pins;
mod registry;
mod shared;

pub use control::{ControlChange, ControlDeviceRow};
pub use keys::StaticKeyRow;
pub use mail::{MailRow, Waiting};
pub use pins::PinRow;
pub use registry::RegistryChange;
pub use shared::{KeyRevocationRow, SharedKeyRow, WishRow};

/// The database of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(SqlitePool);

/// A member that this node admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// When its last certificate expires.
    pub expires: UnixTime,
    /// When it was admitted.
    pub admitted: UnixTime,
}

/// What was decided about a request to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let in.
    Approved,
    /// Refused.
    Denied,
}

/// Somebody who waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// The request.
    pub id: String,
    /// Who asks.
    pub node: NodeId,
    /// Under which name.
    pub name: NodeName,
    /// The safety words of its handshake.
    pub words: String,
    /// The invite it holds.
    pub invite: InviteId,
    /// When it asked.
    pub asked: UnixTime,
    /// What was decided.
    pub verdict: Option<Verdict>,
}

/// An admission that took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRow {
    /// Who came in.
    pub node: NodeId,
    /// Under which name.
    pub name: NodeName,
    /// The safety words.
    pub words: String,
    /// When.
    pub at: UnixTime,
}

/// A use of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redeemed {
    /// Whether this consumed a use.
    pub redemption: Redemption,
    /// The role that the invite gives.
    pub role: Role,
    /// When the node redeemed it, this time or the first.
    pub at: UnixTime,
}

/// Why an invite was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No such invite.
    #[error("the invite is unknown")]
    Unknown,
    /// The invite does not allow it.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The database failed.
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn corrupt(error: impl std::fmt::Display) -> NodeError {
    NodeError::Corrupt(error.to_string())
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn time(row: &SqliteRow, column: &str) -> Result<UnixTime, NodeError> {
    u64::try_from(row.try_get::<i64, _>(column)?)
        .map(UnixTime)
        .map_err(corrupt)
}

fn node(row: &SqliteRow, column: &str) -> Result<NodeId, NodeError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes
        .try_into()
        .map(NodeId::from_bytes)
        .map_err(|_| corrupt("a node id of another length"))
}

fn name(row: &SqliteRow) -> Result<NodeName, NodeError> {
    row.try_get::<String, _>("name")?.parse().map_err(corrupt)
}

/// Makes the file, and makes sure that its user alone can read it; what SQLite puts beside it gets the same rights.
fn make_private(path: &Path) -> Result<(), NodeError> {
    let made = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    made().map_err(|source| NodeError::File {
        path: path.to_owned(),
        source,
    })
}

impl Store {
    /// Opens the database, makes it where it is missing, and brings it up to date.
    ///
    /// # Errors
    /// It cannot be opened or brought up to date.
    pub async fn open(path: &Path) -> Result<Self, NodeError> {
        make_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        sqlx_macros::migrate!("./migrations").run(&pool).await?;
        Ok(Self(pool))
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// A remembered value.
    ///
    /// # Errors
    /// The database failed.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, NodeError> {
        Ok(sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.0)
            .await?)
    }

    /// Remembers a value.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<(), NodeError> {
        let query =
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let _done = sqlx::query(query).bind(key).bind(value).execute(&self.0).await?;
        Ok(())
    }

    /// Forgets a value.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unset(&self, key: &str) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM meta WHERE key = ?");
        let _done = query.bind(key).execute(&self.0).await?;
        Ok(())
    }

    /// Keeps a new invite.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_invite(&self, invite: &Invite, role: Role) -> Result<(), NodeError> {
        let _done = sqlx::query(
            "INSERT INTO invites (id, secret, created, expires, max_uses, role, approval) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&invite.id.as_bytes()[..])
        .bind(&invite.secret.as_bytes()[..])
        .bind(seconds(invite.created))
        .bind(seconds(invite.expires))
        .bind(i64::from(invite.max_uses))
        .bind(role.to_string())
        .bind(invite.approval)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Every invite, newest first, each with the role it gives.
    ///
    /// # Errors
    /// The database failed.
    pub async fn invites(&self) -> Result<Vec<(Invite, Role)>, NodeError> {
        let rows = sqlx::query("SELECT id FROM invites ORDER BY created DESC, id")
            .fetch_all(&self.0)
            .await?;
        let mut connection = self.0.acquire().await?;
        let mut invites = Vec::with_capacity(rows.len());
        for row in rows {
            let id: Vec<u8> = row.try_get("id")?;
            let id = id
                .try_into()
                .map(InviteId::from_bytes)
                .map_err(|_| corrupt("an invite id of another length"))?;
            invites.extend(Self::read_invite(&mut connection, id).await?);
        }
        Ok(invites)
    }

    /// One invite, with the role it gives.
    ///
    /// # Errors
    /// The database failed.
    pub async fn invite(&self, id: InviteId) -> Result<Option<(Invite, Role)>, NodeError> {
        let mut connection = self.0.acquire().await?;
        Self::read_invite(&mut connection, id).await
    }

    async fn read_invite(connection: &mut SqliteConnection, id: InviteId) -> Result<Option<(Invite, Role)>, NodeError> {
        let row = sqlx::query("SELECT * FROM invites WHERE id = ?")
            .bind(&id.as_bytes()[..])
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let rows = sqlx::query("SELECT node FROM redemptions WHERE invite = ? ORDER BY at")
            .bind(&id.as_bytes()[..])
            .fetch_all(connection)
            .await?;
        let redeemed_by = rows
            .iter()
            .map(|row| node(row, "node"))
            .collect::<Result<Vec<_>, _>>()?;
        let secret: Vec<u8> = row.try_get("secret")?;
        let secret: [u8; 16] = secret
            .try_into()
            .map_err(|_| corrupt("an invite's secret of another length"))?;
        let role: Role = row.try_get::<String, _>("role")?.parse().map_err(corrupt)?;
        let invite = Invite {
            id,
            secret: InviteSecret::from_bytes(secret),
            created: time(&row, "created")?,
            expires: time(&row, "expires")?,
            max_uses: u32::try_from(row.try_get::<i64, _>("max_uses")?).map_err(corrupt)?,
            uses: u32::try_from(redeemed_by.len()).map_err(corrupt)?,
            roles: Roles::from(role),
            approval: row.try_get("approval")?,
            revoked: row.try_get("revoked")?,
            redeemed_by,
        };
        Ok(Some((invite, role)))
    }

    /// Revokes an invite; `false` when there is none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke_invite(&self, id: InviteId) -> Result<bool, NodeError> {
        let done = sqlx::query("UPDATE invites SET revoked = 1 WHERE id = ?")
            .bind(&id.as_bytes()[..])
            .execute(&self.0)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Revokes every invite that a node has redeemed.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke_invites_of(&self, node: NodeId) -> Result<(), NodeError> {
        let query = "UPDATE invites SET revoked = 1 WHERE id IN (SELECT invite FROM redemptions WHERE node = ?)";
        let _done = sqlx::query(query).bind(&node.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }

    /// Takes a request back, unless it was decided.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_request(&self, id: &str) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM requests WHERE id = ? AND verdict IS NULL");
        let _done = query.bind(id).execute(&self.0).await?;
        Ok(())
    }

    /// Consumes a use of an invite for a node, exactly once however many ask at once; the same node asking again
    /// consumes nothing, and is told when it did. A new redemption is dated `at`.
    ///
    /// # Errors
    /// The invite is unknown or does not allow it, or the database failed.
    pub async fn redeem(&self, id: InviteId, by: NodeId, now: UnixTime, at: UnixTime) -> Result<Redeemed, RedeemError> {
        let database = |error: sqlx::Error| RedeemError::Node(error.into());
        let mut connection = self.0.acquire().await.map_err(database)?;
        // The write lock is taken at the beginning, so that two redemptions cannot both read before either writes.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
        let (mut invite, role) = Self::read_invite(&mut transaction, id)
            .await?
            .ok_or(RedeemError::Unknown)?;
        let redemption = invite.redeem(by, now)?;
        // A node that comes again finds the row of the first time.
        let query = sqlx::query(
            "INSERT INTO redemptions (invite, node, at) VALUES (?, ?, ?)
            ON CONFLICT (invite, node) DO UPDATE SET at = at RETURNING at",
        );
        let query = query
            .bind(&id.as_bytes()[..])
            .bind(&by.as_bytes()[..])
            .bind(seconds(at));
        let row = query.fetch_one(&mut *transaction).await.map_err(database)?;
        let at = time(&row, "at")?;
        transaction.commit().await.map_err(database)?;
        Ok(Redeemed { redemption, role, at })
    }

    /// Notes that somebody asks to be let in; an earlier request of the same node is replaced, whatever was decided.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_request(&self, request: &RequestRow) -> Result<(), NodeError> {
        // What was asked and decided long ago is of no use any more.
        let query = sqlx::query("DELETE FROM requests WHERE asked < ?");
        let _done = query.bind(seconds(request.asked) - 86_400).execute(&self.0).await?;
        let query = "INSERT INTO requests (id, node, name, words, invite, asked) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (node) DO UPDATE SET id = excluded.id, name = excluded.name, words = excluded.words,
            invite = excluded.invite, asked = excluded.asked, verdict = NULL";
        let query = sqlx::query(query)
            .bind(&request.id)
            .bind(&request.node.as_bytes()[..])
            .bind(request.name.as_str());
        let query = query
            .bind(&request.words)
            .bind(&request.invite.as_bytes()[..])
            .bind(seconds(request.asked));
        let _done = query.execute(&self.0).await?;
        Ok(())
    }

    /// Everybody who asked to be let in and was not decided about.
    ///
    /// # Errors
    /// The database failed.
    pub async fn requests(&self) -> Result<Vec<RequestRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM requests WHERE verdict IS NULL ORDER BY asked")
            .fetch_all(&self.0)
            .await?;
        rows.iter().map(request).collect()
    }

    /// One request, decided or not.
    ///
    /// # Errors
    /// The database failed.
    pub async fn request(&self, id: &str) -> Result<Option<RequestRow>, NodeError> {
        let row = sqlx::query("SELECT * FROM requests WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.0)
            .await?;
        row.as_ref().map(request).transpose()
    }

    /// Decides a request; `false` when there is none that waits.
    ///
    /// # Errors
    /// The database failed.
    pub async fn decide(&self, id: &str, verdict: Verdict) -> Result<bool, NodeError> {
        let text = match verdict {
            Verdict::Approved => "approved",
            Verdict::Denied => "denied",
        };
        let done = sqlx::query("UPDATE requests SET verdict = ? WHERE id = ? AND verdict IS NULL")
            .bind(text)
            .bind(id)
            .execute(&self.0)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes a member and, when it just came in, its admission with the safety words.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_member(&self, member: &MemberRow, words: Option<(&str, UnixTime)>) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let query = "INSERT INTO members (node, name, role, expires, admitted) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (node) DO UPDATE SET name = excluded.name, role = excluded.role, expires = excluded.expires,
            admitted = excluded.admitted";
        let query = sqlx::query(query)
            .bind(&member.node.as_bytes()[..])
            .bind(member.name.as_str());
        let _done = query
            .bind(member.role.to_string())
            .bind(seconds(member.expires))
            .bind(seconds(member.admitted))
            .execute(&mut *transaction)
            .await?;
        if let Some((words, at)) = words {
            let query = sqlx::query("INSERT INTO joins (node, name, words, at) VALUES (?, ?, ?, ?)");
            let query = query
                .bind(&member.node.as_bytes()[..])
                .bind(member.name.as_str())
                .bind(words)
                .bind(seconds(at));
            let _done = query.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Every member that this node admitted.
    ///
    /// # Errors
    /// The database failed.
    pub async fn members(&self) -> Result<Vec<MemberRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM members ORDER BY name")
            .fetch_all(&self.0)
            .await?;
        let member = |row: &SqliteRow| {
            Ok(MemberRow {
                node: node(row, "node")?,
                name: name(row)?,
                role: row.try_get::<String, _>("role")?.parse().map_err(corrupt)?,
                expires: time(row, "expires")?,
                admitted: time(row, "admitted")?,
            })
        };
        rows.iter().map(member).collect()
    }

    /// The last admissions, newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn joins(&self) -> Result<Vec<JoinRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM joins ORDER BY at DESC, rowid DESC LIMIT 100")
            .fetch_all(&self.0)
            .await?;
        let join = |row: &SqliteRow| {
            Ok(JoinRow {
                node: node(row, "node")?,
                name: name(row)?,
                words: row.try_get("words")?,
                at: time(row, "at")?,
            })
        };
        rows.iter().map(join).collect()
    }

    /// Keeps a revocation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_revocation(&self, of: NodeId, bytes: &[u8]) -> Result<(), NodeError> {
        let query = sqlx::query("INSERT OR IGNORE INTO revocations (node, bytes) VALUES (?, ?)");
        let _done = query.bind(&of.as_bytes()[..]).bind(bytes).execute(&self.0).await?;
        Ok(())
    }

    /// Every revocation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revocations(&self) -> Result<Vec<Vec<u8>>, NodeError> {
        Ok(sqlx::query_scalar("SELECT bytes FROM revocations")
            .fetch_all(&self.0)
            .await?)
    }

    /// Keeps the addresses of a node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_contact(&self, of: NodeId, addresses: &[String]) -> Result<(), NodeError> {
        let mut connection = self.0.acquire().await?;
        Self::put_contact(&mut connection, of, addresses).await
    }

    async fn put_contact(connection: &mut SqliteConnection, of: NodeId, addresses: &[String]) -> Result<(), NodeError> {
        let text = serde_json::to_string(addresses).map_err(corrupt)?;
        let query = "INSERT INTO contacts (node, addresses) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET addresses = excluded.addresses";
        let _done = sqlx::query(query)
            .bind(&of.as_bytes()[..])
            .bind(text)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The addresses of every known node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn contacts(&self) -> Result<Vec<(NodeId, Vec<String>)>, NodeError> {
        let rows = sqlx::query("SELECT node, addresses FROM contacts")
            .fetch_all(&self.0)
            .await?;
        let contact = |row: &SqliteRow| {
            let text: String = row.try_get("addresses")?;
            Ok((node(row, "node")?, serde_json::from_str(&text).map_err(corrupt)?))
        };
        rows.iter().map(contact).collect()
    }
}

fn request(row: &SqliteRow) -> Result<RequestRow, NodeError> {
    let invite: Vec<u8> = row.try_get("invite")?;
    let verdict: Option<String> = row.try_get("verdict")?;
    Ok(RequestRow {
        id: row.try_get("id")?,
        node: node(row, "node")?,
        name: name(row)?,
        words: row.try_get("words")?,
        invite: invite
            .try_into()
            .map(InviteId::from_bytes)
            .map_err(|_| corrupt("an invite id of another length"))?,
        asked: time(row, "asked")?,
        verdict: verdict.map(|text| {
            if text == "approved" {
                Verdict::Approved
            } else {
                Verdict::Denied
            }
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(max_uses: u32) -> Invite {
        Invite {
            id: InviteId::from_bytes([1; 8]),
            secret: InviteSecret::from_bytes([2; 16]),
            created: UnixTime(1000),
            expires: UnixTime(2000),
            max_uses,
            uses: 0,
            roles: Roles::from(Role::Member),
            approval: false,
            revoked: false,
            redeemed_by: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_hundred_at_once_redeem_an_invite_of_three_uses_exactly_three_times() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        store.add_invite(&invite(3), Role::Member).await.unwrap();
        let id = InviteId::from_bytes([1; 8]);
        let tries = (0..100_u8).map(|at| {
            let store = store.clone();
            async move {
                store
                    .redeem(id, NodeId::from_bytes([at; 32]), UnixTime(1500), UnixTime(1501))
                    .await
                    .is_ok()
            }
        });
        let admitted: Vec<bool> = futures::future::join_all(tries).await;
        assert_eq!(admitted.iter().filter(|admitted| **admitted).count(), 3);
        let first = admitted.iter().position(|admitted| *admitted).unwrap() as u8;
        let again = store
            .redeem(id, NodeId::from_bytes([first; 32]), UnixTime(1600), UnixTime(1600))
            .await
            .unwrap();
        assert_eq!((again.redemption, again.at), (Redemption::Again, UnixTime(1501)));
        assert!(matches!(
            store
                .redeem(id, NodeId::from_bytes([200; 32]), UnixTime(2500), UnixTime(2500))
                .await,
            Err(RedeemError::Invite(_))
        ));
        assert!(matches!(
            store
                .redeem(
                    InviteId::from_bytes([9; 8]),
                    NodeId::from_bytes([1; 32]),
                    UnixTime(1500),
                    UnixTime(1500)
                )
                .await,
            Err(RedeemError::Unknown)
        ));
    }

    #[tokio::test]
    async fn what_is_remembered_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dawn.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let store = Store::open(&path).await.unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        store.set("key", b"value").await.unwrap();
        store
            .set_contact(NodeId::from_bytes([1; 32]), &["/ip4/127.0.0.1/tcp/1".into()])
            .await
            .unwrap();
        store.close().await;
        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.get("key").await.unwrap().unwrap(), b"value");
        assert_eq!(store.contacts().await.unwrap().len(), 1);
    }
}
