-- What the control plane has told of other devices. Its word alone: nobody is a member by it.
CREATE TABLE control_devices (
    node BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    role TEXT NOT NULL,
    presence TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;
