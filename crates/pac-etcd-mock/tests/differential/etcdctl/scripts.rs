//! What `etcdctl` is asked to do. All of it runs on one server, which is new at the beginning, so
//! that revisions are the same.

use super::Etcdctl;

pub(super) fn keys(etcdctl: &mut Etcdctl) {
    for command in [
        "put a 1",
        "put ab 2",
        "put abc 3",
        "put b 4",
        "put a 5 --prev-kv",
        "put new 1 --prev-kv",
        "put a --ignore-value",
        "put none --ignore-value",
        "put a 6 --ignore-lease",
        "put none 1 --lease=7b",
        "put a 7 -w json",
        "put a 8 -w fields",
        "get a -w json",
        "get a -w fields",
        "put c/1 x",
        "put c/2 y",
        "del ab",
        "del ab",
        "del new --prev-kv",
        "del c/ --prefix --prev-kv -w json",
        "put ab 9",
        "del zz --from-key",
        "get",
        "put",
    ] {
        etcdctl.run(command);
    }
    etcdctl.run_with("put piped", "from the input");
    etcdctl.run_args(&["put", "with spaces", "and \"quotes\" \u{e9}"], "");
    etcdctl.run("get piped");
}

pub(super) fn reads(etcdctl: &mut Etcdctl) {
    for command in [
        "get a",
        "get none",
        "get a abc",
        "get a --prefix",
        "get a --prefix --keys-only",
        "get a --prefix --limit=2",
        "get a --prefix --limit=2 -w json",
        "get a --prefix --print-value-only",
        "get ab --from-key",
        "get a --prefix --from-key",
        "get --prefix= --keys-only",
        "get a --rev=2",
        "get a --rev=1",
        "get a --rev=1000",
        "get a --prefix --rev=5",
        "get a --consistency=s",
        "get a --consistency=x",
        "get a --hex",
    ] {
        etcdctl.run(command);
    }
    for by in ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION", "NOTHING"] {
        etcdctl.run(&format!("get a --prefix --sort-by={by}"));
        etcdctl.run(&format!("get a --prefix --sort-by={by} --order=DESCEND"));
    }
    etcdctl.run("get a --prefix --order=ASCEND --sort-by=VERSION --limit=2");
    etcdctl.run_args(&["get", "", "--prefix", "--keys-only"], "");
    etcdctl.run_args(&["get", "", "--from-key", "--limit=1"], "");
}

pub(super) fn transactions(etcdctl: &mut Etcdctl) {
    for script in [
        "value(\"a\") = \"8\"\n\nput a 9\nget a\n\nput a no\n\n",
        "value(\"a\") = \"8\"\n\nput a no\n\nget a\nget --prefix a\ndel ab\n\n",
        "mod(\"a\") > \"1\"\nver(\"none\") = \"0\"\n\nput none 1\n\n\n",
        "create(\"none\") = \"0\"\n\n\nput none 2\nget none\ndel none --prev-kv\n\n",
        "\n\nput a 1\nput a 2\n\n\n",
        "ver(\"\") = \"0\"\n\n\n\n",
        "nonsense\n\n\n\n",
    ] {
        etcdctl.run_with("txn", script);
    }
    etcdctl.run_with("txn -w json", "\nput a 10\nget a\n\n\n");
}

pub(super) fn leases(etcdctl: &mut Etcdctl) {
    let granted = etcdctl.run("lease grant 600");
    let id = granted.split(' ').nth(1).unwrap_or_default().to_owned();
    for command in [
        "put held 1 --lease=ID",
        "lease timetolive ID",
        "lease timetolive ID --keys",
        "lease timetolive ID --keys -w json",
        "lease keep-alive --once ID",
        "lease list",
        // etcd tells several keys in no order.
        "put held/2 1 --lease=ID",
        "put a 10 --lease=ID",
        "put a 11 --ignore-lease",
        "lease revoke ID",
        "lease revoke ID",
        "lease timetolive ID",
        "lease keep-alive --once ID",
        "lease list",
        "get held --prefix",
        "lease grant 0",
        "lease grant 9000000001",
        "lease grant nothing",
        "put a 1 --lease=ID",
    ] {
        etcdctl.run(&command.replace("ID", &id));
    }
    etcdctl.run("put a 12");
}

