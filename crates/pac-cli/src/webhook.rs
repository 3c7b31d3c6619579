//! `pac webhook`: the admission webhook, for API servers without MutatingAdmissionPolicies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pac_concurrency::kubernetes::install::{ClusterAccess, Install};
use pac_concurrency::kubernetes::webhook::{
    CertificateOptions, WebhookError, WebhookErrorKind, WebhookOptions, WebhookServer,
};

use crate::controller::log;
use crate::end::End;
use crate::exit::{Exit, Failure};

const AFTER_HELP: &str = "\
It answers the admission reviews of the API server over TLS, one path for each rule:
  /takeover  moves the execution order of a run out of the sight of Pipelines-as-Code
  /gate      holds a new run back whose Repository has the annotation with a limit
  /namespace holds a new run back of a Namespace with the label for that, whatever made it
  /cancel    ends a held run at once that is cancelled gracefully

It has no state and touches no store; any number of replicas answer. `pac kubernetes install
--admission=webhook` makes what it needs. Its certificate is renewed after two thirds of a year, in a
Secret that all replicas share, and its authority is put into the configuration of the webhook.

Probes: GET /healthz and GET /readyz at the same address, over TLS. Until there is a certificate no
connection succeeds.

Exit codes:
   0  SIGTERM or SIGINT asked for the end
   2  wrong arguments, or an address that is taken
  70  a part of it has ended by itself, a bug
  78  no cluster is named";

/// The arguments of `pac webhook`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Where reviews and probes are answered
    #[arg(long, value_name = "ADDRESS", default_value_t = WebhookOptions::default().address)]
    address: SocketAddr,

    /// The namespace of its Service and its Secret
    #[arg(long, short, value_name = "NAMESPACE", default_value = Install::NAMESPACE,
          value_parser = crate::kubernetes::name)]
    namespace: String,

    /// A directory with tls.crt and tls.key, which others renew, such as cert-manager; the
    /// configuration of the webhook is theirs too [default: it makes its certificate by itself]
    #[arg(long, value_name = "DIR")]
    certificate_dir: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one; without a kubeconfig, the cluster
    /// that this process runs in]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The address of an API server that asks for no account, such as that of kubectl proxy
    #[arg(long, value_name = "URL", conflicts_with = "context")]
    server: Option<String>,

    /// For how long connections are still taken in when the end is asked for: the API server learns
    /// only then to ask another replica
    #[arg(long, value_name = "DURATION", default_value = "5s",
          value_parser = crate::time::parse_duration)]
    linger: Duration,

    /// How long what is being answered may take after that
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = crate::time::parse_duration)]
    grace_period: Duration,

    /// What is logged to stderr
    #[arg(long, value_enum, default_value_t = log::Level::Info)]
    log_level: log::Level,
}

/// Answers until a signal asks for the end.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    log::install(args.log_level)?;
    crate::store::block_on(answer(args))
}

async fn answer(args: &Args) -> Result<Exit, Failure> {
    let mut end = End::install()?;
    let access = match &args.server {
        Some(server) => ClusterAccess::at(server)?,
        None => ClusterAccess::connect(args.context.as_deref()).await?,
    };
    let mut server = WebhookServer::start(&access, &args.options()).await?;
    tracing::info!(address = %server.address(), "answering admission reviews");
    tokio::select! {
        error = server.ended() => return Err(error.into()),
        () = end.asked() => {}
    }
    server.close(args.linger, args.grace_period).await;
    tracing::info!("ended");
    Ok(Exit::Success)
}

impl Args {
    fn options(&self) -> WebhookOptions {
        let options = WebhookOptions::default()
            .with_address(self.address)
            .with_namespace(&self.namespace);
        match &self.certificate_dir {
            Some(directory) => {
                options.with_certificate(CertificateOptions::Directory(directory.clone()))
            }
            None => options,
        }
    }
}

impl From<WebhookError> for Failure {
    fn from(error: WebhookError) -> Self {
        let exit = match error.kind() {
            WebhookErrorKind::Config => Exit::Usage,
            _ => Exit::Internal,
        };
        Self::new(exit, error)
    }
}
