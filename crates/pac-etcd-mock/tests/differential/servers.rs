//! The servers that are compared. Each belongs to one lane.

#[allow(dead_code, reason = "nothing here kills or pauses a server")]
#[path = "../../../pac-etcd/tests/support/member.rs"]
mod member;

use etcd_client::proto::{PbStatusRequest, PbStatusResponse};

use super::wire::Wire;
use member::Member;
pub(crate) use member::variable;
use pac_etcd_mock::{Builder, MockEtcd};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program that this variable names.
    Etcd(&'static str),
    Mock,
    /// A mock that does what etcd does not: it forgets revisions unasked.
    Forgetful,
}

/// The oldest etcd that is supported.
pub(crate) const OLDEST: Kind = Kind::Etcd(member::OLDEST);
/// A newer one.
pub(crate) const NEWEST: Kind = Kind::Etcd("PAC_TEST_ETCD_NEWEST_BIN");

/// A server that ends when this is dropped.
pub(crate) struct Running {
    pub(crate) endpoint: String,
    _member: Option<Member>,
    _mock: Option<MockEtcd>,
}

impl Kind {
    pub(crate) async fn start(self) -> Running {
        match self {
            // Users' passwords are hashed at the least cost, and nothing is kept.
            Self::Etcd(program) => {
                let member =
                    Member::single_of(program, &["--bcrypt-cost=4", "--unsafe-no-fsync=true"]);
                Running {
                    endpoint: member.endpoint(),
                    _member: Some(member),
                    _mock: None,
                }
            }
            Self::Mock => mock(MockEtcd::builder()).await,
            Self::Forgetful => mock(MockEtcd::builder().auto_compaction(1)).await,
        }
    }
}

async fn mock(builder: Builder) -> Running {
    let builder = builder.listen(([127, 0, 0, 1], 0).into());
    let mock = builder.start().await.unwrap();
    Running {
        endpoint: mock.address().unwrap().to_string(),
        _member: None,
        _mock: Some(mock),
    }
}

/// The version of etcd that a server says it is.
pub(crate) async fn version(endpoint: &str) -> String {
    let wire = Wire::connect(endpoint).await;
    let method = "/etcdserverpb.Maintenance/Status";
    let status = wire.call::<_, PbStatusResponse>(method, None, PbStatusRequest {});
    status.await.unwrap().version
}
