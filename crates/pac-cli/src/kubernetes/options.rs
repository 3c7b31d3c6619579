//! The options that say what is installed, the same for every command.

use clap::ValueEnum;
use pac_concurrency::kubernetes::install::{Admission, Install, StepActions, StoreDriver};

use super::mode::Mode;
use crate::exit::{Exit, Failure};
use crate::output;

/// What is installed. Commands about an installation take the options it was installed with.
#[derive(Debug, clap::Args)]
pub(super) struct InstallArgs {
    /// The namespace of the controller and its settings
    #[arg(long, short, value_name = "NAMESPACE", default_value = Install::NAMESPACE,
          value_parser = name)]
    namespace: String,

    /// The namespace of Pipelines-as-Code, where the global Repository is
    /// [default: that of the controller if it is openshift-pipelines, else pipelines-as-code]
    #[arg(long, value_name = "NAMESPACE", value_parser = name)]
    pac_namespace: Option<String>,

    /// How runs are held back for the controller
    #[arg(long, value_enum, default_value_t = Mode::Takeover)]
    mode: Mode,

    /// What holds them back on their way into the cluster
    #[arg(long, value_enum, default_value_t = By::Policy)]
    admission: By,

    /// The Certificate of cert-manager whose Secret, pac-concurrency-webhook-tls, the webhook uses
    /// [default: the webhook makes its own]
    #[arg(long, value_name = "NAME", value_parser = name, requires = "admission")]
    webhook_certificate: Option<String>,

    /// The image of the controller [default: pac-concurrency:VERSION]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// How many replicas of the controller run; all of them are active
    #[arg(long, value_name = "N", default_value_t = 2)]
    replicas: u32,

    /// The store that the settings begin with
    #[arg(long, value_enum, default_value_t = Driver::Postgresql)]
    driver: Driver,

    /// A namespace whose runs are left alone (can be given more than once)
    #[arg(long, value_name = "NAMESPACE", value_parser = name)]
    exclude_namespace: Vec<String>,

    /// A held run that is cancelled gracefully is cancelled at once: its `finally` tasks do not run
    #[arg(long)]
    cancel_at_once: bool,

    /// Show the queue of each Repository in an object (`kubectl get concurrencyqueues`); it takes a
    /// CustomResourceDefinition
    #[arg(long)]
    queues: bool,
}

/// They are for `kubectl apply -f -`, and no cluster is asked.
#[derive(Debug, clap::Args)]
pub(super) struct StepsCommand {
    /// The namespace of the runs
    #[arg(long, short, value_name = "NAMESPACE", value_parser = name)]
    namespace: String,

    /// The service account that their Tasks run under
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,

    /// The image of the controller [default: pac-concurrency:VERSION]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

impl StepsCommand {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let mut steps = StepActions::default()
            .with_namespace(&self.namespace)
            .with_service_account(&self.service_account);
        if let Some(image) = &self.image {
            steps = steps.with_image(image);
        }
        let document = steps.to_document()?;
        output::print(|out| out.write_all(document.as_bytes()))?;
        Ok(Exit::Success)
    }
}

/// What changes runs on their way into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Policies, which the API server evaluates itself: Kubernetes 1.36 and newer
    Policy,
    /// A webhook in a Deployment of its own, for older servers
    Webhook,
}

/// The store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// PostgreSQL
    Postgresql,
    /// etcd
    Etcd,
}

impl InstallArgs {
    pub(super) fn install(&self) -> Install {
        let mut install = Install::default()
            .with_namespace(&self.namespace)
            .with_mode(self.mode.into())
            .with_admission(match self.admission {
                By::Policy => Admission::Policy,
                By::Webhook => Admission::Webhook,
            })
            .with_replicas(self.replicas)
            .with_driver(match self.driver {
                Driver::Postgresql => StoreDriver::Postgresql,
                Driver::Etcd => StoreDriver::Etcd,
            })
            .with_cancel_at_once(self.cancel_at_once)
            .with_queues(self.queues);
        if let Some(namespace) = &self.pac_namespace {
            install = install.with_pac_namespace(namespace);
        }
        if let Some(certificate) = &self.webhook_certificate {
            install = install.with_webhook_certificate(certificate);
        }
        if let Some(image) = &self.image {
            install = install.with_image(image);
        }
        let excluded = self.exclude_namespace.iter();
        excluded.fold(install, Install::with_excluded_namespace)
    }
}

/// A name of a namespace.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(
            "a namespace has up to 63 small letters, digits and dashes, no dash at either end"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_would_refuse_is_no_namespace() {
        assert!(name("ci-2").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
