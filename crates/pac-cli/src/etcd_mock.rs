//! `pac etcd-mock`: a mock etcd for other people's tests.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pac_etcd_mock::MockEtcd;

use crate::end::End;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::store;

const AFTER_HELP: &str = "\
It speaks etcd's protocol of version 3.5: keys, transactions, leases, watches, users, locks and
elections. Its state is in memory and ends with it.

The first line of its output is the endpoint, once it can be connected to:
  pac etcd-mock --listen 127.0.0.1:0

Exit codes:
   0  SIGTERM or SIGINT asked for the end
   2  wrong arguments, or an address that is taken
  78  a file that cannot be used";

/// The arguments of `pac etcd-mock`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2379")]
    listen: SocketAddr,

    /// Speak TLS with this certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,

    /// Ask clients for a certificate of this authority, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_client_ca_file: Option<PathBuf>,

    /// Check users from the start: there is `root`, with the password in this file, one line
    #[arg(long, value_name = "FILE")]
    auth_password_file: Option<PathBuf>,

    /// Forget old revisions by itself: keep so many at least, and twice as many at most
    #[arg(long, value_name = "REVISIONS")]
    auto_compaction: Option<u32>,
}

/// Serves until a signal asks for the end.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    store::block_on(serve(args))
}

async fn serve(args: &Args) -> Result<Exit, Failure> {
    let mut end = End::install()?;
    let mut builder = MockEtcd::builder().listen(args.listen);
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) {
        builder = builder.tls(read(certificate)?, read(key)?);
    }
    if let Some(authority) = &args.tls_client_ca_file {
        builder = builder.client_ca(read(authority)?);
    }
    if let Some(file) = &args.auth_password_file {
        let text = read(file)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        if password.is_empty() || password.contains('\n') {
            let message = format!("{}: holds no password, one line", file.display());
            return Err(Failure::new(Exit::Config, message));
        }
        builder = builder.root_password(password);
    }
    if let Some(revisions) = args.auto_compaction {
        builder = builder.auto_compaction(revisions);
    }
    let mock = builder.start().await.map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::InvalidInput => Exit::Config,
            _ => Exit::Usage,
        };
        Failure::new(exit, format!("{}: cannot listen: {error}", args.listen))
    })?;
    output::print(|out| writeln!(out, "{}", mock.endpoint()))?;
    end.asked().await;
    Ok(Exit::Success)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("{}: cannot be read: {error}", path.display());
        Failure::new(Exit::Config, message)
    })
}
