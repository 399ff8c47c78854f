-- What a device says of itself: its software, and where it can be dialled (a JSON list).
ALTER TABLE devices ADD COLUMN software TEXT;
ALTER TABLE devices ADD COLUMN addresses TEXT NOT NULL DEFAULT '[]';

-- Whatever helps to tell one from others.
ALTER TABLE people ADD COLUMN note TEXT;
ALTER TABLE invites ADD COLUMN note TEXT;

-- When a token was used last, to the minute.
ALTER TABLE tokens ADD COLUMN last_used BIGINT;

CREATE INDEX devices_by_person ON devices (network, person);

-- Certificates that were issued, kept until some time after they end.
CREATE TABLE certificates (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    serial TEXT NOT NULL,
    number BIGINT NOT NULL,
    node TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    admitted BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (network, serial)
);

CREATE UNIQUE INDEX certificates_by_number ON certificates (network, number);
CREATE INDEX certificates_by_expiry ON certificates (expires);

-- Those that devices had before this version. When they were issued was not kept: not before their subject's admission.
INSERT INTO certificates (network, serial, number, node, name, role, admitted, issued, expires)
SELECT network, serial, number, node, name, role, COALESCE(admitted, created), COALESCE(admitted, created), expires
FROM devices WHERE serial IS NOT NULL AND expires IS NOT NULL;

-- Revocations, as they were signed, base64url.
CREATE TABLE revocations (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    -- SHA-256 of the statement, hexadecimal.
    digest TEXT NOT NULL,
    number BIGINT NOT NULL,
    node TEXT NOT NULL,
    at BIGINT NOT NULL,
    statement TEXT NOT NULL,
    PRIMARY KEY (network, digest)
);

CREATE UNIQUE INDEX revocations_by_number ON revocations (network, number);

-- Policy, relays, bootstrap nodes: one of each kind for a network.
CREATE TABLE documents (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    -- JSON
    content TEXT NOT NULL,
    at BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (network, kind)
);

-- Answers kept for who asks again with the same Idempotency-Key.
CREATE TABLE answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of what was asked, hexadecimal.
    request TEXT NOT NULL,
    status BIGINT NOT NULL,
    -- Sealed, base64url.
    answer TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);

CREATE INDEX answers_by_time ON answers (at);

-- Nonces of signed requests that changed something, until their signatures expire.
CREATE TABLE nonces (
    node TEXT NOT NULL,
    nonce TEXT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (node, nonce)
);

CREATE INDEX nonces_by_expiry ON nonces (expires);
