//! Random sequences. Few keys, leases and revisions, so that operations meet; some arguments that
//! no client would send, so that refusals are compared as well.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::BoxedStrategy;

use super::operation::*;

const KEYS: [Text; 8] = [
    Text(b"a"),
    Text(b"a\0"),
    Text(b"ab"),
    Text(b"abc"),
    Text(b"b"),
    Text(b"c/d"),
    Text(b"\xff"),
    Text(b"\xff\xff"),
];
const VALUES: [Text; 4] = [Text(b""), Text(b"1"), Text(b"2"), Text(b"\x00\xff")];
const USERS: [&str; 4] = ["root", "ann", "bob", "nobody"];
const ROLES: [&str; 4] = ["root", "reader", "writer", "nothing"];
const PASSWORDS: [&str; 3] = ["p", "q", ""];
/// Below and above the limit of etcd for a request.
const TOO_LARGE: [usize; 2] = [1_572_800, 1_572_900];

/// A sequence without users.
pub(crate) fn data() -> BoxedStrategy<Vec<Op>> {
    vec(data_op(), 1..20).boxed()
}

/// A sequence with users, which as a rule begins with auth enabled.
pub(crate) fn auth() -> BoxedStrategy<Vec<Op>> {
    let ops = vec(
        prop_oneof![
            4 => auth_op().prop_map(Op::Auth),
            3 => caller().prop_map(Op::As),
            5 => data_op().prop_filter("watches belong to one user", |op| !is_watch(op)),
        ],
        1..24,
    );
    (any::<u8>(), ops)
        .prop_map(|(beginning, ops)| {
            // Shrinks to nothing.
            let mut all = if beginning < 64 {
                Vec::new()
            } else {
                enabled()
            };
            all.extend(ops);
            all
        })
        .boxed()
}

fn is_watch(op: &Op) -> bool {
    matches!(op, Op::Cancel(_) | Op::Progress)
}

/// Two users beside root, one of which may do less than the other.
fn enabled() -> Vec<Op> {
    let all = [
        Auth::UserAdd("root", "p"),
        Auth::RoleAdd("root"),
        Auth::UserGrant("root", "root"),
        Auth::RoleAdd("reader"),
        Auth::RoleGrant("reader", 0, Span::Prefix(Text(b"a"))),
        Auth::RoleAdd("writer"),
        Auth::RoleGrant("writer", 2, Span::Between(Text(b"a"), Text(b"b"))),
        Auth::UserAdd("ann", "p"),
        Auth::UserAdd("bob", "q"),
        Auth::UserGrant("ann", "reader"),
        Auth::UserGrant("bob", "writer"),
        Auth::Enable,
        Auth::Authenticate("root", "p"),
        Auth::Authenticate("ann", "p"),
        Auth::Authenticate("bob", "q"),
    ];
    let mut ops: Vec<_> = all.into_iter().map(Op::Auth).collect();
    ops.push(Op::As(Caller::User("root")));
    ops
}

fn data_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => range().prop_map(Op::Range),
        30 => put().prop_map(Op::Put),
        8 => delete().prop_map(Op::Delete),
        16 => txn(2).prop_map(|txn| Op::Txn(harmless(txn))),
        4 => (revision(), any::<bool>()).prop_map(|(revision, physical)| Op::Compact(revision, physical)),
        5 => (lease(), select(vec![100, 500, 9_000_000_000, 9_000_000_001])).prop_map(|(lease, ttl)| Op::Grant(lease, ttl)),
        1 => (-1_i64..3).prop_map(Op::GrantShort),
        3 => lease().prop_map(Op::Revoke),
        2 => lease().prop_map(Op::KeepAlive),
        3 => (lease(), any::<bool>()).prop_map(|(lease, keys)| Op::TimeToLive(lease, keys)),
        1 => Just(Op::Leases),
        6 => watch().prop_map(Op::Watch),
        2 => (0_usize..4).prop_map(Op::Cancel),
        1 => Just(Op::Progress),
        1 => (key(), prop_oneof![6 => Just(100_usize), 1 => select(&TOO_LARGE[..])]).prop_map(|(key, size)| Op::PutLarge(key, size)),
    ]
}

