-- What the network's authorities have signed and holds for all, a document of each kind.
CREATE TABLE charter (kind TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
