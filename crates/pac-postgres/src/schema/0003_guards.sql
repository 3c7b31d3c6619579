-- The limit is enforced here a second time: no writer, however broken, can start a run beyond it. What
-- counts is slots: a run takes as many as its weight says. Only runs that the head's latest commit has adopted may be beyond it.
--
-- The head is locked first, by the commit that has written it or else by the guard, and the slots are
-- counted in a later statement, which sees what was committed before that. That is so at READ
-- COMMITTED alone, so the guard refuses all else.

-- How many slots a run with these terms takes, which are not ''. Not to be inlined, like the rule of the
-- domain: most counts call it for no row.
CREATE FUNCTION weight_of(terms text) RETURNS integer
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
  RETURN coalesce((terms::jsonb ->> 'weight')::integer, 1);
END
$$;

-- Whether `slots_from` has to be set anew, which costs a write. Can be inlined.
CREATE FUNCTION is_far_behind(slots_from bigint, earliest bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN earliest > slots_from + 100;

-- Counts the slots of a repository, for rows that take some at revisions from `p_lowest` to `p_highest`.
-- The rows say where the commit has put the head. Where this transaction has written the head it holds
-- its lock, so the slots are counted at once, and the head is not searched for by key: while a
-- transaction elsewhere in the database keeps an old snapshot, such a search goes through all old
-- versions of it. For the same reason the count begins at the column `slots_from`.
CREATE FUNCTION guard_limit(p_repository text, p_lowest bigint, p_highest bigint, p_head tid)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_place tid := p_head;
  v_own xid := pg_current_xact_id()::xid;
  v_limit bigint;
  v_revision bigint;
  v_from bigint;
  v_held bigint;
  v_earliest bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'runs are started at READ COMMITTED only'
      USING ERRCODE = 'PAC03';
  END IF;
  LOOP
    -- IS TRUE keeps the planner from a search by key.
    SELECT r.run_limit, r.revision, r.slots_from, t.held, t.earliest
      INTO v_limit, v_revision, v_from, v_held, v_earliest
      FROM repositories r, LATERAL (SELECT min(s.revision) AS earliest,
          coalesce(sum(CASE s.terms WHEN '' THEN 1 ELSE weight_of(s.terms) END)
            FILTER (WHERE NOT (s.adopted AND s.revision = r.revision)), 0) AS held
        FROM slots s WHERE s.repository = r.repository AND s.revision >= r.slots_from) t
      WHERE r.ctid = v_place AND (r.repository = p_repository) IS TRUE
        AND (v_own IS NULL OR r.xmin = v_own);
    EXIT WHEN FOUND;
    IF v_own IS NULL THEN
      RAISE EXCEPTION 'a run was to be started in a repository that does not exist'
        USING ERRCODE = 'PAC01';
    END IF;
    -- Not the commit of a process that writes the head too: it is locked here.
    SELECT r.ctid INTO v_place FROM repositories r WHERE r.repository = p_repository
      FOR NO KEY UPDATE;
    v_own := NULL;
  END LOOP;
  IF p_lowest < v_from OR p_highest > v_revision THEN
    RAISE EXCEPTION 'a run was to be started in % at a revision of the past or the future',
      p_repository USING ERRCODE = 'PAC01';
  END IF;
  IF v_limit > 0 AND v_held > v_limit THEN
    RAISE EXCEPTION 'more slots were to be taken in % than its limit admits', p_repository
      USING ERRCODE = 'PAC01';
  END IF;
  -- Whoever commits next finds that the head has moved.
  IF is_far_behind(v_from, v_earliest) THEN
    UPDATE repositories r SET slots_from = v_earliest WHERE r.ctid = v_place;
  END IF;
END
$$;

-- Once for each repository, however many of its slots a statement takes. One query looks at all of
-- them, and finds nothing to do where this transaction has written the head, it is where the rows say,
-- and they are within the limit: a call for each would cost as much as all else in a commit.
CREATE FUNCTION guard_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM guard_limit(t.repository, t.lowest, t.highest, t.head)
    FROM (SELECT n.repository, min(n.revision) AS lowest, max(n.revision) AS highest,
        (array_agg(n.head))[1] AS head
      FROM taken n WHERE NOT n.adopted GROUP BY n.repository) t
    WHERE current_setting('transaction_isolation') <> 'read committed'
      OR NOT EXISTS (SELECT FROM repositories r, LATERAL (
          SELECT min(s.revision) AS earliest,
              coalesce(sum(CASE s.terms WHEN '' THEN 1 ELSE weight_of(s.terms) END)
                FILTER (WHERE NOT (s.adopted AND s.revision = r.revision)), 0) AS held
            FROM slots s WHERE s.repository = r.repository AND s.revision >= r.slots_from
            OFFSET 0) c
        WHERE r.ctid = t.head AND (r.repository = t.repository) IS TRUE
          AND r.xmin = pg_current_xact_id()::xid
          AND t.lowest >= r.slots_from AND t.highest <= r.revision
          AND (r.run_limit = 0 OR c.held <= r.run_limit)
          AND NOT is_far_behind(r.slots_from, c.earliest));
  RETURN NULL;
END
$$;

CREATE TRIGGER guard_inserted AFTER INSERT ON slots
  REFERENCING NEW TABLE AS taken
  FOR EACH STATEMENT EXECUTE FUNCTION guard_inserted();

CREATE FUNCTION guard_updated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM guard_limit(new.repository, new.revision, new.revision, new.head);
  RETURN NULL;
END
$$;

-- A slot that goes on with another token, session or revision is the same one, unless it takes more.
CREATE TRIGGER guard_updated AFTER UPDATE ON slots
  FOR EACH ROW WHEN (NOT new.adopted AND (new.repository <> old.repository OR new.run <> old.run
    OR new.revision < old.revision
    OR CASE new.terms WHEN '' THEN false WHEN old.terms THEN false
      ELSE weight_of(new.terms) > CASE old.terms WHEN '' THEN 1 ELSE weight_of(old.terms) END END))
  EXECUTE FUNCTION guard_updated();
