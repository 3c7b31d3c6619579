//! Who made what the driver uses. What another role has put into a schema runs as the role of this
//! process: so schemas and tables are used only where their owner is to be trusted.

use pac_core::driver::Finding;
use pac_core::{Error, ErrorKind};

use crate::client::{Client, Effect, Row, Session, Type};
use crate::record::cell;

/// What the catalogue says of a schema that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Whether the table with the version is there.
    pub(super) has_version: bool,
}

/// Reads the catalogue, which is open to every role. `None` where there is no such schema.
///
/// # Errors
/// `Config` for a schema of a role that is not to be trusted, for one that holds something of such a
/// role, and for one in which every role may create.
pub(super) async fn place(session: &Session, client: &Client) -> Result<Option<Place>, Error> {
    let sql = format!(
        "SELECT pg_catalog.pg_get_userbyid(n.nspowner)::pg_catalog.text, {trusted}, \
           pg_catalog.has_schema_privilege('public'::pg_catalog.name, n.oid, 'CREATE'), \
           EXISTS (SELECT FROM pg_catalog.pg_class c \
             WHERE c.relnamespace = n.oid AND c.relname = 'meta'), \
           (SELECT pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text FROM ( \
               SELECT proowner AS owner FROM pg_catalog.pg_proc WHERE pronamespace = n.oid \
               UNION SELECT relowner FROM pg_catalog.pg_class WHERE relnamespace = n.oid \
               UNION SELECT oprowner FROM pg_catalog.pg_operator WHERE oprnamespace = n.oid \
               UNION SELECT typowner FROM pg_catalog.pg_type WHERE typnamespace = n.oid) o \
             WHERE NOT {holder_trusted} LIMIT 1) \
         FROM pg_catalog.pg_namespace n WHERE n.nspname = $1",
        trusted = is_trusted("n.nspowner"),
        holder_trusted = is_trusted("o.owner")
    );
    let params = [(&client.options().schema as _, Type::TEXT)];
    let rows = session
        .query("connect", Effect::Read, &sql, &params)
        .await?;
    rows.first().map(|row| of(row, client)).transpose()
}

fn of(row: &Row, client: &Client) -> Result<Place, Error> {
    let owner: &str = cell(row, 0)?;
    let (trusted, open): (bool, bool) = (cell(row, 1)?, cell(row, 2)?);
    let options = client.options();
    let (schema, user) = (&options.schema, &options.username);
    let refuse = |message: String| Err(Error::new(ErrorKind::Config, "connect", message));
    if !trusted {
        return refuse(format!(
            "the schema {schema:?} belongs to the role {owner:?}, of which {user:?} is no member, and \
             which neither owns {:?} nor was let create schemas in it: what {owner:?} puts into it \
             would run as {user:?}; set another postgresql-schema, or drop it (DROP SCHEMA … \
             CASCADE); if {owner:?} is to be trusted, GRANT CREATE ON DATABASE … TO it",
            options.database
        ));
    }
    // An earlier owner, or a time in which every role could create.
    if let Some(other) = cell::<Option<&str>>(row, 4)? {
        return refuse(format!(
            "the schema {schema:?} holds something that the role {other:?} has made, which is not to \
             be trusted here, and which would run as {user:?}: drop all that {other:?} owns in \
             it, or set another postgresql-schema; if {other:?} is to be trusted, GRANT CREATE ON \
             DATABASE … TO it"
        ));
    }
    if open {
        return refuse(format!(
            "every role may create in the schema {schema:?}, and what it puts there would run as \
             {user:?}: REVOKE CREATE ON SCHEMA {schema:?} FROM PUBLIC, or set another \
             postgresql-schema"
        ));
    }
    Ok(Place {
        has_version: cell(row, 3)?,
    })
}

/// An expression: whether the role with this number is to be trusted with what it owns. That is so
/// of the role of this process and of roles that it is a member of (a superuser counts as one of
/// every role, which says nothing), of superusers, of the owner of the database,
/// and of roles that were let create schemas in the database by name. It is not so of a role that may
/// because every role may.
pub(crate) fn is_trusted(owner: &str) -> String {
    format!(
        "(EXISTS (SELECT FROM pg_catalog.pg_roles u WHERE u.rolname = CURRENT_USER \
           AND (u.oid = {owner} \
             OR NOT u.rolsuper AND pg_catalog.pg_has_role({owner}, 'MEMBER'))) \
         OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = {owner} \
           AND (r.rolsuper OR r.rolname = 'pg_database_owner')) \
         OR EXISTS (SELECT FROM pg_catalog.pg_database d \
           WHERE d.datname = pg_catalog.current_database() \
           AND (pg_catalog.pg_has_role({owner}, d.datdba, 'MEMBER') \
             OR EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) a \
               WHERE a.grantee <> '0'::pg_catalog.oid AND a.privilege_type = 'CREATE' \
               AND pg_catalog.pg_has_role({owner}, a.grantee, 'MEMBER')))))"
    )
}

/// A warning that names what every role of the server may do in this database, if that is more than
/// nothing: each of them can take its locks, fill its disk, and look at what is open to all.
pub(crate) async fn open_to_all(client: &Client) -> Result<Option<Finding>, Error> {
    let sql = "SELECT \
                 pg_catalog.has_database_privilege('public'::pg_catalog.name, d.oid, 'CONNECT'), \
                 pg_catalog.has_database_privilege('public'::pg_catalog.name, d.oid, 'CREATE'), \
                 EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public' AND \
                   pg_catalog.has_schema_privilege('public'::pg_catalog.name, n.oid, 'CREATE')) \
               FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    let rows = client.query("diagnose", Effect::Read, sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut open = Vec::new();
    for (at, what) in ["connect", "create schemas", "create in its schema public"]
        .into_iter()
        .enumerate()
    {
        if cell::<bool>(row, at)? {
            open.push(what);
        }
    }
    if open.is_empty() {
        return Ok(None);
    }
    let database = &client.options().database;
    Ok(Some(Finding::warning(
        format!(
            "every role of the server may, in the database {database:?}, {}",
            open.join(", ")
        ),
        format!(
            "use a database of its own, and let its owner run docs/deploy/postgresql.sql there, or \
             REVOKE ALL ON DATABASE {database:?} FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM \
             PUBLIC"
        ),
    )))
}
