-- This node's static keys, sealed: the present one, and former ones for as long as they still open.
CREATE TABLE static_keys (
    public BLOB PRIMARY KEY,
    sealed BLOB NOT NULL,
    made INTEGER NOT NULL,
    retired INTEGER
) STRICT;