fn key() -> impl Strategy<Value = Text> {
    prop_oneof![40 => select(&KEYS[..]), 1 => Just(Text(b""))]
}

fn value() -> impl Strategy<Value = Text> {
    select(&VALUES[..])
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        6 => key().prop_map(Span::One),
        3 => key().prop_map(Span::Prefix),
        2 => key().prop_map(Span::From),
        2 => Just(Span::All),
        3 => (key(), key()).prop_map(|(from, to)| Span::Between(from, to)),
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![
        20 => (-8_i8..=0).prop_map(Revision::Now),
        2 => (1_i8..3).prop_map(Revision::Now),
        1 => select(vec![-1, 1, i64::MAX, i64::MIN]).prop_map(Revision::Raw),
        1 => Just(Revision::Unset),
    ]
}

/// As a rule, none.
fn some_revision(none: u32) -> impl Strategy<Value = Revision> {
    prop_oneof![none => Just(Revision::Unset), 1 => revision()]
}

fn lease() -> impl Strategy<Value = Lease> {
    prop_oneof![
        6 => (1_i64..4).prop_map(|n| Lease::Chosen(1_000 + n)),
        3 => (0_usize..2).prop_map(Lease::Assigned),
        2 => Just(Lease::None),
        1 => Just(Lease::Chosen(-7)),
    ]
}

/// As a rule false.
fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![5 => Just(false), 1 => Just(true)]
}

fn range() -> impl Strategy<Value = Range> {
    let flags = (any::<bool>(), rarely(), rarely());
    let sorting = prop_oneof![
        8 => (0..3_i32, 0..5_i32),
        4 => Just((0, 0)),
    ];
    let bound = || some_revision(8);
    (
        span(),
        prop_oneof![3 => Just(0_i64), 2 => 1..5_i64, 1 => -1..1_i64],
        some_revision(2),
        sorting,
        flags,
        (bound(), bound(), bound(), bound()),
    )
        .prop_map(
            |(span, limit, revision, (order, target), flags, bounds)| Range {
                span,
                limit,
                revision,
                order,
                target,
                serializable: flags.0,
                keys_only: flags.1,
                count_only: flags.2,
                bounds: bounds.into(),
            },
        )
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![3 => Just(Lease::None), 1 => lease()];
    (key(), value(), lease, any::<bool>(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| Put {
            key,
            // With these flags, as a rule the field is empty.
            value: if ignore_value && value.0 != b"2" {
                Text(b"")
            } else {
                value
            },
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = Delete> {
    (span(), any::<bool>()).prop_map(|(span, prev_kv)| Delete { span, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = prop_oneof![
        4 => (0..4_i64).prop_map(Union::Version),
        3 => some_revision(3).prop_map(Union::Create),
        3 => some_revision(3).prop_map(Union::Mod),
        4 => value().prop_map(Union::Value),
        2 => lease().prop_map(Union::Lease),
        1 => Just(Union::Absent),
    ];
    (span(), 0..4_i32, union, 0..5_i32, rarely()).prop_map(|(span, result, union, other, odd)| {
        let target = match union {
            Union::Version(_) => 0,
            Union::Create(_) => 1,
            Union::Mod(_) => 2,
            Union::Value(_) => 3,
            Union::Lease(_) => 4,
            Union::Absent => other,
        };
        Compare {
            span,
            result,
            target: if odd { other } else { target },
            union,
        }
    })
}

fn txn(depth: u32) -> BoxedStrategy<Txn> {
    let ops = move || vec(txn_op(depth), 0..4);
    (vec(compare(), 0..3), ops(), ops())
        .prop_map(|(compares, success, failure)| Txn {
            compares,
            success,
            failure,
        })
        .boxed()
}

fn txn_op(depth: u32) -> BoxedStrategy<TxnOp> {
    let nested = if depth == 0 {
        Just(TxnOp::Nothing).boxed()
    } else {
        txn(depth - 1).prop_map(TxnOp::Txn).boxed()
    };
    prop_oneof![
        40 => put().prop_map(TxnOp::Put),
        30 => range().prop_map(TxnOp::Range),
        20 => delete().prop_map(TxnOp::Delete),
        14 => nested,
        1 => select(vec![60_u8, 127, 128, 129]).prop_map(TxnOp::Many),
    ]
    .boxed()
}

/// etcd does not see that a deletion from a key on and a put of a key behind it are about the same
/// key. If the put then wants to keep the value of what has been deleted, etcd crashes.
fn harmless(mut txn: Txn) -> Txn {
    if deletes_to_the_end(&txn) {
        keep_nothing(&mut txn);
    }
    txn
}

fn deletes_to_the_end(txn: &Txn) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| match op {
        TxnOp::Delete(delete) => delete.span.range().1 == [0],
        TxnOp::Txn(txn) => deletes_to_the_end(txn),
        _ => false,
    })
}

fn keep_nothing(txn: &mut Txn) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op {
            TxnOp::Put(put) => (put.ignore_value, put.ignore_lease) = (false, false),
            TxnOp::Txn(txn) => keep_nothing(txn),
            _ => {}
        }
    }
}

/// Not with the id -1, which is that of no watch: etcd 3.5 gives it, and is silent from then on.
fn watch() -> impl Strategy<Value = Watch> {
    let flags = (any::<bool>(), rarely(), rarely(), rarely(), rarely());
    let id = prop_oneof![4 => Just(0_i64), 2 => select(vec![1_i64, 2, 7, -3])];
    let start = prop_oneof![3 => Just(Revision::Unset), 2 => revision()];
    (span(), start, id, flags).prop_map(|(span, start, id, flags)| Watch {
        span,
        start,
        id,
        prev_kv: flags.0,
        no_put: flags.1,
        no_delete: flags.2,
        fragment: flags.3,
        progress: flags.4,
    })
}

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        8 => user().prop_map(Caller::User),
        1 => Just(Caller::Nobody),
        1 => Just(Caller::Forger),
    ]
}

