-- When a member was admitted says, with the revocations, whether it was put out since.
ALTER TABLE members ADD COLUMN admitted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members DROP COLUMN revoked;
