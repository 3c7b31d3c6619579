-- Runs once, in one transaction, with the search path set to the schema alone.
--
-- Counters (revisions, tickets, tokens, sessions) stay below 2^63. Times are milliseconds since
-- 1970 by this server's clock. `format` is the version of a record: software that knows only older
-- versions refuses to read it and does not change it.

CREATE TABLE meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL
);
INSERT INTO meta (version) VALUES (0);

-- The highest revision, ticket or token of any repository that was ever removed: new ones count on
-- from there.
CREATE TABLE floor (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  value bigint NOT NULL
);
INSERT INTO floor (value) VALUES (0);

-- What was noted of this server and its clock, by the processes that use it.
CREATE TABLE server (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- The timeline that it was on. One that has changed means a fail-over.
  timeline text NOT NULL,
  -- The last time at which sessions could not be renewed: a fail-over, a time in which nobody could
  -- reach the server, a step of its clock.
  since bigint NOT NULL,
  -- When it was last seen at work. Written seldom.
  seen bigint NOT NULL,
  -- How much later it has to be seen again, in ms, or else nobody could reach it.
  gap bigint NOT NULL,
  -- How many times in a row it was seen later than that.
  late smallint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO server (timeline, since, seen, gap, late)
  SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 0,
    floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, 2000, 0;

-- The older layouts whose state was brought along.
CREATE TABLE migrated (
  layout text COLLATE "C" PRIMARY KEY,
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every commit to a repository replaces its head. Free room on the page, and no index on the
-- columns that change, let PostgreSQL write the new version of the row on the page of the old one.
CREATE TABLE repositories (
  repository text COLLATE "C" PRIMARY KEY,
  format smallint NOT NULL,
  revision bigint NOT NULL,
  -- The stamp of the commit that made this revision; see new_stamp().
  stamp bigint NOT NULL,
  -- Records of runs that changed up to this revision may have been deleted: a reader that knows
  -- only an earlier revision has to read all records.
  purged bigint NOT NULL,
  -- 0: none.
  run_limit bigint NOT NULL,
  -- All 64 bits of an unsigned number; never compared here.
  limit_version bigint,
  last_ticket bigint NOT NULL,
  last_token bigint NOT NULL,
  queued bigint NOT NULL,
  started bigint NOT NULL,
  -- No record of a run that holds a slot is of a revision before this one: the guards need not look
  -- further back. Kept by the guards alone, and not with every commit.
  slots_from bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- No foreign key to the head: it would look up and lock the head for every row, although each
-- commit has locked it already. The guards make sure that a slot belongs to a head.
CREATE TABLE entries (
  repository text COLLATE "C" NOT NULL,
  run text COLLATE "C" NOT NULL,
  format smallint NOT NULL,
  uid text NOT NULL,
  -- 0 durable, 1 ephemeral.
  kind smallint NOT NULL,
  priority integer NOT NULL,
  ticket bigint NOT NULL,
  -- 0 queued, 1 started, 2 finished.
  state smallint NOT NULL,
  token bigint,
  -- The session that owns a queued run, or that holds or held the slot of a started one.
  session bigint,
  orphaned boolean NOT NULL,
  -- 0 completed, 1 failed, 2 cancelled, 3 expired.
  outcome smallint,
  abandoned boolean NOT NULL,
  -- The commit of `revision` recorded a slot that was taken already, not granted.
  adopted boolean NOT NULL,
  queued_at bigint,
  started_at bigint,
  finished_at bigint,
  revision bigint NOT NULL,
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
  id bigint PRIMARY KEY DEFAULT new_session(),
  session_ttl bigint NOT NULL,
  lease_ttl bigint NOT NULL,
  deadline bigint NOT NULL,
  lease_deadline bigint NOT NULL,
  -- Set once, and never taken back.
  dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
