-- Reads of one repository, and commits to many in one transaction, each with its own condition and its
-- own outcome. The commit to one repository, if nothing stands against it, is a plain statement of the
-- driver's (see statement.rs); these functions do everything else. They are functions because a
-- connection then keeps their plans: to make the plans takes longer than to carry them out.
--
-- The settings of the functions: the planner does not know how long the arrays are, and without the
-- settings would read whole tables, or plan anew for each call. Where only a scan of the whole
-- table is possible, as for the one row of floor, it counts as very expensive with them, and
-- without jit = off the server would compile the plan first, which takes 10 ms.
--
-- A condition with a query of its own costs as much as a statement, so it is evaluated only where
-- it matters. An expression without a query costs next to nothing, and an element of an array less
-- than a row of unnest.

-- Each head is found by the place at which it was last seen (its `ctid`), which callers remember and
-- send along, and only then by its key. While a transaction elsewhere in the database keeps an old
-- snapshot, no old version of a row can go, every commit makes another version of the head, and a
-- search by key goes through all of them. The place may be that of another row by now, or of an old
-- version: so the key, and for a commit the version, are compared as well. IS TRUE keeps the planner
-- from the search by key.

-- What all revisions have in common that were made by this run of the server, in these tables:
-- after a restore, and after a fail-over, one of the two is another. Differs from one revision to
-- the next, so that it tells whether this very revision was made here.
CREATE FUNCTION lineage(revision bigint) RETURNS bigint
LANGUAGE sql STABLE
RETURN hashint8extended(revision, hashfloat8extended(
  date_part('epoch', pg_postmaster_start_time()),
  pg_relation_filenode('repositories'::regclass)::bigint)) & 2147483647;

-- The stamp of the commit that makes a revision: its lineage, and 31 random bits.
CREATE FUNCTION new_stamp(revision bigint) RETURNS bigint
LANGUAGE sql VOLATILE
RETURN lineage(revision) << 31 | floor(random() * 2147483648)::bigint;

-- A row of what a read has found: the head with what comes before it, or an entry with nulls before it.
CREATE TYPE loaded AS (
  floor bigint, part boolean, at text,
  format smallint, revision bigint, stamp bigint, run_limit bigint, limit_version bigint,
  last_ticket bigint, last_token bigint, queued bigint, started bigint, policy text,
  run_format smallint, run text, uid text, kind smallint, priority integer, ticket bigint,
  state smallint, token bigint, session bigint, orphaned boolean, outcome smallint,
  abandoned boolean, queued_at bigint, started_at bigint, finished_at bigint, changed bigint,
  terms text);
REVOKE USAGE ON TYPE loaded FROM PUBLIC;

-- Returns first the head with the floor, and whether what follows is a part; then the entries that
-- changed after the revision `p_known` with the stamp `p_stamp`. All entries, if that is null, or is
-- not known to belong to the history of what is there, or records of runs that changed later may
-- have been deleted. Of finished runs the `p_finished` that changed last, and one more if there are
-- more: however many lie in the table, a read is bounded. STABLE makes all of it as of the moment
-- when the calling statement began.
CREATE FUNCTION load_repository(
  p_repository text, p_known bigint, p_stamp bigint, p_at text, p_finished bigint)
RETURNS SETOF loaded
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_head loaded;
  v_after bigint := -1;
  v_purged bigint;
  v_slots_from bigint;