fn user() -> impl Strategy<Value = &'static str> {
    prop_oneof![30 => select(&USERS[..]), 1 => Just("")]
}

fn role() -> impl Strategy<Value = &'static str> {
    prop_oneof![30 => select(&ROLES[..]), 1 => Just("")]
}

fn password() -> impl Strategy<Value = &'static str> {
    select(&PASSWORDS[..])
}

fn auth_op() -> impl Strategy<Value = Auth> {
    prop_oneof![
        2 => Just(Auth::Enable),
        1 => Just(Auth::Disable),
        1 => Just(Auth::Status),
        6 => (user(), password()).prop_map(|(user, password)| Auth::Authenticate(user, password)),
        2 => (user(), password()).prop_map(|(user, password)| Auth::UserAdd(user, password)),
        // Root without a password locks everybody out for good.
        1 => select(vec!["ann", "bob", ""]).prop_map(Auth::UserAddBare),
        2 => user().prop_map(Auth::UserDelete),
        2 => (user(), password()).prop_map(|(user, password)| {
            // So does root with a password that is never right.
            let password = if user == "root" && password.is_empty() { "p" } else { password };
            Auth::UserPassword(user, password)
        }),
        3 => (user(), role()).prop_map(|(user, role)| Auth::UserGrant(user, role)),
        2 => (user(), role()).prop_map(|(user, role)| Auth::UserRevoke(user, role)),
        2 => user().prop_map(Auth::UserGet),
        1 => Just(Auth::UserList),
        2 => role().prop_map(Auth::RoleAdd),
        2 => role().prop_map(Auth::RoleDelete),
        6 => (role(), 0..3_i32, span()).prop_map(|(role, kind, span)| Auth::RoleGrant(role, kind, span)),
        3 => (role(), span()).prop_map(|(role, span)| Auth::RoleRevoke(role, span)),
        2 => role().prop_map(Auth::RoleGet),
        1 => Just(Auth::RoleList),
    ]
}
