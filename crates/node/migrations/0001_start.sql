-- What a node remembers.
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

CREATE TABLE invites (
    id BLOB PRIMARY KEY,
    secret BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    max_uses INTEGER NOT NULL,
    role TEXT NOT NULL,
    approval INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One row for each use: the use is consumed by the row's being there.
CREATE TABLE redemptions (
    invite BLOB NOT NULL REFERENCES invites (id),
    node BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (invite, node)
) STRICT;

CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    node BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    words TEXT NOT NULL,
    invite BLOB NOT NULL,
    asked INTEGER NOT NULL,
    verdict TEXT CHECK (verdict IN ('approved', 'denied'))
) STRICT;

CREATE TABLE members (
    node BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE joins (node BLOB NOT NULL, name TEXT NOT NULL, words TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE revocations (node BLOB NOT NULL, bytes BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE records (node BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE contacts (node BLOB PRIMARY KEY, addresses TEXT NOT NULL) STRICT;