BEGIN
  SELECT f.value, r.ctid, r.purged, counted(r.slots_from, 4611686018427387904), r.format,
      r.revision, r.stamp, r.run_limit, r.limit_version, r.last_ticket, r.last_token, r.queued,
      r.started, r.policy::text
    INTO v_head.floor, v_head.at, v_purged, v_slots_from, v_head.format, v_head.revision,
      v_head.stamp, v_head.run_limit, v_head.limit_version, v_head.last_ticket,
      v_head.last_token, v_head.queued, v_head.started, v_head.policy
    FROM floor f LEFT JOIN LATERAL (
      SELECT k.ctid, k.* FROM repositories k
        WHERE k.ctid = p_at::tid AND (k.repository = p_repository) IS TRUE
      UNION ALL
      SELECT k.ctid, k.* FROM repositories k WHERE k.repository = p_repository
      LIMIT 1) r ON true;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  v_head.part := CASE WHEN v_head.format IS NULL THEN NULL
    ELSE coalesce(p_known >= v_purged AND CASE p_known WHEN v_head.revision THEN p_stamp = v_head.stamp
      ELSE p_known < v_head.revision AND p_stamp >> 31 = lineage(p_known) END, false) END;
  RETURN NEXT v_head;
  IF v_head.part THEN
    v_after := p_known;
  END IF;
  -- The types have to be those of the result, not domains.
  RETURN QUERY SELECT NULL::bigint, NULL::boolean, NULL::text, NULL::smallint, NULL::bigint,
      NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
      NULL::bigint, NULL::text,
      e.format::smallint, e.run::text, e.uid::text, e.kind::smallint, e.priority,
      e.ticket::bigint, e.state, e.token::bigint, e.session::bigint, e.orphaned,
      e.outcome::smallint, e.abandoned, e.queued_at::bigint, e.started_at::bigint,
      e.finished_at::bigint, e.revision::bigint, e.terms::text
    FROM (
      SELECT q.format, q.run, q.uid, q.kind, q.priority, q.ticket, 0::smallint AS state,
          NULL::bigint AS token, q.session, false AS orphaned, NULL::smallint AS outcome,
          false AS abandoned, q.queued_at, NULL::bigint AS started_at,
          NULL::bigint AS finished_at, q.revision, q.terms
        FROM queue q WHERE q.repository = p_repository AND q.revision > v_after
      UNION ALL
      SELECT t.format, t.run, t.uid, t.kind, t.priority, t.ticket, 1::smallint, t.token, t.session,
          t.orphaned, NULL, false, t.queued_at, t.started_at, NULL, t.revision, t.terms
        FROM slots t WHERE t.repository = p_repository
          AND t.revision > greatest(v_after, v_slots_from - 1)
      UNION ALL (
        SELECT k.format, k.run, k.uid, k.kind, k.priority, k.ticket, 2::smallint, k.token, NULL,
            false, k.outcome, k.abandoned, k.queued_at, k.started_at, k.finished_at, k.revision,
            k.terms
          FROM history k WHERE k.repository = p_repository AND k.revision > v_after
          ORDER BY k.revision DESC LIMIT p_finished + 1)) e;
END
$$;

-- The same as of now, and not as of when the calling statement began: for a commit that has waited
-- for another one, and has lost to it. Nothing was written, so nothing need be on the disk before the
-- locks that were taken meanwhile are given back. STRICT: it does nothing where no repository is named.
CREATE FUNCTION reload(
  p_repository text, p_known bigint, p_stamp bigint, p_at text, p_finished bigint)
RETURNS SETOF loaded
LANGUAGE plpgsql STRICT VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY SELECT * FROM load_repository(p_repository, p_known, p_stamp, p_at, p_finished);
END
$$;

-- Refuses what a commit was to write where other rows are there than it takes the place of.
CREATE FUNCTION refuse() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  RAISE EXCEPTION 'a run is not where it was: a record of it is missing, or of a newer version'
    USING ERRCODE = 'PAC02';
END
$$;

