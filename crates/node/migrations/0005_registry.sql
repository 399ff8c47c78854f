-- What is known of each node: a signed delta for each of its heads, the whole set in each.
CREATE TABLE registry_states (
    node BLOB NOT NULL,
    place INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (node, place)
) STRICT;

-- The incarnations of this node: each is kept before it says anything.
CREATE TABLE registry_epochs (epoch INTEGER PRIMARY KEY, begun INTEGER NOT NULL) STRICT;

-- What happened, in a chain of hashes.
CREATE TABLE registry_log (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;

-- Records had no set that could be merged: what they said comes again from the nodes themselves.
DROP TABLE records;
DELETE FROM meta WHERE key = 'epoch';
