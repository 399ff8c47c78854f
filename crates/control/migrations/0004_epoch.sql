-- The time since which the numbers of changes go on. A restore leaves it out, so that there is another one afterwards.
CREATE TABLE epoch (
    one BIGINT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
