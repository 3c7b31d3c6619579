//! What versions of etcd do differently from the mock, which does as the newest ones: it is not
//! compared where one of the two servers has that version.

/// What is not compared.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quirks {
    /// The answer to a watch without a permission: etcd up to 3.4.21 and 3.5.5 repeats the id that
    /// was asked for, and gives the same reason for any refusal.
    pub(crate) refused_watch: bool,
    /// The permission for a watch from a key on: etcd 3.4, and etcd up to 3.5.32 and 3.6.13, ask for
    /// the permission for the first key alone.
    pub(crate) open_watch: bool,
    /// The permissions for what is in a nested transaction: etcd up to 3.4.41, 3.5.27 and 3.6.8 ask
    /// for none.
    pub(crate) nested_txn: bool,
    /// The change to an empty password: with etcd 3.4 it is the right one from then on, and with
    /// newer versions none is.
    pub(crate) empty_password: bool,
    /// The token in a request for a token: etcd 3.4 refuses the request if it does not know it.
    pub(crate) checked_login: bool,
    /// The status of auth: etcd 3.4 cannot be asked for it.
    pub(crate) no_auth_status: bool,
}

impl Quirks {
    /// Those of two servers, by their versions.
    pub(crate) fn of(versions: [&str; 2]) -> Self {
        let one_is = |minor, until| versions.into_iter().any(|one| is_old(one, minor, until));
        Self {
            refused_watch: one_is(4, 21) || one_is(5, 5),
            open_watch: one_is(4, u32::MAX) || one_is(5, 32) || one_is(6, 13),
            nested_txn: one_is(4, 41) || one_is(5, 27) || one_is(6, 8),
            empty_password: one_is(4, u32::MAX),
            checked_login: one_is(4, u32::MAX),
            no_auth_status: one_is(4, u32::MAX),
        }
    }
}

/// Whether it is a version 3 of this minor version, up to this patch.
fn is_old(version: &str, minor: u32, until: u32) -> bool {
    let numbers = version.split('.').map_while(|part| part.parse().ok());
    let numbers: Vec<u32> = numbers.collect();
    matches!(numbers[..], [3, its, patch] if its == minor && patch <= until)
}
