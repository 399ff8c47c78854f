-- One text for SQLite and PostgreSQL: only TEXT and BIGINT. Times are seconds since 1970, keys and ids their texts.

-- A network that this control plane serves.
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created BIGINT NOT NULL,
    -- The number of its newest change.
    latest BIGINT NOT NULL,
    -- The number that its newest device, person or invite got: their place in listings.
    numbered BIGINT NOT NULL,
    -- The change that wrote this row.
    revision BIGINT NOT NULL,
    -- The chain of one by which the network lets this control plane issue, base64url; NULL until it does.
    issuer TEXT
);

CREATE TABLE people (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    created BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (network, id)
);

CREATE UNIQUE INDEX people_by_number ON people (network, number);

CREATE TABLE devices (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node TEXT NOT NULL,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    -- pending, approved, denied or revoked
    state TEXT NOT NULL,
    role TEXT NOT NULL,
    person TEXT,
    invite TEXT,
    created BIGINT NOT NULL,
    admitted BIGINT,
    revoked BIGINT,
    -- Of its newest certificate.
    serial TEXT,
    expires BIGINT,
    -- When it was heard last, and what was last said of it: online, idle or offline.
    last_seen BIGINT,
    presence TEXT NOT NULL,
    presence_since BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (network, node)
);

CREATE UNIQUE INDEX devices_by_name ON devices (network, name) WHERE state IN ('pending', 'approved');
CREATE UNIQUE INDEX devices_by_number ON devices (network, number);

CREATE TABLE invites (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    number BIGINT NOT NULL,
    -- SHA-256 of the secret, hexadecimal.
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    person TEXT,
    -- Whether a person has to approve each who shows it (1) or not (0).
    approval BIGINT NOT NULL,
    max_uses BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT,
    PRIMARY KEY (network, id)
);

CREATE UNIQUE INDEX invites_by_number ON invites (network, number);

-- What administrators show. Only the hash is kept.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Between spaces.
    scopes TEXT NOT NULL,
    network TEXT,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT
);

-- The newest change of each subject: a kind and, where there are several of it, a key.
CREATE TABLE changes (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (network, kind, subject)
);

CREATE UNIQUE INDEX changes_by_number ON changes (network, number);

-- What was done, by whom: a chain of hashes, append only.
CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    network TEXT,
    -- JSON
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT,
    -- done or refused
    outcome TEXT NOT NULL,
    detail TEXT,
    request TEXT,
    origin TEXT,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE INDEX audit_by_network ON audit (network, number);
