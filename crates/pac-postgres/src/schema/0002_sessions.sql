-- Who is alive. One rule keeps a dead session from having the last word: a commit holds a
-- shared lock on every session that it depends on while it asks whether they live, until it
-- is done; a session is declared dead under the exclusive lock. The locks are advisory ones of
-- the transaction: rows of sessions would be written with every commit to be locked.

CREATE FUNCTION millis(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN floor(extract(epoch FROM moment) * 1000)::bigint;

-- Not now(): that is when the transaction started.
CREATE FUNCTION now_millis() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- The two halves of the lock of a session: this schema, and its number. With names that are
-- looked up here and now and no settings of their own, they become part of what calls them.
CREATE FUNCTION lock_space() RETURNS integer
LANGUAGE sql STABLE
RETURN ('sessions'::regclass::oid::bigint - 2147483648)::integer;

CREATE FUNCTION lock_number(session bigint) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN (session & 2147483647)::integer;

-- Since when nobody was kept from renewing: the start of the server, its last recovery from
-- the crash of one of its processes (which resets its statistics), or the last fail-over.
-- Before the latter has been noted it counts as happening now.
CREATE FUNCTION up_since() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
  SELECT greatest(
    millis(pg_postmaster_start_time()),
    millis((SELECT stats_reset FROM pg_stat_bgwriter)),
    CASE timeline WHEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) THEN since
      ELSE now_millis() END)
  FROM server
$$;

-- Nearly always the first answer will do. Part of what calls it, too.
CREATE FUNCTION has_passed(deadline bigint, ttl bigint) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN deadline > now_millis() THEN false ELSE up_since() + ttl <= now_millis() END;

-- Ends a session as if its session TTL had passed; its lease TTL runs on.
CREATE FUNCTION close_session(closing bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(lock_space(), lock_number(closing));
  UPDATE sessions s SET dead = true WHERE s.id = closing AND NOT s.dead;
  DELETE FROM sessions s WHERE s.id = closing
    AND NOT EXISTS (SELECT FROM entries e WHERE e.session = closing);
END
$$;

-- Renews a session. False, for good, when it is too late. Whoever holds the row must not wait for
-- the lock: a sweep takes them the other way round, and will see to it where this does not.
CREATE FUNCTION renew_session(renewing bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  UPDATE sessions s
    SET deadline = now_millis() + s.session_ttl, lease_deadline = now_millis() + s.lease_ttl
    WHERE s.id = renewing AND NOT s.dead AND NOT has_passed(s.deadline, s.session_ttl);
  IF FOUND THEN
    RETURN true;
  END IF;
  IF pg_try_advisory_xact_lock(lock_space(), lock_number(renewing)) THEN
    UPDATE sessions s SET dead = true WHERE s.id = renewing AND NOT s.dead;
  END IF;
  RETURN false;
END
$$;

-- Notes a fail-over, declares dead whose time has passed, forgets who is dead and has left
-- nothing behind, and says who is dead: whether its lease TTL has passed too, and whether its
-- death is news. Writes nothing when there is nothing new.
CREATE FUNCTION sweep_sessions() RETURNS TABLE (session bigint, lease_passed boolean, fresh boolean)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
  v_dying bigint[];
BEGIN
  UPDATE server v SET timeline = t.now, since = now_millis()
    FROM (SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)) t (now)
    WHERE v.timeline <> t.now;
  SELECT array_agg(s.id) INTO v_dying FROM sessions s
    WHERE NOT s.dead AND has_passed(s.deadline, s.session_ttl);
  IF v_dying IS NOT NULL THEN
    -- Whoever has a commit under way is left for the next time.
    SELECT array_agg(d.id) INTO v_dying FROM unnest(v_dying) d (id)
      WHERE pg_try_advisory_xact_lock(lock_space(), lock_number(d.id));
    WITH died AS (
      UPDATE sessions s SET dead = true
        WHERE s.id = ANY (v_dying) AND NOT s.dead AND has_passed(s.deadline, s.session_ttl)
        RETURNING s.id)
      SELECT array_agg(died.id) INTO v_dying FROM died;
  END IF;
  DELETE FROM sessions s
    WHERE s.dead AND has_passed(s.lease_deadline, s.lease_ttl)
      AND NOT EXISTS (SELECT FROM entries e WHERE e.session = s.id);
  RETURN QUERY SELECT s.id, has_passed(s.lease_deadline, s.lease_ttl),
      s.id = ANY (coalesce(v_dying, '{}'))
    FROM sessions s WHERE s.dead;
END
$$;
