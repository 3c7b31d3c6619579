//! TLS, and certificates of both sides.

use crate::support::refused;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use pac_etcd_mock::{Builder, MockEtcd};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, and a certificate of it with its key, all in PEM.
struct Signed {
    authority: String,
    certificate: String,
    key: String,
}

fn signed() -> Signed {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Signed {
        authority: issuer.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

async fn connect(etcd: &MockEtcd, tls: TlsOptions) -> Result<(), etcd_client::Error> {
    let options = ConnectOptions::new().with_tls(tls);
    let mut client = Client::connect([etcd.endpoint()], Some(options)).await?;
    client.put("a", "1", None).await.map(drop)
}

fn trusting(authority: &str) -> TlsOptions {
    TlsOptions::new().ca_certificate(Certificate::from_pem(authority))
}

fn listening() -> Builder {
    MockEtcd::builder().listen(([127, 0, 0, 1], 0).into())
}

#[tokio::test]
async fn a_server_with_tls_is_reached_by_who_trusts_its_authority() {
    let server = signed();
    let etcd = listening().tls(&server.certificate, &server.key);
    let etcd = etcd.start().await.unwrap();
    assert!(etcd.endpoint().starts_with("https://127.0.0.1:"));
    connect(&etcd, trusting(&server.authority)).await.unwrap();
    connect(&etcd, trusting(&signed().authority))
        .await
        .unwrap_err();
    let plain = etcd.endpoint().replace("https", "http");
    let mut plain = Client::connect([plain], None).await.unwrap();
    plain.get("a", None).await.unwrap_err();
}

#[tokio::test]
async fn with_mutual_tls_a_client_needs_a_certificate() {
    let (server, client) = (signed(), signed());
    let etcd = listening()
        .tls(&server.certificate, &server.key)
        .client_ca(&client.authority);
    let etcd = etcd.start().await.unwrap();
    let trusting = || trusting(&server.authority);
    connect(&etcd, trusting()).await.unwrap_err();
    let own = Identity::from_pem(&client.certificate, &client.key);
    connect(&etcd, trusting().identity(own)).await.unwrap();
    let other = Identity::from_pem(&server.certificate, &server.key);
    connect(&etcd, trusting().identity(other))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_without_being_shown() {
    let builder = listening().tls("no certificate", "no key");
    let shown = format!("{:?}", builder.clone().root_password("hidden"));
    assert!(
        !shown.contains("no key") && !shown.contains("hidden"),
        "{shown}"
    );
    let error = builder.start().await.unwrap_err();
    assert!(error.to_string().contains("in PEM"), "{error}");
}

#[tokio::test]
async fn a_server_may_check_users_from_the_start() {
    let etcd = MockEtcd::builder().root_password("hidden");
    let etcd = etcd.start().await.unwrap();
    let mut nobody = etcd.client().await.unwrap();
    assert_eq!(
        refused(nobody.get("a", None).await),
        "InvalidArgument: etcdserver: user name is empty"
    );
    let root = ConnectOptions::new().with_user("root", "hidden");
    let mut root = Client::from_channel(etcd.channel(), Some(root))
        .await
        .unwrap();
    root.get("a", None).await.unwrap();
}
