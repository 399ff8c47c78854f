-- Who waits has a claim to no name: only members have names for themselves.
DROP INDEX devices_by_name;
CREATE UNIQUE INDEX devices_by_name ON devices (network, name) WHERE state = 'approved';
