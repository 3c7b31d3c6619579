-- Runs once, in one transaction, with the search path set to the schema alone.
--
-- Domains say what a column may hold. The CHECK of a table would be parsed and planned anew by each
-- statement that writes rows of it; a connection keeps the rules of a domain.

-- A revision, a ticket or a token. None is counted as far as 2^62: what is beyond is no count, and
-- must not be where another one goes on from.
CREATE DOMAIN counter AS bigint CHECK (VALUE BETWEEN 0 AND 4611686018427387904);
-- Of a session; see new_session().
CREATE DOMAIN session_number AS bigint CHECK (VALUE > 0);
-- Of a commit; see new_stamp().
CREATE DOMAIN commit_stamp AS bigint CHECK (VALUE >= 0);
-- A number of runs: 32 bits without a sign.
CREATE DOMAIN run_count AS bigint CHECK (VALUE BETWEEN 0 AND 4294967295);
-- Milliseconds since 1970 by this server's clock, until the year 9999.
CREATE DOMAIN moment AS bigint CHECK (VALUE BETWEEN 0 AND 253402300799999);
-- In milliseconds, 366 days at most.
CREATE DOMAIN ttl AS bigint CHECK (VALUE BETWEEN 1 AND 31622400000);
-- The version of a record: software that knows only older versions refuses to read it and does not
-- change it.
CREATE DOMAIN record_format AS smallint CHECK (VALUE > 0);
-- The key of a repository or a run: a namespace of 63 bytes at most, a slash, a name of 253.
CREATE DOMAIN namespaced_name AS text COLLATE "C" CHECK (octet_length(VALUE) BETWEEN 3 AND 317);
CREATE DOMAIN run_uid AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 128);
-- 0 durable, 1 ephemeral.
CREATE DOMAIN run_kind AS smallint CHECK (VALUE BETWEEN 0 AND 1);
-- 0 queued, 1 started, 2 finished.
CREATE DOMAIN run_state AS smallint CHECK (VALUE BETWEEN 0 AND 2);
-- 0 completed, 1 failed, 2 cancelled, 3 expired.
CREATE DOMAIN run_outcome AS smallint CHECK (VALUE BETWEEN 0 AND 3);

CREATE TABLE meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL CHECK (version >= 0)
);
INSERT INTO meta (version) VALUES (0);

-- The key that hints are sealed with. Any role that may connect can send and hear notifications, so
-- what was not sealed with it counts for nothing. Roles that may not read this table can neither
-- read hints nor forge any.
CREATE TABLE secrets (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  hints bytea NOT NULL CHECK (octet_length(hints) = 32)
);
REVOKE ALL ON secrets FROM PUBLIC;
-- 244 of its 256 bits are random, and come from the generator for cryptographic use.
INSERT INTO secrets (hints)
  SELECT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- The highest revision, ticket or token of any repository that was ever removed: new ones count on
-- from there. What is no count (see the domain) is left out.
CREATE TABLE floor (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  value counter NOT NULL
);
INSERT INTO floor (value) VALUES (0);

-- What was noted of this server and its clock, by the processes that use it.
CREATE TABLE server (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- The timeline that it was on. One that has changed means a fail-over.
  timeline text NOT NULL CHECK (octet_length(timeline) = 8),
  -- The last time at which sessions could not be renewed: a fail-over, a time in which nobody could
  -- reach the server, a step of its clock.
  since moment NOT NULL,
  -- When it was last seen at work. Written seldom.
  seen moment NOT NULL,
  -- How much later it has to be seen again, in ms, or else nobody could reach it.
  gap ttl NOT NULL,
  -- How many times in a row it was seen later than that.
  late smallint NOT NULL CHECK (late BETWEEN 0 AND 3)
) WITH (fillfactor = 50);
INSERT INTO server (timeline, since, seen, gap, late)
  SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 0,
    floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, 2000, 0;

-- The older layouts whose state was brought along.
CREATE TABLE migrated (
  layout text COLLATE "C" PRIMARY KEY CHECK (octet_length(layout) BETWEEN 1 AND 63),
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every commit to a repository replaces its head. Free room on the page, and no index on the
-- columns that change, let PostgreSQL write the new version of the row on the page of the old one.
CREATE TABLE repositories (
  repository namespaced_name PRIMARY KEY,
  format record_format NOT NULL,
  revision counter NOT NULL,
  -- The stamp of the commit that made this revision; see new_stamp().
  stamp commit_stamp NOT NULL,
  -- Records of runs that changed up to this revision may have been deleted: a reader that knows
  -- only an earlier revision has to read all records.
  purged counter NOT NULL,
  -- 0: none.
  run_limit run_count NOT NULL,
  -- All 64 bits of an unsigned number; never compared here.
  limit_version bigint,
  last_ticket counter NOT NULL,
  last_token counter NOT NULL,
  queued run_count NOT NULL,
  started run_count NOT NULL,
  -- No record of a run that holds a slot is of a revision before this one: the guards need not look
  -- further back. Kept by the guards alone, and not with every commit.
  slots_from counter NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- No foreign key to the head: it would look up and lock the head for every row, although each
-- commit has locked it already. The guards make sure that a slot belongs to a head.
CREATE TABLE entries (
  repository namespaced_name NOT NULL,
  run namespaced_name NOT NULL,
  format record_format NOT NULL,
  uid run_uid NOT NULL,
  kind run_kind NOT NULL,
  priority integer NOT NULL,
  ticket counter NOT NULL,
  state run_state NOT NULL,
  token counter,
  -- The session that owns a queued run, or that holds or held the slot of a started one.
  session session_number,
  orphaned boolean NOT NULL,
  outcome run_outcome,
  abandoned boolean NOT NULL,
  -- The commit of `revision` recorded a slot that was taken already, not granted.
  adopted boolean NOT NULL,
  queued_at moment,
  started_at moment,
  finished_at moment,
  revision counter NOT NULL,
  -- In this order it serves a search for one run alone: no plan can use it in place of the index
  -- below and read all entries of a repository.
  PRIMARY KEY (run, repository)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- Finds, in a repository, the entries that changed after a revision, those that hold a slot, and
-- those that ended last. One index for all of these: most of a commit's cost is the indexes that
-- its rows go into.
CREATE INDEX entries_state ON entries (repository, state, revision);
-- Finds the repositories in which runs wait.
CREATE INDEX entries_queued ON entries (repository) WHERE state = 0;
-- Finds the repositories in which a session has queued or started entries.
CREATE INDEX entries_session ON entries (session, repository)
  WHERE session IS NOT NULL AND state IN (0, 1);
-- Finds the runs that ended long ago.
CREATE INDEX entries_ended ON entries (finished_at) WHERE state = 2;

-- A number for a session: the time in seconds, and 31 random bits. A sequence would give the same
-- numbers out again after the database was restored from an older copy, while processes of before
-- still renew their sessions. Below 2^63 until the year 2106.
CREATE FUNCTION new_session() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()))::bigint << 31
  | floor(random() * 2147483648)::bigint;

CREATE TABLE sessions (
  id session_number PRIMARY KEY DEFAULT new_session(),
  session_ttl ttl NOT NULL,
  lease_ttl ttl NOT NULL,
  deadline moment NOT NULL,
  lease_deadline moment NOT NULL,
  -- Set once, and never taken back.
  dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
