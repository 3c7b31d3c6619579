//! What is there of a schema and what it lacks, for people; and the way to change it on request.

use pac_core::Error;

use super::{BEGIN, Found, bring_up_to_date, latest, lock, statements};
use crate::PostgresOptions;
use crate::client::Client;
use crate::options::Migrate;

/// The schema that options name, apart from what is stored in it.
#[derive(Debug)]
pub struct PostgresSchema {
    client: Client,
}

/// What there is of a schema, and what this software would do to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaStatus {
    /// The database that it is in.
    pub database: String,
    /// Its name.
    pub schema: String,
    /// Its version; none where this software has made nothing yet.
    pub found: Option<u32>,
    /// The version that this software works with.
    pub needed: u32,
    /// What [`PostgresSchema::apply`] does: a script in one transaction. Empty when there is nothing
    /// to do, and when the schema is newer than this software.
    pub sql: String,
}

impl PostgresSchema {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// `Config` for options that cannot be used.
    pub fn new(options: &PostgresOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self {
            client: Client::new(options)?,
        })
    }

    /// Reads what there is; changes nothing.
    ///
    /// # Errors
    /// Those of connecting, and `Unauthorised` for a role that may not read the version.
    pub async fn status(&self) -> Result<SchemaStatus, Error> {
        let session = self.client.first().await?;
        let found = Found::read(&session, &self.client).await?;
        let options = self.client.options();
        let mut sql = String::new();
        let changes = statements(&self.client.schema(), found);
        if !changes.is_empty() {
            let (begin, lock) = (BEGIN.to_owned(), lock(&self.client));
            let commit = "COMMIT".to_owned();
            let all = [begin, lock].into_iter().chain(changes).chain([commit]);
            for statement in all {
                sql.push_str(statement.trim_end().trim_end_matches(';'));
                sql.push_str(";\n");
            }
        }
        Ok(SchemaStatus {
            database: options.database.clone(),
            schema: options.schema.clone(),
            found: found.version(),
            needed: latest(),
            sql,
        })
    }

    /// Creates the schema, or brings it up to this software's version, whatever the options say of
    /// [`Migrate`]. Dropped in flight, all or nothing was done.
    ///
    /// # Errors
    /// `Incompatible` for a schema of a newer version, `Unauthorised` for a role that may not create
    /// what is missing, and those of connecting.
    pub async fn apply(&self) -> Result<(), Error> {
        let session = self.client.first().await?;
        match Found::read(&session, &self.client).await? {
            Found::Current => Ok(()),
            _ => bring_up_to_date(&session, &self.client, Migrate::Always).await,
        }
    }
}
