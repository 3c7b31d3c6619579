-- Sessions, and whether they are alive. After a session is declared dead, no commit of it may
-- appear. So a commit locks the row of every session that it depends on FOR KEY SHARE, looks at that
-- very version of the row, and keeps the lock until its transaction ends; and a session is declared
-- dead FOR UPDATE. Commits share the lock with each other and with renewals. Advisory locks would
-- cost a little less, but any role that may connect to the database can hold those.

CREATE FUNCTION millis(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN floor(extract(epoch FROM moment) * 1000)::bigint;

-- Not now(), which is the time at which the transaction started.
CREATE FUNCTION now_millis() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- Since when sessions can be renewed, after the last time in which they could not: before a start of
-- the server, before its recovery from the crash of one of its processes (which resets its
-- statistics), in a fail-over, in a stall, at a step of its clock. A time in which no process saw the
-- server is a stall, and a clock that is set forward looks the same. What has not been noted yet
-- counts as happening now. Where the server is seen late again and again, few processes use it, and
-- nothing stalls. A start that seems to be in the future was before the clock was set back.
CREATE FUNCTION up_since() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
  SELECT CASE
      WHEN v.timeline <> substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
          OR n.now < v.seen OR n.now > v.seen + v.gap AND v.late < 3 THEN n.now
      ELSE (SELECT max(t.at)
        FROM (VALUES (v.since), (millis(pg_postmaster_start_time())),
          (millis((SELECT stats_reset FROM pg_stat_bgwriter)))) t (at)
        WHERE t.at <= n.now)
    END
  FROM server v, (SELECT now_millis()) n (now)
$$;

-- Whether a deadline has passed, and sessions could be renewed for a whole TTL. The first condition
-- is nearly always enough, so the slower up_since() is seldom called. Can be inlined, too.
CREATE FUNCTION has_passed(deadline bigint, ttl bigint) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN deadline > now_millis() THEN false ELSE up_since() + ttl <= now_millis() END;

-- Whether the TTLs of a session are some that this software writes. No function calculates with
-- others, which could fail, and a function that looks at all sessions would fail for all of them.
CREATE FUNCTION is_sound(session_ttl bigint, lease_ttl bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN session_ttl BETWEEN 1 AND 31622400000 AND lease_ttl BETWEEN 1 AND 31622400000;

-- Whether a session may commit and can be renewed. One that is not sound can do neither. Can be
-- inlined, too.
CREATE FUNCTION lives(dead boolean, session_ttl bigint, lease_ttl bigint, deadline bigint)
RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN dead OR NOT is_sound(session_ttl, lease_ttl) THEN false
  ELSE NOT has_passed(deadline, session_ttl) END;

-- Whether a session that is not dead has to be declared dead. Can be inlined, too.
CREATE FUNCTION is_due(dead boolean, session_ttl bigint, lease_ttl bigint, deadline bigint)
RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN dead OR NOT is_sound(session_ttl, lease_ttl) THEN false
  ELSE has_passed(deadline, session_ttl) END;

-- How long no process has to see the server for that to be a stall, in ms, where `p_ttl` is the
-- shortest session TTL. A shorter stall leaves a session, which is renewed every third of its TTL,
-- some time for it. Processes look at the server every second, and 2 s are the least.
CREATE FUNCTION stall_of(p_ttl bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN greatest(2000, p_ttl * 3 / 5);

-- Notes that the server was seen, and a fail-over, a stall or a step of its clock since the last
-- time. Writes only after a fourth of the time that would be a stall, or for a session that is about
-- to be opened with a shorter TTL (`p_opening`, else null). Returns whether it has written.
--
-- Whatever renews, opens or looks for sessions calls this first, so that no stall is overlooked
-- because another process was faster. One process at a time writes; the others do not wait, because
-- they find the stall by themselves (see up_since) until it is noted.
CREATE FUNCTION note_seen(p_opening bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
  c_timeline CONSTANT text := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
  v_server server;
  v_now bigint;
  v_late boolean;
BEGIN
  SELECT * INTO v_server FROM server;
  v_now := now_millis();
  IF v_server.timeline = c_timeline
      AND v_now BETWEEN v_server.seen AND v_server.seen + v_server.gap / 4
      AND (p_opening IS NULL OR stall_of(p_opening) >= v_server.gap) THEN
    RETURN false;
  END IF;
  SELECT * INTO v_server FROM server FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  v_now := now_millis();
  v_late := v_now > v_server.seen + v_server.gap;
  UPDATE server SET timeline = c_timeline, seen = v_now,
    since = CASE
      WHEN v_server.timeline <> c_timeline OR v_now < v_server.seen
        OR v_late AND v_server.late < 3 THEN v_now
      ELSE v_server.since END,
    late = CASE WHEN v_late THEN least(v_server.late + 1, 3) ELSE 0 END,
    gap = stall_of(least(p_opening,
      (SELECT min(s.session_ttl) FROM sessions s
        WHERE NOT s.dead AND is_sound(s.session_ttl, s.lease_ttl))));
  RETURN true;
END
$$;

-- The process that opens it is `p_pid` of a program on a host; what of these is not known is null.
CREATE FUNCTION open_session(p_session_ttl bigint, p_lease_ttl bigint, p_program text,
  p_version text, p_host text, p_pid bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
  v_session bigint;
  v_now bigint;
BEGIN
  PERFORM note_seen(p_session_ttl);
  v_now := now_millis();
  INSERT INTO sessions (session_ttl, lease_ttl, opened_at, pid, program, version, host,
      deadline, lease_deadline)
    VALUES (p_session_ttl, p_lease_ttl, v_now, p_pid, p_program, p_version, p_host,
      v_now + p_session_ttl, v_now + p_lease_ttl)
    RETURNING id INTO v_session;
  RETURN v_session;
END
$$;

-- Ends a session as if its session TTL had passed; its lease TTL runs on.
CREATE FUNCTION close_session(closing bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  -- Waits for commits under way.
  PERFORM FROM sessions s WHERE s.id = closing FOR UPDATE;
  UPDATE sessions s SET dead = true WHERE s.id = closing AND NOT s.dead;
  DELETE FROM sessions s WHERE s.id = closing
    AND NOT EXISTS (SELECT FROM queue q WHERE q.session = closing)
    AND NOT EXISTS (SELECT FROM slots t WHERE t.session = closing);
END
$$;

-- Renews a session. False, for good, when it is too late. It must not wait for commits under way:
-- if one has locked the row of a session that is due, a sweep declares the session dead.
CREATE FUNCTION renew_session(renewing bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  -- Most renewals spare the call.
  IF (SELECT now_millis() NOT BETWEEN v.seen AND v.seen + v.gap / 4 FROM server v) THEN
    PERFORM note_seen(NULL);
  END IF;
  UPDATE sessions s
    SET deadline = now_millis() + s.session_ttl, lease_deadline = now_millis() + s.lease_ttl
    WHERE s.id = renewing AND lives(s.dead, s.session_ttl, s.lease_ttl, s.deadline);
  IF FOUND THEN
    RETURN true;
  END IF;
  -- An earlier renewal, whose commit is under way, is waited for: it moves the deadline.
  PERFORM FROM sessions s WHERE s.id = renewing FOR NO KEY UPDATE;
  WITH late AS (
    SELECT s.id FROM sessions s
      WHERE s.id = renewing AND is_due(s.dead, s.session_ttl, s.lease_ttl, s.deadline)
      FOR UPDATE SKIP LOCKED)
  UPDATE sessions s SET dead = true FROM late l WHERE s.id = l.id;
  IF FOUND THEN
    RETURN false;
  END IF;
  -- The earlier renewal has moved the deadline.
  UPDATE sessions s
    SET deadline = now_millis() + s.session_ttl, lease_deadline = now_millis() + s.lease_ttl
    WHERE s.id = renewing AND lives(s.dead, s.session_ttl, s.lease_ttl, s.deadline);
  RETURN FOUND;
END
$$;

-- Declares sessions dead whose session TTL has passed, forgets dead ones that have no queued or
-- started entries (a dead session gets no new ones), and returns the others that are dead, with
-- `trouble` 0: whether the lease TTL of each has passed too, and whether this call declared it dead.
-- Then those that it could not see to: with `trouble` 1 the sessions that are due and that a commit
-- under way has locked, which are left for the next sweep; with 2 those that are not sound, which are
-- left alone. Writes nothing when there is nothing new but, now and then, that the server was seen.
CREATE FUNCTION sweep_sessions()
RETURNS TABLE (session bigint, lease_passed boolean, fresh boolean, trouble smallint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
  v_noted boolean := note_seen(NULL);
  v_set_back boolean;
  v_due bigint[];
  v_dying bigint[];
  v_forgot boolean;
BEGIN
  -- A deadline that is further away than the TTL was set before the clock was set back.
  UPDATE sessions s SET deadline = least(s.deadline, n.now + s.session_ttl),
      lease_deadline = least(s.lease_deadline, n.now + s.lease_ttl)
    FROM (SELECT now_millis()) n (now)
    WHERE CASE WHEN is_sound(s.session_ttl, s.lease_ttl)
      THEN s.deadline > n.now + s.session_ttl OR s.lease_deadline > n.now + s.lease_ttl
      ELSE false END;
  v_set_back := FOUND;
  SELECT array_agg(s.id::bigint) INTO v_due FROM sessions s
    WHERE is_due(s.dead, s.session_ttl, s.lease_ttl, s.deadline);
  IF v_due IS NOT NULL THEN
    WITH locked AS (
      SELECT s.id FROM sessions s
        WHERE s.id = ANY (v_due) AND is_due(s.dead, s.session_ttl, s.lease_ttl, s.deadline)
        FOR UPDATE SKIP LOCKED),
    died AS (UPDATE sessions s SET dead = true FROM locked l WHERE s.id = l.id RETURNING s.id)
    SELECT array_agg(d.id::bigint) INTO v_dying FROM died d;
  END IF;
  -- Waits for no row: a commit that waits for one of those above may have locked it.
  DELETE FROM sessions s USING (
    SELECT k.id FROM sessions k
      WHERE k.dead
        AND NOT EXISTS (SELECT FROM queue q WHERE q.session = k.id)
        AND NOT EXISTS (SELECT FROM slots t WHERE t.session = k.id)
      FOR UPDATE SKIP LOCKED) f
    WHERE s.id = f.id;
  v_forgot := FOUND;
  IF v_noted AND NOT v_set_back AND v_dying IS NULL AND NOT v_forgot THEN
    -- When the server was seen may be lost in a crash. It need not wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  RETURN QUERY SELECT s.id::bigint,
      CASE WHEN is_sound(s.session_ttl, s.lease_ttl)
        THEN has_passed(s.lease_deadline, s.lease_ttl) ELSE false END,
      s.id = ANY (coalesce(v_dying, '{}')), 0::smallint
    FROM sessions s WHERE s.dead
    UNION ALL SELECT s.id::bigint, false, false, 1::smallint FROM sessions s
      WHERE s.id = ANY (v_due) AND is_due(s.dead, s.session_ttl, s.lease_ttl, s.deadline)
    UNION ALL SELECT s.id::bigint, false, false, 2::smallint FROM sessions s
      WHERE NOT is_sound(s.session_ttl, s.lease_ttl);
END
$$;
