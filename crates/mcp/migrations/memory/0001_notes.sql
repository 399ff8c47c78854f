-- Notes of the memory agent, their tags, and the full-text index over them.

CREATE TABLE notes (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    key     TEXT UNIQUE,
    text    TEXT NOT NULL,
    tags    TEXT NOT NULL,      -- sorted, one a line
    author  TEXT,
    created INTEGER NOT NULL,   -- milliseconds since 1970
    updated INTEGER NOT NULL    -- milliseconds since 1970
) STRICT;

CREATE INDEX notes_by_update ON notes (updated DESC, id DESC);
CREATE INDEX notes_by_author ON notes (author);

CREATE TABLE note_tags (
    tag  TEXT NOT NULL,
    note INTEGER NOT NULL REFERENCES notes (id) ON DELETE CASCADE,
    PRIMARY KEY (tag, note)
) STRICT, WITHOUT ROWID;

CREATE INDEX note_tags_by_note ON note_tags (note);

-- One row, kept by the triggers below, so that limits are checked without counting.
CREATE TABLE totals (
    notes INTEGER NOT NULL,
    bytes INTEGER NOT NULL      -- of the texts
) STRICT;

INSERT INTO totals (notes, bytes) VALUES (0, 0);

CREATE VIRTUAL TABLE note_words USING fts5 (
    text,
    tags,
    key,
    author,
    content = 'notes',
    content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2'
);

CREATE TRIGGER notes_added AFTER INSERT ON notes BEGIN
    INSERT INTO note_words (rowid, text, tags, key, author)
    VALUES (new.id, new.text, new.tags, new.key, new.author);
    UPDATE totals SET notes = notes + 1, bytes = bytes + octet_length(new.text);
END;

CREATE TRIGGER notes_removed AFTER DELETE ON notes BEGIN
    INSERT INTO note_words (note_words, rowid, text, tags, key, author)
    VALUES ('delete', old.id, old.text, old.tags, old.key, old.author);
    UPDATE totals SET notes = notes - 1, bytes = bytes - octet_length(old.text);
END;

CREATE TRIGGER notes_changed AFTER UPDATE ON notes BEGIN
    INSERT INTO note_words (note_words, rowid, text, tags, key, author)
    VALUES ('delete', old.id, old.text, old.tags, old.key, old.author);
    INSERT INTO note_words (rowid, text, tags, key, author)
    VALUES (new.id, new.text, new.tags, new.key, new.author);
    UPDATE totals SET bytes = bytes + octet_length(new.text) - octet_length(old.text);
END;
