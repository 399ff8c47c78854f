-- Keys shared with other nodes, sealed.
CREATE TABLE shared_keys (
    id BLOB PRIMARY KEY,
    peer BLOB NOT NULL,
    sealed BLOB NOT NULL,
    origin TEXT NOT NULL,
    confirmed INTEGER NOT NULL,
    added INTEGER NOT NULL,
    retired INTEGER
) STRICT;

-- Keys that are to be agreed on with nodes that could not be reached yet, or have not answered.
CREATE TABLE key_wishes (
    peer BLOB PRIMARY KEY,
    lifetime INTEGER NOT NULL,
    former BLOB,
    since INTEGER NOT NULL
) STRICT;

-- This node's word that a key is to be used no more, until its peer has taken note of it.
CREATE TABLE key_revocations (
    key BLOB PRIMARY KEY,
    peer BLOB NOT NULL,
    bytes BLOB NOT NULL,
    until INTEGER NOT NULL,
    told INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Names bound to identities.
CREATE TABLE pins (
    name TEXT PRIMARY KEY,
    node BLOB NOT NULL UNIQUE,
    issuer BLOB,
    admitted INTEGER NOT NULL,
    static_key BLOB,
    pinned INTEGER NOT NULL
) STRICT;

-- Envelopes that wait for their receiver: this node's own, and those of others.
CREATE TABLE mail (
    id BLOB NOT NULL,
    sender BLOB NOT NULL,
    receiver BLOB NOT NULL,
    bytes BLOB NOT NULL,
    expires INTEGER NOT NULL,
    copies INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (id, sender)
) STRICT;

-- Envelopes that have come, so that each counts once.
CREATE TABLE envelopes (
    id BLOB NOT NULL,
    sender BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (id, sender)
) STRICT;