pub(super) fn watches(etcdctl: &mut Etcdctl) {
    // It reads the past, then what happens now.
    let is_end = |line: &str| line == "the-end";
    etcdctl.run_until("watch a --rev=2 --prefix --prev-kv", is_end, |etcdctl| {
        etcdctl.run("put a/end the-end");
    });
    let is_last = |line: &str| line == "12";
    etcdctl.run_until("watch a --rev=2", is_last, |_| {});
    etcdctl.run_until("watch --rev=3 --prev-kv a b", is_end, |_| {});
    etcdctl.run_until("watch a --rev=2 -w json", |_| true, |_| {});
}

pub(super) fn compaction(etcdctl: &mut Etcdctl) {
    for command in [
        "compaction 10",
        "compaction 10",
        "compaction 1000",
        "compaction nothing",
        "compaction",
        "get a --rev=9",
        "get a --rev=10",
        "watch a --rev=3",
        "compaction 20 --physical",
        "get a --rev=12",
    ] {
        etcdctl.run(command);
    }
}

pub(super) fn locks(etcdctl: &mut Etcdctl) {
    etcdctl.run_args(
        &[
            "lock",
            "name",
            "sh",
            "-c",
            "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV",
        ],
        "",
    );
    etcdctl.run_args(&["lock", "name", "--ttl=5", "echo", "held"], "");
    etcdctl.run_until("lock name", |_| true, |_| {});
    etcdctl.run("get name --prefix");
    let is_value = |line: &str| line == "me";
    etcdctl.run_until("elect race me", is_value, |etcdctl| {
        etcdctl.run_until("elect -l race", is_value, |_| {});
    });
    etcdctl.run("get race --prefix");
}

pub(super) fn maintenance(etcdctl: &mut Etcdctl) {
    for command in ["alarm list", "alarm disarm", "endpoint health"] {
        etcdctl.run(command);
    }
}

pub(super) fn users(etcdctl: &mut Etcdctl) {
    for command in [
        "user list",
        "role list",
        "auth enable",
        "user add root:p",
        "user add root:p",
        "user add ann:p",
        "user add bob --no-password",
        "role add root",
        "role add reader",
        "role add reader",
        "role grant-permission reader read a",
        "role grant-permission reader readwrite c/ --prefix",
        "role grant-permission reader write x z",
        "role grant-permission reader read q --from-key",
        "role grant-permission nobody read a",
        "role grant-permission reader nothing a",
        "role get reader",
        "role get nobody",
        "role get reader -w json",
        "user grant-role root root",
        "user grant-role ann reader",
        "user grant-role ann nobody",
        "user grant-role nobody reader",
        "user get ann",
        "user get ann --detail",
        "user get nobody",
        "user list -w json",
        "auth enable",
        "get a",
        "get a --user=ann:p",
        "get a --user=ann:q",
        "get a --user=nobody:p",
        "get b --user=ann:p",
        "get a b --user=ann:p",
        "put c/1 1 --user=ann:p",
        "put a 1 --user=ann:p",
        "del a --user=ann:p",
        "put x/1 1 --prev-kv --user=ann:p",
        "user list --user=ann:p",
        "user get ann --user=ann:p",
        "role get reader --user=ann:p",
        "user add eve:p --user=ann:p",
        "lease grant 60 --user=ann:p",
        "role revoke-permission reader a --user=root:p",
        "role revoke-permission reader a --user=root:p",
        "role revoke-permission reader x z --user=root:p",
        "get a --user=ann:p",
        "user revoke-role ann reader --user=root:p",
        "user revoke-role ann reader --user=root:p",
        "user revoke-role root root --user=root:p",
        "role delete reader --user=root:p",
        "role delete root --user=root:p",
        "user delete ann --user=root:p",
        "user delete root --user=root:p",
        "user list --user=root:p",
        "role list --user=root:p",
    ] {
        etcdctl.run(command);
    }
    etcdctl.run_with("user add eve --interactive=false --user=root:p", "secret\n");
    etcdctl.run_with(
        "user passwd eve --interactive=false --user=root:p",
        "other\n",
    );
    for command in [
        "get a --user=eve:secret",
        "get a --user=eve:other",
        "auth disable --user=eve:other",
        "auth disable --user=root:p",
        "auth disable",
        "get a",
    ] {
        etcdctl.run(command);
    }
}
