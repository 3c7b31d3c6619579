//! Converts the values of the settings to the options of the compiled-in drivers.

#[cfg(feature = "etcd")]
impl From<&super::EtcdValues> for pac_etcd::EtcdOptions {
    fn from(values: &super::EtcdValues) -> Self {
        let mut options = Self::new(&values.endpoints);
        options.dial_timeout = values.dial_timeout;
        options.username.clone_from(&values.username);
        options.ca_file.clone_from(&values.ca_file);
        options.cert_file.clone_from(&values.cert_file);
        options.key_file.clone_from(&values.key_file);
        options.server_name.clone_from(&values.server_name);
        options.prefix.clone_from(&values.prefix);
        options.compaction = values.compaction;
        options.password = values.password.clone().unwrap_or_default();
        options
    }
}

#[cfg(feature = "postgres")]
impl From<&super::PostgresqlValues> for pac_postgres::PostgresOptions {
    fn from(values: &super::PostgresqlValues) -> Self {
        let host = |host: &super::Host| (host.name.clone(), host.port.unwrap_or(values.port));
        let pair = values.cert_file.clone().zip(values.key_file.clone());
        let mut options = Self::default();
        options.hosts = values.hosts.iter().map(host).collect();
        options.database.clone_from(&values.database);
        options.username.clone_from(&values.username);
        options.password = values.password.clone().unwrap_or_default();
        options.ssl_mode = match values.ssl_mode {
            super::SslMode::Disable => pac_postgres::SslMode::Disable,
            super::SslMode::Require => pac_postgres::SslMode::Require,
            super::SslMode::VerifyCa => pac_postgres::SslMode::VerifyCa,
            super::SslMode::VerifyFull => pac_postgres::SslMode::VerifyFull,
        };
        options.authentication = values.authentication.map(|demanded| match demanded {
            super::Authentication::ChannelBinding => pac_postgres::Authentication::ChannelBinding,
            super::Authentication::Scram => pac_postgres::Authentication::Scram,
            super::Authentication::Any => pac_postgres::Authentication::Any,
        });
        options.ca_file.clone_from(&values.ca_file);
        options.client_certificate = pair;
        options.schema.clone_from(&values.schema);
        options.migrate = match values.migrate {
            super::Migrate::Never => pac_postgres::Migrate::Never,
            super::Migrate::New => pac_postgres::Migrate::New,
            super::Migrate::Always => pac_postgres::Migrate::Always,
        };
        options
            .application_name
            .clone_from(&values.application_name);
        options.max_connections =
            usize::try_from(values.max_connections.get()).unwrap_or(usize::MAX);
        options.connection_timeout = values.connection_timeout;
        options.full_server_timeout = values.connection_timeout;
        options.lease_ttl = values.lease_ttl;
        options
    }
}

#[cfg(test)]
mod tests {
    use crate::SettingsLoader;

    #[cfg(feature = "postgres")]
    #[test]
    fn every_value_reaches_the_driver_for_postgresql() {
        let loaded = SettingsLoader::new()
            .set("postgresql-host", "a,b:5433")
            .set("postgresql-port", "6432")
            .set("postgresql-database", "d")
            .set("postgresql-username", "u")
            .set("postgresql-password", "hunter2")
            .set("postgresql-ssl-mode", "verify-full")
            .set("postgresql-authentication", "scram")
            .set("postgresql-ca-file", "/ca")
            .set("postgresql-cert-file", "/crt")
            .set("postgresql-key-file", "/key")
            .set("postgresql-schema", "s")
            .set("postgresql-migrate", "always")
            .set("postgresql-application-name", "batch")
            .set("postgresql-max-connections", "7")
            .set("postgresql-connection-timeout", "8s")
            .set("postgresql-lease-ttl", "9m")
            .load()
            .unwrap();
        let options = loaded.settings().postgres;
        let mut expected = pac_postgres::PostgresOptions::default();
        expected.hosts = vec![("a".to_owned(), 6432), ("b".to_owned(), 5433)];
        expected.database = "d".to_owned();
        expected.username = "u".to_owned();
        expected.password = pac_postgres::Password::new("hunter2");
        expected.ssl_mode = pac_postgres::SslMode::VerifyFull;
        expected.authentication = Some(pac_postgres::Authentication::Scram);
        expected.ca_file = Some("/ca".into());
        expected.client_certificate = Some(("/crt".into(), "/key".into()));
        expected.schema = "s".to_owned();
        expected.migrate = pac_postgres::Migrate::Always;
        expected.application_name = Some("batch".to_owned());
        expected.max_connections = 7;
        expected.connection_timeout = std::time::Duration::from_secs(8);
        expected.full_server_timeout = std::time::Duration::from_secs(8);
        expected.lease_ttl = std::time::Duration::from_secs(9 * 60);
        assert_eq!(options, expected);

        let file = SettingsLoader::new()
            .set("postgresql-password-file", "/pw")
            .load()
            .unwrap();
        let options = loaded_password(&file.settings());
        assert_eq!(options, pac_postgres::Password::in_file("/pw"));
    }

    #[cfg(feature = "postgres")]
    fn loaded_password(settings: &crate::Settings) -> pac_postgres::Password {
        settings.postgres.password.clone()
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn every_value_reaches_the_driver_for_etcd() {
        let loaded = SettingsLoader::new()
            .set("etcd-endpoints", "a:1,b:2")
            .set("etcd-username", "u")
            .set("etcd-password", "hunter2")
            .set("etcd-ca-file", "/ca")
            .set("etcd-cert-file", "/crt")
            .set("etcd-key-file", "/key")
            .set("etcd-server-name", "n")
            .set("etcd-prefix", "/p/")
            .set("etcd-dial-timeout", "8")
            .set("etcd-compaction", "5m")
            .load()
            .unwrap();
        let mut expected = pac_etcd::EtcdOptions::new(["a:1", "b:2"]).with_password("hunter2");
        expected.username = Some("u".to_owned());
        expected.ca_file = Some("/ca".into());
        expected.cert_file = Some("/crt".into());
        expected.key_file = Some("/key".into());
        expected.server_name = Some("n".to_owned());
        expected.prefix = "/p/".to_owned();
        expected.dial_timeout = std::time::Duration::from_secs(8);
        expected.compaction = Some(std::time::Duration::from_secs(5 * 60));
        assert_eq!(loaded.settings().etcd, expected);
        let file = SettingsLoader::new()
            .set("etcd-password-file", "/pw")
            .load()
            .unwrap();
        assert_eq!(
            file.settings().etcd.password,
            crate::settings::Password::in_file("/pw")
        );
    }
}
