-- Roles for PostgreSQL. The simplest is one role that owns the database: it brings the schema up
-- to date by itself, and nothing of this is needed. This is for a role at run time that can
-- neither create nor drop anything: run it as the owner, after the owner has connected once with
-- this version (which creates the schema), and again after each version that changes the schema.
--
-- Replace `pac` where the schema has another name.

CREATE ROLE pac_runtime LOGIN PASSWORD 'a password of your own';

GRANT USAGE ON SCHEMA pac TO pac_runtime;
GRANT SELECT ON pac.meta TO pac_runtime;
GRANT SELECT, INSERT ON pac.migrated TO pac_runtime;
GRANT SELECT, UPDATE ON pac.floor, pac.server TO pac_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON pac.repositories, pac.entries, pac.sessions TO pac_runtime;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pac TO pac_runtime;
