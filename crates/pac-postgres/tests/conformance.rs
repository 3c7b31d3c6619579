//! The PostgreSQL driver against all cases, on the system's server and on the newest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pac_conformance::{Fixture, Harm, Time, Vandal};
use pac_core::RepositoryKey;
use pac_core::driver::Retention;
use pac_postgres::PostgresDriver;
use support::{NEWEST, SYSTEM, options, port, raw};

pac_conformance::conformance!(
    crate::postgres,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
    }
);

pac_conformance::conformance!(
    crate::newest_postgres,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
    }
);

async fn postgres(time: Time) -> Fixture {
    fixture(port(SYSTEM), time).await
}

async fn newest_postgres(time: Time) -> Fixture {
    fixture(port(NEWEST), time).await
}

async fn fixture(port: u16, time: Time) -> Fixture {
    let mut options = options(port);
    options.retention = Retention::new(Duration::from_secs(30), 1_000);
    let vandal = PostgresVandal {
        port,
        schema: options.schema.clone(),
        done: Mutex::default(),
    };
    let driver = PostgresDriver::connect(options).await.unwrap();
    Fixture::over(Arc::new(driver), time)
        .with_session_ttl(Duration::from_secs(3))
        .with_lease_ttl(Duration::from_secs(9))
        .with_tolerance(Duration::from_millis(700))
        .with_quiet(Duration::from_millis(300))
        .with_expiry_delay(Duration::from_millis(500))
        .with_scale(0.1)
        .with_vandal(vandal)
}

#[derive(Debug)]
struct PostgresVandal {
    port: u16,
    schema: String,
    done: Mutex<HashMap<RepositoryKey, Harm>>,
}

#[async_trait]
impl Vandal for PostgresVandal {
    async fn damage(&self, repository: &RepositoryKey, harm: Harm) {
        self.done.lock().unwrap().insert(repository.clone(), harm);
        self.change(repository, harm, '+').await;
    }

    async fn mend(&self, repository: &RepositoryKey) {
        let harm = self.done.lock().unwrap().remove(repository).unwrap();
        self.change(repository, harm, '-').await;
    }
}

impl PostgresVandal {
    async fn change(&self, repository: &RepositoryKey, harm: Harm, sign: char) {
        let heads = ["repositories"].as_slice();
        let runs = ["queue", "slots", "history"].as_slice();
        let (tables, change) = match harm {
            Harm::CorruptHead => (heads, format!("last_token = last_token {sign} -100000")),
            Harm::CorruptEntry => (runs, format!("kind = kind {sign} 9::smallint")),
            Harm::NewerHead => (heads, format!("format = format {sign} 1::smallint")),
            Harm::NewerPolicy | Harm::NewerTerms => {
                let (tables, column) = match harm {
                    Harm::NewerPolicy => (heads, "policy"),
                    _ => (runs, "terms"),
                };
                let value = match sign {
                    '+' => r#"'{"colour": "red"}'"#,
                    _ => "''",
                };
                (tables, format!("{column} = {value}"))
            }
        };
        let client = raw(self.port).await;
        // The database would refuse the damage.
        let rules = format!(
            "ALTER DOMAIN {0}.counter DROP CONSTRAINT IF EXISTS counter_check; \
             ALTER DOMAIN {0}.run_kind DROP CONSTRAINT IF EXISTS run_kind_check",
            self.schema
        );
        client.batch_execute(&rules).await.unwrap();
        let mut changed = 0;
        for table in tables {
            let sql = format!(
                "UPDATE {}.{table} SET {change} WHERE repository = $1",
                self.schema
            );
            changed += client.execute(&sql, &[&repository.as_str()]).await.unwrap();
        }
        assert!(changed > 0);
    }
}
