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

-- Returns first the head with the floor, then the entries that changed after the revision
-- `p_known`; or all entries, if that is null or records of runs that changed later may have been
-- deleted. STABLE makes all of it as of the moment when the calling statement began.
CREATE FUNCTION load_repository(p_repository text, p_known bigint) RETURNS TABLE (
  floor bigint, purged bigint,
  format smallint, revision bigint, run_limit bigint, limit_version bigint, last_ticket bigint,
  last_token bigint, queued bigint, started bigint,
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
BEGIN
  SELECT f.value, r.purged, r.format, r.revision, r.run_limit, r.limit_version, r.last_ticket,
      r.last_token, r.queued, r.started
    INTO floor, purged, format, revision, run_limit, limit_version, last_ticket, last_token,
      queued, started
    FROM floor f LEFT JOIN repositories r ON r.repository = p_repository;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  RETURN NEXT;
  IF p_known >= purged THEN
    v_after := p_known;
  END IF;
  -- One search for each range of states. Within a single state the index goes straight to the
  -- entries after the known revision. The first and the last range hold no valid state; entries in
  -- them are read to be reported as corrupt. OFFSET keeps the planner from one search for all
  -- ranges, which would read a whole repository.
  RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::smallint, NULL::bigint, NULL::bigint,
      NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
      e.format, e.run, e.uid, e.kind, e.priority, e.ticket, e.state, e.token, e.session,
      e.orphaned, e.outcome, e.abandoned, e.queued_at, e.started_at, e.finished_at, e.revision
    FROM (VALUES (-32768, -1), (0, 0), (1, 1), (2, 2), (3, 32767)) s (lowest, highest),
      LATERAL (SELECT * FROM entries k WHERE k.repository = p_repository
        AND k.state BETWEEN s.lowest::smallint AND s.highest::smallint
        AND k.revision > v_after OFFSET 0) e;
END
$$;

-- Locks first and reads later: every statement of this function sees what was committed before that
-- statement began. Sessions and heads are locked in the order of their keys, and a head that
-- another transaction has locked is a conflict and not waited for. So there is no deadlock.
--
-- Returns an outcome for each repository: 0 committed, at `moment`, and with the new floor in
-- `about` if it was removed; 1 conflict; 2 the session `about` is dead. A row with the number 0
-- means that the committing session is dead, and nothing was committed.
CREATE FUNCTION commit_batch(
  p_session bigint,
  -- One for each repository.
  p_repository text[], p_expected bigint[], p_remove boolean[], p_limit bigint[],
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
) RETURNS TABLE (number integer, outcome smallint, moment bigint, about bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  c_now CONSTANT bigint := -9223372036854775808;
  c_locks CONSTANT integer := lock_space();
  v_sessions bigint[] := ARRAY[p_session];
  v_session bigint;
  v_locked text;
  v_dead bigint[];
  -- A commit to one repository is tried at once. If it fails, the loop goes round again and finds
  -- out why, as for a commit to several.
  v_alone boolean := cardinality(p_repository) = 1 AND NOT p_remove[1];
  -- The numbers of the repositories of which a session is dead, and of those whose heads are locked
  -- here and at the expected revision.
  v_with_dead integer[] := '{}';
  v_held integer[];
  -- Whether v_held holds all of them. Then no row is searched for in it, which would copy the array
  -- for each row.
  v_all boolean := false;
  v_heads bigint;
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
  -- An assignment is no query, which would cost more. The next query sees what was committed before
  -- these locks were granted.
  FOREACH v_session IN ARRAY v_sessions LOOP
    v_locked := pg_advisory_xact_lock_shared(c_locks, lock_number(v_session))::text;
  END LOOP;
  LOOP
    IF NOT v_alone THEN
      SELECT array_agg(s.id) INTO v_dead FROM unnest(v_sessions) s (id)
        WHERE NOT EXISTS (SELECT FROM sessions k
          WHERE k.id = s.id AND NOT k.dead AND NOT has_passed(k.deadline, k.session_ttl));
      IF v_dead IS NOT NULL THEN
        IF p_session = ANY (v_dead) THEN
          RETURN QUERY SELECT 0, 2::smallint, NULL::bigint, p_session;
          RETURN;
        END IF;
        SELECT array_agg(DISTINCT a.number) INTO v_with_dead
          FROM unnest(p_alive_of, p_alive) a (number, id) WHERE a.id = ANY (v_dead);
      END IF;

      SELECT coalesce(array_agg(h.number), '{}') INTO v_held FROM (
        SELECT n AS number FROM generate_subscripts(p_repository, 1) n
          JOIN repositories r ON r.repository = p_repository[n]
          WHERE r.revision = p_expected[n] AND r.format = 1 AND n <> ALL (v_with_dead)
          ORDER BY r.repository
          FOR NO KEY UPDATE OF r SKIP LOCKED) h;
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
          INSERT INTO repositories (repository, format, revision, purged, run_limit, last_ticket,
              last_token, queued, started)
            SELECT t.repository, 1, t.expected, t.expected, 0, 0, 0, 0, 0
              FROM unnest(p_repository, p_expected, p_remove)
                WITH ORDINALITY t (repository, expected, remove, number)
              WHERE t.expected = v_floor AND NOT t.remove AND t.number <> ALL (v_with_dead)
                AND NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository)
              ORDER BY t.repository
            ON CONFLICT DO NOTHING
            RETURNING repository)
          SELECT v_held || coalesce(array_agg(t.number::integer), '{}') INTO v_held
            FROM unnest(p_repository) WITH ORDINALITY t (repository, number)
            JOIN created c ON c.repository = t.repository;
      END IF;
      v_all := cardinality(v_held) = cardinality(p_repository);
    END IF;

    v_moment := now_millis();
    WITH mine AS (
      SELECT r.repository FROM repositories r
        WHERE v_alone AND r.repository = p_repository[1] AND r.revision = p_expected[1]
          AND r.format = 1 AND NOT EXISTS (SELECT FROM unnest(v_sessions) s (id)
            WHERE NOT EXISTS (SELECT FROM sessions k
              WHERE k.id = s.id AND NOT k.dead AND NOT has_passed(k.deadline, k.session_ttl)))
        FOR NO KEY UPDATE SKIP LOCKED),
    held AS (
      UPDATE repositories r SET revision = p_expected[n] + 1, run_limit = p_limit[n],
          limit_version = p_limit_version[n], last_ticket = p_last_ticket[n],
          last_token = p_last_token[n], queued = p_queued[n], started = p_started[n]
        FROM generate_subscripts(p_repository, 1) n
        WHERE r.repository = p_repository[n] AND NOT p_remove[n] AND CASE
          WHEN v_alone THEN EXISTS (SELECT FROM mine)
          ELSE v_all OR n = ANY (v_held) END
        RETURNING 1),
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
      SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM written)
        INTO v_heads, v_written;
    v_all := v_all OR v_alone AND v_heads = 1;
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
        RETURNING greatest(r.revision + 1, r.last_ticket, r.last_token) AS after)
      SELECT greatest(v_floor, max(gone.after)) INTO v_floor FROM gone;
    UPDATE floor f SET value = v_floor;
  END IF;

  IF v_all THEN
    FOR v_number IN 1 .. cardinality(p_repository) LOOP
      number := v_number;
      outcome := 0;
      moment := v_moment;
      about := v_floor;
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
      END
    FROM unnest(p_repository, p_expected, p_remove)
      WITH ORDINALITY t (repository, expected, remove, number);
END
$$;
