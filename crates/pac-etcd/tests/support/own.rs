//! Servers that belong to one test, which kills, pauses and restarts them.

pub(crate) use super::member::{Member, free_port};
use super::proxy::Lines;

/// Three members.
pub(crate) struct Cluster(pub(crate) Vec<Member>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        Self::on(&ports, &ports)
    }

    /// Starts three members with connections between them that can be cut.
    pub(crate) async fn with_lines() -> (Self, Lines) {
        let listen: Vec<_> = (0..3).map(|_| free_port()).collect();
        let (lines, found) = Lines::before(&listen).await;
        (Self::on(&listen, &found), lines)
    }

    fn on(listen: &[u16], found: &[u16]) -> Self {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = found.iter().map(url).collect();
        let names = peers.iter().enumerate();
        let cluster: Vec<String> = names.map(|(n, peer)| format!("m{n}={peer}")).collect();
        let mut members = Vec::new();
        for (n, peer) in peers.iter().enumerate() {
            let mut member = Member::new("http", free_port());
            let listens = url(&listen[n]);
            member.join(&format!("m{n}"), (&listens, peer), &cluster.join(","));
            member.start();
            members.push(member);
        }
        for member in &members {
            member.wait_until_healthy();
        }
        Self(members)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.0.iter().map(Member::endpoint).collect()
    }

    /// The id by which the other members know this one.
    pub(crate) async fn id(&self, member: usize) -> String {
        let client = super::raw(&self.0[member].endpoint()).await;
        let status = client.maintenance_client().status().await.unwrap();
        format!("{:x}", status.header().unwrap().member_id())
    }

    /// The number of the member that leads.
    pub(crate) async fn leader(&self) -> usize {
        for (n, member) in self.0.iter().enumerate() {
            let client = super::raw(&member.endpoint()).await;
            if let Ok(status) = client.maintenance_client().status().await
                && status.header().unwrap().member_id() == status.leader()
            {
                return n;
            }
        }
        panic!("nobody leads");
    }
}
