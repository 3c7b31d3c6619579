//! The servers that are compared. Each belongs to one lane.

#[allow(dead_code, reason = "nothing here kills or pauses a server")]
#[path = "../../../pac-etcd/tests/support/member.rs"]
mod member;

use etcd_client::Channel;
use etcd_client::proto::{PbStatusRequest, PbStatusResponse};
use pac_etcd_mock::{Builder, MockEtcd};
use tonic::transport::Endpoint;

use super::wire::Wire;
use member::Member;
pub(crate) use member::variable;

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
    pub(crate) wire: Wire,
    _member: Option<Member>,
    _mock: Option<MockEtcd>,
}

impl Kind {
    pub(crate) async fn start(self) -> Running {
        match self {
            Self::Etcd(program) => etcd(program).await,
            Self::Mock => mock(MockEtcd::builder()).await,
            Self::Forgetful => mock(MockEtcd::builder().auto_compaction(1)).await,
        }
    }
}

async fn etcd(program: &str) -> Running {
    // Users' passwords are hashed at the least cost, and nothing is kept.
    let member = Member::single_of(program, &["--bcrypt-cost=4", "--unsafe-no-fsync=true"]);
    let endpoint = member.endpoint();
    let uri = format!("http://{endpoint}");
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    Running {
        endpoint,
        wire: Wire(Channel::Tonic(channel)),
        _member: Some(member),
        _mock: None,
    }
}

async fn mock(builder: Builder) -> Running {
    let builder = builder.listen(([127, 0, 0, 1], 0).into());
    let mock = builder.start().await.unwrap();
    Running {
        endpoint: mock.address().unwrap().to_string(),
        wire: Wire(mock.direct_channel()),
        _member: None,
        _mock: Some(mock),
    }
}

impl Running {
    /// The version of etcd that it says it is.
    pub(crate) async fn version(&self) -> String {
        let method = "/etcdserverpb.Maintenance/Status";
        let request = PbStatusRequest {};
        let status = self.wire.call::<_, PbStatusResponse>(method, None, request);
        status.await.unwrap().version
    }
}
