-- A role for PostgreSQL that can neither create nor drop anything. The simplest is one role that
-- owns the schema: it creates the schema by itself, and nothing of this is needed.
--
-- Run this with psql as the owner of the schema, once the schema is there (`pac schema apply`), and
-- again after each version that changes it: what is granted already stays. The owner needs no other
-- privileges if the role exists; else one who may create roles does that first:
--
--   CREATE ROLE pac_runtime LOGIN PASSWORD 'a password of your own';
--
-- Replace `pac` where the schema has another name. `pac doctor` names what a role lacks.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pac_runtime') THEN
    RAISE EXCEPTION 'there is no role pac_runtime'
      USING HINT = 'Create it first, as one who may: CREATE ROLE pac_runtime LOGIN PASSWORD ''...''';
  END IF;
END
$$;

GRANT USAGE ON SCHEMA pac TO pac_runtime;
GRANT SELECT ON pac.meta, pac.secrets TO pac_runtime;
GRANT SELECT, INSERT ON pac.migrated TO pac_runtime;
GRANT SELECT, UPDATE ON pac.floor, pac.server TO pac_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON pac.repositories, pac.entries, pac.sessions TO pac_runtime;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pac TO pac_runtime;
