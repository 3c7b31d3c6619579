-- Reads of one repository, and commits to many in one transaction and one round trip, each with its
-- own condition and its own outcome. Both are functions, because a connection then keeps their
-- plans: to make the plans takes longer than to carry them out.
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

-- Returns first the head with the floor, and whether what follows is a part; then the entries that
-- changed after the revision `p_known` with the stamp `p_stamp`. All entries, if that is null, or is
-- not known to belong to the history of what is there, or records of runs that changed later may
-- have been deleted. Of finished runs the `p_finished` that changed last, and one more if there are
-- more: however many lie in the table, a read is bounded. STABLE makes all of it as of the moment
-- when the calling statement began.
CREATE FUNCTION load_repository(
  p_repository text, p_known bigint, p_stamp bigint, p_at text, p_finished bigint)
RETURNS TABLE (
  floor bigint, part boolean, at text,
  format smallint, revision bigint, stamp bigint, run_limit bigint, limit_version bigint,
  last_ticket bigint, last_token bigint, queued bigint, started bigint,
  run_format smallint, run text, uid text, kind smallint, priority integer, ticket bigint,
  state smallint, token bigint, session bigint, orphaned boolean, outcome smallint,
  abandoned boolean, queued_at bigint, started_at bigint, finished_at bigint, changed bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  v_after bigint := -1;
  v_purged bigint;
BEGIN
  SELECT f.value, r.ctid, r.purged, r.format, r.revision, r.stamp, r.run_limit, r.limit_version,
      r.last_ticket, r.last_token, r.queued, r.started
    INTO floor, at, v_purged, format, revision, stamp, run_limit, limit_version, last_ticket,
      last_token, queued, started
    FROM floor f LEFT JOIN LATERAL (
      SELECT k.ctid, k.* FROM repositories k
        WHERE k.ctid = p_at::tid AND (k.repository = p_repository) IS TRUE
      UNION ALL
      SELECT k.ctid, k.* FROM repositories k WHERE k.repository = p_repository
      LIMIT 1) r ON true;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  part := CASE WHEN format IS NULL THEN NULL ELSE coalesce(p_known >= v_purged AND CASE p_known
    WHEN revision THEN p_stamp = stamp
    ELSE p_known < revision AND p_stamp >> 31 = lineage(p_known) END, false) END;
  RETURN NEXT;
  IF part THEN
    v_after := p_known;
  END IF;
  -- One search for each range of states. Within a single state the index goes straight to the
  -- entries after the known revision, and for finished runs backwards from the last change. The first
  -- and the last range hold no valid state; entries in them are read to be reported as corrupt.
  -- OFFSET keeps the planner from one search for all ranges, which would read a whole repository.
  RETURN QUERY SELECT NULL::bigint, NULL::boolean, NULL::text, NULL::smallint, NULL::bigint,
      NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
      NULL::bigint,
      -- The types have to be those of the result, not domains.
      e.format::smallint, e.run::text, e.uid::text, e.kind::smallint, e.priority,
      e.ticket::bigint, e.state::smallint, e.token::bigint, e.session::bigint, e.orphaned,
      e.outcome::smallint, e.abandoned, e.queued_at::bigint, e.started_at::bigint,
      e.finished_at::bigint, e.revision::bigint
    FROM (
      SELECT e.* FROM (VALUES (-32768, -1), (0, 0), (1, 1), (3, 32767)) s (lowest, highest),
        LATERAL (SELECT * FROM entries k WHERE k.repository = p_repository
          AND k.state BETWEEN s.lowest::smallint AND s.highest::smallint
          AND k.revision > v_after OFFSET 0) e
      UNION ALL (
        SELECT * FROM entries k WHERE k.repository = p_repository AND k.state = 2
          AND k.revision > v_after
          ORDER BY k.revision DESC LIMIT p_finished + 1)) e;
END
$$;

-- A counter, or 0 in place of one that is above `most` or none.
CREATE FUNCTION counted(number bigint, most bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN number BETWEEN 0 AND most THEN number ELSE 0 END;

-- Locks first and reads later: every statement of this function sees what was committed before that
-- statement began, and a row that it locks as it is then. Sessions and heads are locked in the order
-- of their keys, sessions first, and a head that another transaction has locked is a conflict and not
-- waited for. So there is no deadlock.
--
-- Returns an outcome for each repository: 0 committed, at `moment`, with the stamp of the new head and
-- the place `at` which it is, or with the new floor in `about` if it was removed; 1 conflict; 2 the
-- session `about` is dead. A row with the number 0 means that the committing session is dead, and
-- nothing was committed.
CREATE FUNCTION commit_batch(
  p_session bigint,
  -- One for each repository. `p_at` is where its head was last seen, or null.
  p_repository text[], p_expected bigint[], p_stamp bigint[], p_at text[], p_remove boolean[],
  p_limit bigint[],
  p_limit_version bigint[], p_last_ticket bigint[], p_last_token bigint[], p_queued bigint[],
  p_started bigint[],
  -- One for each session that has to live, with the number of its repository.
  p_alive_of integer[], p_alive bigint[],
  -- One for each entry, with the number of its repository. The smallest time stands for that of the
  -- commit.
  p_of integer[], p_run text[], p_uid text[], p_kind smallint[], p_priority integer[],
  p_ticket bigint[], p_state smallint[], p_token bigint[], p_owner bigint[],
  p_orphaned boolean[], p_outcome smallint[], p_abandoned boolean[], p_adopted boolean[],
  p_queued_at bigint[], p_started_at bigint[], p_finished_at bigint[]
) RETURNS TABLE (number integer, outcome smallint, moment bigint, about bigint, stamp bigint, at text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  c_now CONSTANT bigint := -9223372036854775808;
  -- 2^61. No removal raises the floor beyond this, so that all repositories can count on from there.
  c_floor CONSTANT bigint := 2305843009213693952;
  v_sessions bigint[] := ARRAY[p_session];
  v_living bigint[];
  v_dead bigint[];
  -- A commit to one repository, of which the place is known, is tried at once. If it fails, the loop
  -- goes round again and finds out why, as for a commit to several.
  v_alone boolean := cardinality(p_repository) = 1 AND NOT p_remove[1] AND p_at[1] IS NOT NULL;
  -- The numbers of the repositories of which a session is dead, and of those whose heads are locked
  -- here and at the expected revision.
  v_with_dead integer[] := '{}';
  v_held integer[] := '{1}';
  -- Where those heads are.
  v_places tid[] := ARRAY[p_at[1]::tid];
  -- Whether v_held holds all of them. Then no row is searched for in it, which would copy the array
  -- for each row.
  v_all boolean := false;
  -- The stamps of the new heads.
  v_stamps bigint[];
  -- The places of the new heads, in the order of v_held without those that are removed.
  v_at text;
  v_kept integer[];
  v_removes boolean := false;
  v_missing boolean := false;
  v_floor bigint;
  v_moment bigint;
  v_written bigint;
BEGIN
  -- Nearly always there is one session.
  IF p_alive <> '{}' THEN
    v_sessions := ARRAY(SELECT p_session UNION SELECT unnest(p_alive) ORDER BY 1);
  END IF;
  IF cardinality(p_expected) = 1 THEN
    v_stamps := ARRAY[new_stamp(p_expected[1] + 1)];
  ELSE
    v_stamps := ARRAY(SELECT new_stamp(e + 1) FROM unnest(p_expected) e);
  END IF;
  LOOP
    IF NOT v_alone THEN
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
          INTO v_held, v_places FROM (
          SELECT n AS number, r.ctid AS place FROM generate_subscripts(p_repository, 1) n
            JOIN repositories r ON r.repository = p_repository[n]
            WHERE r.revision = p_expected[n] AND r.stamp = p_stamp[n] AND r.format = 1
              AND n <> ALL (v_with_dead) AND n <> ALL (v_held)
            ORDER BY r.repository
            FOR NO KEY UPDATE OF r SKIP LOCKED) h;
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
      v_all := cardinality(v_held) = cardinality(p_repository);
    END IF;

    v_moment := now_millis();
    WITH living AS (
      SELECT FROM sessions k
        WHERE v_alone AND k.id = ANY (v_sessions)
          AND lives(k.dead, k.session_ttl, k.lease_ttl, k.deadline)
        ORDER BY k.id FOR KEY SHARE),
    mine AS (
      SELECT FROM repositories r
        WHERE v_alone AND r.ctid = v_places[1] AND (r.repository = p_repository[1]) IS TRUE
          AND r.revision = p_expected[1] AND r.stamp = p_stamp[1] AND r.format = 1
          AND (SELECT count(*) FROM living) = cardinality(v_sessions)
        FOR NO KEY UPDATE SKIP LOCKED),
    held AS (
      UPDATE repositories r SET revision = p_expected[p.n] + 1, stamp = v_stamps[p.n],
          run_limit = p_limit[p.n], limit_version = p_limit_version[p.n],
          last_ticket = p_last_ticket[p.n], last_token = p_last_token[p.n],
          queued = p_queued[p.n], started = p_started[p.n]
        FROM unnest(v_places, v_held) p (place, n)
        WHERE r.ctid = p.place AND NOT p_remove[p.n]
          AND (NOT v_alone OR EXISTS (SELECT FROM mine))
        RETURNING p.n, r.ctid AS place),
    written AS (
      INSERT INTO entries AS k (repository, run, format, uid, kind, priority, ticket, state,
          token, session, orphaned, outcome, abandoned, adopted, queued_at, started_at,
          finished_at, revision)
        SELECT p_repository[p_of[e]], p_run[e], 1, p_uid[e], p_kind[e], p_priority[e],
            p_ticket[e], p_state[e], p_token[e], p_owner[e], p_orphaned[e], p_outcome[e],
            p_abandoned[e], p_adopted[e],
            CASE p_queued_at[e] WHEN c_now THEN v_moment ELSE p_queued_at[e] END,
            CASE p_started_at[e] WHEN c_now THEN v_moment ELSE p_started_at[e] END,
            CASE p_finished_at[e] WHEN c_now THEN v_moment ELSE p_finished_at[e] END,
            p_expected[p_of[e]] + 1
          FROM generate_subscripts(p_of, 1) e
          WHERE CASE WHEN v_alone THEN EXISTS (SELECT FROM held)
            ELSE v_all OR p_of[e] = ANY (v_held) END
        ON CONFLICT (run, repository) DO UPDATE SET format = excluded.format,
          uid = excluded.uid, kind = excluded.kind, priority = excluded.priority,
          ticket = excluded.ticket, state = excluded.state, token = excluded.token,
          session = excluded.session, orphaned = excluded.orphaned,
          outcome = excluded.outcome, abandoned = excluded.abandoned,
          adopted = excluded.adopted, queued_at = excluded.queued_at,
          started_at = excluded.started_at, finished_at = excluded.finished_at,
          revision = excluded.revision
          WHERE k.format = 1
        RETURNING 1)
      -- The guards find the heads with the setting.
      SELECT (SELECT count(*) FROM written),
          set_config('pac.heads', array_agg(h.place)::text, true)
        INTO v_written, v_at
        FROM held h;
    v_all := v_all OR v_alone AND v_at <> '';
    EXIT WHEN v_all OR NOT v_alone;
    v_alone := false;
  END LOOP;
  IF v_written < cardinality(p_of) THEN
    IF v_all OR v_written < (SELECT count(*) FROM unnest(p_of) o WHERE o = ANY (v_held)) THEN
      RAISE EXCEPTION 'a record of a newer version was to be overwritten'
        USING ERRCODE = 'PAC02';
    END IF;
  END IF;

  IF v_removes THEN
    DELETE FROM entries e USING unnest(v_held) h (number)
      WHERE p_remove[h.number] AND e.repository = p_repository[h.number];
    WITH gone AS (
      DELETE FROM repositories r USING unnest(v_held) h (number)
        WHERE p_remove[h.number] AND r.repository = p_repository[h.number]
        RETURNING greatest(counted(r.revision, c_floor) + 1, counted(r.last_ticket, c_floor),
          counted(r.last_token, c_floor)) AS after)
      SELECT greatest(v_floor, max(counted(gone.after, c_floor))) INTO v_floor FROM gone;
    UPDATE floor f SET value = v_floor;
  END IF;

  -- A guard may have moved a head.
  v_at := current_setting('pac.heads');
  IF v_all AND cardinality(p_repository) = 1 AND NOT v_removes THEN
    number := 1;
    outcome := 0;
    moment := v_moment;
    about := v_floor;
    stamp := v_stamps[1];
    -- It is written {"(page,row)"}.
    at := trim(v_at, '{"}');
    RETURN NEXT;
    RETURN;
  END IF;
  v_kept := v_held;
  IF v_removes THEN
    v_kept := ARRAY(SELECT h FROM unnest(v_held) h WHERE NOT p_remove[h]);
  END IF;
  v_places := nullif(v_at, '')::tid[];
  IF v_all THEN
    FOR v_number IN 1 .. cardinality(p_repository) LOOP
      number := v_number;
      outcome := 0;
      moment := v_moment;
      about := v_floor;
      stamp := v_stamps[number];
      at := v_places[array_position(v_kept, number)];
      RETURN NEXT;
    END LOOP;
    RETURN;
  END IF;
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
      v_stamps[t.number],
      v_places[array_position(v_kept, t.number::integer)]::text
    FROM unnest(p_repository, p_expected, p_remove)
      WITH ORDINALITY t (repository, expected, remove, number);
END
$$;