-- A counter, or 0 in place of one that is above `most` or none.
CREATE FUNCTION counted(number bigint, most bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN number BETWEEN 0 AND most THEN number ELSE 0 END;

-- Terms or a policy as they are to be stored: a field that is null stands for the moment of the
-- commit. STRICT: most runs have no terms, for which it is not called.
CREATE FUNCTION at_moment(part text, moment bigint) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
RETURN CASE WHEN strpos(part, 'null') = 0 THEN part
  ELSE (SELECT jsonb_object_agg(f.key, CASE WHEN jsonb_typeof(f.value) = 'null' THEN to_jsonb(moment)
      ELSE f.value END)::text FROM jsonb_each(part::jsonb) f) END;

-- A field of terms or of a policy as text, and as a number of at most 2^53. Null where there is none,
-- and for what nobody can read: who reads many is not kept from the others by one of them. To be called
-- where there are some, since each call is a transaction within the one of the caller.
CREATE FUNCTION text_in(part text, field text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL RESTRICTED SET search_path FROM CURRENT
AS $$
BEGIN
  RETURN part::jsonb ->> field;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$$;

CREATE FUNCTION number_in(part text, field text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL RESTRICTED SET search_path FROM CURRENT
AS $$
DECLARE
  v_number numeric;
BEGIN
  v_number := (part::jsonb ->> field)::numeric;
  RETURN CASE WHEN abs(v_number) <= 9007199254740992 THEN v_number::bigint END;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$$;

-- Whether the first run that waits could start: as `Head::could_start` says.
CREATE FUNCTION could_start(run_limit bigint, queued bigint, started bigint, policy text)
RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN queued > 0 AND CASE
  WHEN policy = '' THEN run_limit = 0 OR started < run_limit
  WHEN number_in(policy, 'paused') IS NOT NULL THEN false
  ELSE run_limit = 0 OR started::numeric + coalesce(number_in(policy, 'surplus'), 0)
    + coalesce(number_in(policy, 'needs'), 0) < run_limit END;

-- Locks first and reads later: every statement of this function sees what was committed before that
-- statement began, and a row that it locks as it is then. Sessions are locked first, in the order of
-- their keys; a head that another transaction has locked is a conflict and not waited for. So there is
-- no deadlock.
--
-- What it changes it finds by the places of the rows, and those from within a LATERAL that the planner
-- cannot turn into another join: a plan that was made while a table was empty, and is kept, must not
-- read all of it later.
--
-- Returns an outcome for each repository: 0 committed, at `moment`, with the stamp of the new head and
-- the place `at` which it is (unless a guard has moved it since), or with the new floor in `about` if
-- it was removed; 1 conflict; 2 the session `about` is dead. A row with the number 0 means that the
-- committing session is dead, and nothing was committed.
CREATE FUNCTION commit_batch(
  p_session bigint,
  -- One for each repository. `p_at` is where its head was last seen, or null; `p_last` the number of
  -- the last of its entries, or of the one before it if it has none.
  p_repository text[], p_expected bigint[], p_stamp bigint[], p_at text[], p_remove boolean[],
  p_limit bigint[],
  p_limit_version bigint[], p_last_ticket bigint[], p_last_token bigint[], p_queued bigint[],
  p_started bigint[], p_last integer[],
  -- One for each session that has to live, with the number of its repository.
  p_alive_of integer[], p_alive bigint[],
  -- One for each entry, in the order of their repositories. `p_was` is the revision of the row that
  -- it takes the place of, or 0. The smallest time stands for that of the commit.
  p_was bigint[], p_run text[], p_uid text[], p_kind smallint[],
  p_priority integer[], p_ticket bigint[], p_state smallint[], p_token bigint[], p_owner bigint[],
  p_orphaned boolean[], p_outcome smallint[], p_abandoned boolean[], p_adopted boolean[],
  p_queued_at bigint[], p_started_at bigint[], p_finished_at bigint[],
  -- One for each repository, null where it stays as it was, and one for each entry, null where there are
  -- none; and null in the place of the array where all are.
  p_policy text[], p_terms text[]
) RETURNS TABLE (number integer, outcome smallint, moment bigint, about bigint, stamp bigint, at text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  c_now CONSTANT bigint := -9223372036854775808;
  -- 2^61. No removal raises the floor beyond this, so that all repositories can count on from there.
  c_floor CONSTANT bigint := 2305843009213693952;
  v_sessions bigint[] := ARRAY[p_session];
  v_living bigint[];
  v_dead bigint[];
  -- The numbers of the repositories of which a session is dead, and of those whose heads are locked
  -- here and at the expected revision.
  v_with_dead integer[] := '{}';
  v_held integer[];
  -- Where those heads are.
  v_places tid[];
  v_removes boolean := false;
  v_missing boolean := false;
  v_floor bigint;
  v_moment bigint;
BEGIN
  -- Nearly always there is one session.
  IF p_alive <> '{}' THEN
    v_sessions := ARRAY(SELECT p_session UNION SELECT unnest(p_alive) ORDER BY 1);
  END IF;
  v_living := ARRAY(SELECT k.id::bigint FROM sessions k
    WHERE k.id = ANY (v_sessions)
      AND lives(k.dead, k.session_ttl, k.lease_ttl, k.deadline)
    ORDER BY k.id FOR KEY SHARE);
  IF cardinality(v_living) < cardinality(v_sessions) THEN
    v_dead := ARRAY(SELECT s FROM unnest(v_sessions) s WHERE s <> ALL (v_living));
    IF p_session = ANY (v_dead) THEN
      RETURN QUERY SELECT 0, 2::smallint, NULL::bigint, p_session, NULL::bigint, NULL::text;
      RETURN;
    END IF;
    SELECT array_agg(DISTINCT a.number) INTO v_with_dead
      FROM unnest(p_alive_of, p_alive) a (number, id) WHERE a.id = ANY (v_dead);
  END IF;

  SELECT coalesce(array_agg(h.number), '{}'), coalesce(array_agg(h.place), '{}')
    INTO v_held, v_places
    FROM generate_subscripts(p_repository, 1) n, LATERAL (
      SELECT n AS number, r.ctid AS place FROM repositories r
        WHERE r.ctid = p_at[n]::tid AND (r.repository = p_repository[n]) IS TRUE
          AND r.revision = p_expected[n] AND r.stamp = p_stamp[n] AND r.format = 1
        FOR NO KEY UPDATE SKIP LOCKED) h
    WHERE n <> ALL (v_with_dead);
  IF cardinality(v_held) < cardinality(p_repository) - cardinality(v_with_dead) THEN
    SELECT v_held || coalesce(array_agg(h.number), '{}'),
        v_places || coalesce(array_agg(h.place), '{}')
      INTO v_held, v_places
      FROM generate_subscripts(p_repository, 1) n, LATERAL (
        SELECT n AS number, r.ctid AS place FROM repositories r
          WHERE r.repository = p_repository[n]
            AND r.revision = p_expected[n] AND r.stamp = p_stamp[n] AND r.format = 1
          FOR NO KEY UPDATE SKIP LOCKED) h
      WHERE n <> ALL (v_with_dead) AND n <> ALL (v_held);
  END IF;
  IF true = ANY (p_remove) THEN
    v_removes := EXISTS (SELECT FROM unnest(v_held) h (number) WHERE p_remove[h.number]);
  END IF;

  -- The floor is locked once, in the mode that all of the batch needs.
  IF v_removes THEN
    SELECT f.value INTO v_floor FROM floor f FOR UPDATE;
  END IF;
  IF cardinality(v_held) < cardinality(p_repository) - cardinality(v_with_dead) THEN
    v_missing := EXISTS (SELECT FROM unnest(p_repository) t (repository)
      WHERE NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository));
  END IF;
  IF v_missing THEN
    IF NOT v_removes THEN
      SELECT f.value INTO v_floor FROM floor f FOR SHARE;
    END IF;
    WITH created AS (
      INSERT INTO repositories (repository, format, revision, stamp, purged, run_limit,
          last_ticket, last_token, queued, started)
        SELECT t.repository, 1, t.expected, 0, t.expected, 0, 0, 0, 0, 0
          FROM unnest(p_repository, p_expected, p_stamp, p_remove)
            WITH ORDINALITY t (repository, expected, stamp, remove, number)
          WHERE t.expected = v_floor AND t.stamp = 0 AND NOT t.remove AND t.number <> ALL (v_with_dead)
            AND NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository)
          ORDER BY t.repository
        ON CONFLICT DO NOTHING
        RETURNING repository, ctid AS place)
      SELECT v_held || coalesce(array_agg(t.number::integer), '{}'),
          v_places || coalesce(array_agg(c.place), '{}')
        INTO v_held, v_places
        FROM unnest(p_repository) WITH ORDINALITY t (repository, number)
        JOIN created c ON c.repository = t.repository;
  END IF;
  v_moment := now_millis();
  RETURN QUERY WITH held AS (
    UPDATE repositories r SET revision = p_expected[p.n] + 1, stamp = new_stamp(p_expected[p.n] + 1),
        run_limit = p_limit[p.n], limit_version = p_limit_version[p.n],
        last_ticket = p_last_ticket[p.n], last_token = p_last_token[p.n],
        queued = p_queued[p.n], started = p_started[p.n],
        policy = coalesce(at_moment(p_policy[p.n], v_moment), r.policy)
      FROM unnest(v_places, v_held) p (place, n)
      WHERE r.ctid = p.place AND NOT p_remove[p.n]
      RETURNING p.n, r.ctid AS place, r.stamp::bigint),
  changed AS MATERIALIZED (
    -- A slot that was taken before this commit goes on; see guard_updated.
    SELECT e, h.place AS head, p_repository[h.n] AS repository, p_expected[h.n] + 1 AS revision,
        p_was[e] AS was, p_run[e] AS run, p_state[e] AS state,
        p_was[e] > 0 AND p_state[e] = 1 AND p_started_at[e] IS DISTINCT FROM c_now AS goes_on,
        CASE p_queued_at[e] WHEN c_now THEN v_moment ELSE p_queued_at[e] END AS queued_at,
        CASE p_started_at[e] WHEN c_now THEN v_moment ELSE p_started_at[e] END AS started_at,
        CASE p_finished_at[e] WHEN c_now THEN v_moment ELSE p_finished_at[e] END AS finished_at
      FROM held h, LATERAL generate_series(coalesce(p_last[h.n - 1], 0) + 1, p_last[h.n]) e),
  -- The rows that they take the place of. All of one revision are read at once.
  there AS MATERIALIZED (
    SELECT d.repository, d.was, o.run, o.waits, o.place
      FROM (SELECT DISTINCT repository, was FROM changed WHERE was > 0) d CROSS JOIN LATERAL (
        SELECT q.run::text, true AS waits, q.ctid AS place FROM queue q
          WHERE q.repository = d.repository AND q.revision = d.was AND q.format = 1
        UNION ALL
        SELECT t.run, false, t.ctid FROM slots t
          WHERE t.repository = d.repository AND t.revision = d.was AND t.format = 1
        OFFSET 0) o),
  -- One for each entry that takes the place of a row; `fits` where there is that one row. To group both
  -- sides together is a join by hash.
  found AS MATERIALIZED (
    SELECT max(b.e) AS e, bool_or(b.goes_on) AS goes_on, bool_or(b.waits) AS waits,
        max(b.place) AS place, b.run, b.was, max(b.revision) AS revision,
        max(b.queued_at) AS queued_at, max(b.started_at) AS started_at,
        count(b.e) = 1 AND count(b.place) = 1 AS fits
      FROM (SELECT c.repository, c.was, c.run, c.e, c.goes_on, NULL::boolean AS waits,
            NULL::tid AS place, c.revision, c.queued_at, c.started_at
          FROM changed c WHERE c.was > 0
        UNION ALL
        SELECT t.repository, t.was, t.run, NULL, NULL, t.waits, t.place, NULL, NULL, NULL
          FROM there t) b
      GROUP BY b.run, b.was, b.repository HAVING count(b.e) > 0),
  waited AS (
    DELETE FROM queue q WHERE q.ctid = ANY (ARRAY(SELECT f.place FROM found f WHERE f.waits))
      RETURNING 1),
  left_slots AS (
    DELETE FROM slots t
      WHERE t.ctid = ANY (ARRAY(SELECT f.place FROM found f WHERE NOT f.waits AND NOT f.goes_on))
      RETURNING 1),
  kept AS (
    UPDATE slots t SET revision = f.revision, uid = p_uid[f.e], kind = p_kind[f.e],
        priority = p_priority[f.e], ticket = p_ticket[f.e], token = p_token[f.e],
        session = p_owner[f.e], orphaned = p_orphaned[f.e], adopted = p_adopted[f.e],
        queued_at = f.queued_at, started_at = f.started_at,
        terms = coalesce(at_moment(p_terms[f.e], v_moment), '')
      FROM found f
      WHERE f.goes_on AND NOT f.waits AND t.ctid = f.place AND t.revision = f.was AND t.run = f.run
      RETURNING 1),
  queued AS (
    INSERT INTO queue (ticket, revision, session, queued_at, priority, format, kind, terms,
        repository, run, uid)
      SELECT p_ticket[c.e], c.revision, p_owner[c.e], c.queued_at, p_priority[c.e], 1,
          p_kind[c.e], coalesce(at_moment(p_terms[c.e], v_moment), ''), c.repository, c.run,
          p_uid[c.e]
        FROM changed c WHERE c.state = 0),
  taken AS (
    INSERT INTO slots (ticket, token, revision, session, queued_at, started_at, head, priority,
        format, kind, orphaned, adopted, terms, repository, run, uid)
      SELECT p_ticket[c.e], p_token[c.e], c.revision, p_owner[c.e], c.queued_at, c.started_at,
          c.head, p_priority[c.e], 1, p_kind[c.e], p_orphaned[c.e], p_adopted[c.e],
          coalesce(at_moment(p_terms[c.e], v_moment), ''), c.repository, c.run, p_uid[c.e]
        FROM changed c WHERE c.state = 1
          -- Hashed once, where an EXISTS would read all that is found for each entry.
          AND NOT (c.goes_on AND c.e IN (SELECT f.e FROM found f WHERE f.goes_on AND NOT f.waits))),
  ended AS (
    INSERT INTO history (ticket, revision, token, queued_at, started_at, finished_at, priority,
        format, kind, outcome, abandoned, terms, repository, run, uid)
      SELECT p_ticket[c.e], c.revision, p_token[c.e], c.queued_at, c.started_at, c.finished_at,
          p_priority[c.e], 1, p_kind[c.e], p_outcome[c.e], p_abandoned[c.e],
          coalesce(at_moment(p_terms[c.e], v_moment), ''), c.repository, c.run, p_uid[c.e]
        FROM changed c WHERE c.state = 2),
  as_they_were AS (
    SELECT coalesce(bool_and(f.fits), true) AND count(*) = (SELECT count(*) FROM waited)
          + (SELECT count(*) FROM left_slots) + (SELECT count(*) FROM kept) AS all_of_them
      FROM found f)
    SELECT h.n, 0::smallint, v_moment, NULL::bigint, h.stamp, h.place::text FROM held h
      WHERE CASE WHEN (SELECT a.all_of_them FROM as_they_were a) THEN true ELSE refuse() END;

  IF v_removes THEN
    DELETE FROM queue q USING unnest(v_held) h (number)
      WHERE p_remove[h.number] AND q.repository = p_repository[h.number];
    DELETE FROM slots t USING unnest(v_held) h (number)
      WHERE p_remove[h.number] AND t.repository = p_repository[h.number];
    DELETE FROM history k USING unnest(v_held) h (number)
      WHERE p_remove[h.number] AND k.repository = p_repository[h.number];
    WITH gone AS (
      DELETE FROM repositories r USING unnest(v_held) h (number)
        WHERE p_remove[h.number] AND r.repository = p_repository[h.number]
        RETURNING greatest(counted(r.revision, c_floor) + 1, counted(r.last_ticket, c_floor),
          counted(r.last_token, c_floor)) AS after)
      SELECT greatest(v_floor, max(counted(gone.after, c_floor))) INTO v_floor FROM gone;
    UPDATE floor f SET value = v_floor;
  END IF;

  IF cardinality(v_held) < cardinality(p_repository) OR true = ANY (p_remove) THEN
    -- To remove a repository that does not exist counts as committed.
    RETURN QUERY SELECT t.number::integer,
        CASE
          WHEN t.number = ANY (v_held) OR t.remove AND t.expected = v_floor AND NOT v_removes
            AND NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository)
            THEN 0
          WHEN t.number = ANY (v_with_dead) THEN 2
          ELSE 1
        END::smallint,
        v_moment,
        CASE
          WHEN t.number = ANY (v_with_dead) THEN (SELECT min(a.id)
            FROM unnest(p_alive_of, p_alive) a (number, id)
            WHERE a.number = t.number AND a.id = ANY (v_dead))
          ELSE v_floor
        END,
        NULL::bigint, NULL::text
      FROM unnest(p_repository, p_expected, p_remove)
        WITH ORDINALITY t (repository, expected, remove, number)
      WHERE t.remove OR t.number <> ALL (v_held);
  END IF;
END
$$;
