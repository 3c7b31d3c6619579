//! An installation from its beginning to its end, over HTTP against an API server for tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/pac.rs"]
mod pac;

use std::time::Duration;

use pac_kubernetes::install::{
    CheckOptions, CheckResult, CheckStep, ClusterAccess, FoundSettings, HandoverOptions, Install,
    InstallError, InstallErrorKind, InstallMode, ObjectOutcome, apply, check, offboard, onboard,
    remove,
};
use pac_kubernetes_mock::{ApiServer, Fault, Handle, Requests, Verb};
use pac_pipelines::vocabulary::{
    EXECUTION_ORDER, LIMIT, MANAGED_BY, ORDER, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING,
    REPOSITORY, SECTION_LIMITS, STATE, TOKEN, WEIGHT,
};
use serde_json::{Value, json};

use pac::{PAC, TAKEOVER, WATCHER, server_with_pac};

/// A cluster with Pipelines-as-Code, whose watcher is up, and one Repository `ci/website`.
struct World {
    server: ApiServer,
    access: ClusterAccess,
    install: Install,
}

impl World {
    async fn new() -> Self {
        let server = server_with_pac().await;
        let pod = json!({
            "metadata": {"namespace": PAC, "name": "watcher-1", "labels": {"app": "watcher"}},
        });
        server.handle().create("pods", pod).unwrap();
        let access = ClusterAccess::at(server.url()).unwrap();
        Self {
            server,
            access,
            install: Install::default(),
        }
    }

    fn objects(&self) -> Handle {
        self.server.handle()
    }

    async fn apply(&self) -> Result<Vec<ObjectOutcome>, InstallError> {
        let mut outcomes = Vec::new();
        apply(&self.access, &self.install, &mut |_, outcome| {
            outcomes.push(outcome);
        })
        .await?;
        Ok(outcomes)
    }

    async fn remove(&self) -> Result<Vec<ObjectOutcome>, InstallError> {
        let mut outcomes = Vec::new();
        remove(&self.access, &self.install, false, &mut |_, outcome| {
            outcomes.push(outcome);
        })
        .await?;
        Ok(outcomes)
    }

    async fn onboard(&self, options: &HandoverOptions) -> Result<(), InstallError> {
        onboard(&self.access, &self.install, options, &mut |_, _, _| {}).await
    }

    /// What the steps said.
    async fn offboard(&self, options: &HandoverOptions) -> Result<Vec<String>, InstallError> {
        let mut said = Vec::new();
        offboard(
            &self.access,
            &self.install,
            options,
            &mut |step, outcome, detail| {
                said.push(format!("{} {step}: {detail}", outcome.name()));
            },
        )
        .await?;
        Ok(said)
    }

    async fn check(&self, step: CheckStep, options: &CheckOptions) -> CheckResult {
        let judge = |found: FoundSettings| match found.secret.get("postgresql-password") {
            Some(password) if password == "hunter2" => Ok("right".to_owned()),
            _ => Err("no password".to_owned()),
        };
        let results = check(&self.access, &self.install, options, &judge).await;
        let found = results.into_iter().find(|(one, _)| *one == step);
        found.unwrap().1
    }

    async fn failure(&self, step: CheckStep) -> String {
        match self.check(step, &CheckOptions::default()).await {
            CheckResult::Failed(error) => error.to_string(),
            other => panic!("{step:?}: {other:?}"),
        }
    }

    async fn is_ok(&self, step: CheckStep) {
        let result = self.check(step, &CheckOptions::default()).await;
        assert!(matches!(result, CheckResult::Ok(_)), "{step:?}: {result:?}");
    }

    fn stop_watcher(&self) {
        let stopped = json!({"spec": {"replicas": 0}});
        self.objects()
            .merge("deployments", PAC, WATCHER, stopped)
            .unwrap();
        self.objects().delete("pods", PAC, "watcher-1").unwrap();
    }

    /// A run of Pipelines-as-Code with these annotations.
    fn run(&self, name: &str, status: &str, annotations: &[(&str, &str)]) {
        let mut all = json!({REPOSITORY: "website"});
        for (key, value) in annotations {
            all[*key] = json!(value);
        }
        let run = json!({
            "metadata": {
                "namespace": "ci", "name": name, "labels": {MANAGED_BY: PAC_MANAGER},
                "annotations": all,
            },
            "spec": {"status": status},
        });
        self.objects().create("pipelineruns", run).unwrap();
    }

    fn annotation(&self, run: &str, key: &str) -> Option<String> {
        let run = self.objects().get("pipelineruns", "ci", run).unwrap();
        run["metadata"]["annotations"][key]
            .as_str()
            .map(str::to_owned)
    }

    fn policies(&self) -> usize {
        let all = |plural: &str| self.objects().list(plural, "", "").unwrap().len();
        all("mutatingadmissionpolicies") + all("mutatingadmissionpolicybindings")
    }
}

#[tokio::test]
async fn what_is_installed_is_found_right_kept_up_to_date_and_removed() {
    let world = World::new().await;
    let missing = world.failure(CheckStep::Policies).await;
    assert!(
        missing.contains(TAKEOVER) && missing.contains("install --apply"),
        "{missing}"
    );

    let created = world.apply().await.unwrap();
    assert!(
        created.iter().all(|one| *one == ObjectOutcome::Created),
        "{created:?}"
    );
    for step in [
        CheckStep::Server,
        CheckStep::PoliciesServed,
        CheckStep::Definitions,
        CheckStep::Policies,
        CheckStep::Repositories,
    ] {
        world.is_ok(step).await;
    }

    // No replica is ready, the address is an example, and there is no Secret.
    assert!(world.failure(CheckStep::Controller).await.contains("ready"));
    let namespace = Install::NAMESPACE;
    let ready = json!({"status": {"readyReplicas": 2}});
    world
        .objects()
        .merge_status("deployments", namespace, Install::NAME, ready)
        .unwrap();
    world.is_ok(CheckStep::Controller).await;
    assert!(
        world
            .failure(CheckStep::Settings)
            .await
            .contains("postgresql-host is still the example")
    );
    let filled_in = json!({"data": {"postgresql-host": "db"}});
    let config_map = ("configmaps", namespace, Install::CONFIG_MAP);
    world
        .objects()
        .merge(config_map.0, config_map.1, config_map.2, filled_in)
        .unwrap();
    assert!(
        world
            .failure(CheckStep::Settings)
            .await
            .contains("kubectl create secret generic")
    );
    let secret = json!({
        "metadata": {"namespace": namespace, "name": Install::SECRET},
        "data": {"postgresql-password": "aHVudGVyMg=="},
    });
    world.objects().create("secrets", secret).unwrap();
    world.is_ok(CheckStep::Settings).await;

    // Again: nothing changes, and what was filled in stays. What was changed is put right.
    let again = world.apply().await.unwrap();
    let kept = [ObjectOutcome::Unchanged, ObjectOutcome::Kept];
    assert!(again.iter().all(|one| kept.contains(one)), "{again:?}");
    let spec = json!({"spec": {"failurePolicy": "Fail"}});
    world
        .objects()
        .merge("mutatingadmissionpolicies", "", TAKEOVER, spec)
        .unwrap();
    assert!(
        world
            .failure(CheckStep::Policies)
            .await
            .contains("spec.failurePolicy")
    );
    assert!(
        world
            .apply()
            .await
            .unwrap()
            .contains(&ObjectOutcome::Changed)
    );
    world.is_ok(CheckStep::Policies).await;

    let removed = world.remove().await.unwrap();
    let gone = |one: &&ObjectOutcome| **one == ObjectOutcome::Removed;
    let count = removed.iter().filter(gone).count();
    assert_eq!(count, world.install.manifests().len(), "{removed:?}");
    assert_eq!(world.policies(), 0);
    let again = world.remove().await.unwrap();
    assert!(
        again.iter().all(|one| *one == ObjectOutcome::Absent),
        "{again:?}"
    );
}

/// An answer that was lost is not asked for again by itself; the command is repeated, and goes on.
#[tokio::test]
async fn a_failure_names_its_object_and_the_next_attempt_goes_on() {
    let world = World::new().await;
    let roles = Requests::any().verb(Verb::Patch).resource("roles");
    world
        .server
        .faults()
        .inject(roles.clone(), 1, Fault::done_then_504());
    let failed = world.apply().await.unwrap_err();
    assert_eq!(failed.kind(), InstallErrorKind::Unavailable);
    assert!(
        failed
            .to_string()
            .starts_with("Role pac-concurrency/pac-concurrency: "),
        "{failed}"
    );
    assert!(
        failed.to_string().contains("run the command again"),
        "{failed}"
    );
    assert_eq!(world.server.count(&roles), 1);
    assert_eq!(world.policies(), 0);
    let again = world.apply().await.unwrap();
    assert_eq!(again[..5], [ObjectOutcome::Unchanged; 5]);
    assert!(again[5..].contains(&ObjectOutcome::Created), "{again:?}");
}

/// Whatever mode is said to be installed: a policy that stays would hold runs for ever.
#[tokio::test]
async fn the_policies_of_another_mode_are_found_and_removed() {
    let mut world = World::new().await;
    world.install = Install::default()
        .with_mode(InstallMode::Gate)
        .with_cancel_at_once(true);
    world.apply().await.unwrap();
    world.is_ok(CheckStep::Policies).await;
    assert!(
        world
            .failure(CheckStep::Repositories)
            .await
            .contains("spec.concurrency_limit")
    );
    assert_eq!(world.policies(), 6);
    world.install = Install::default();
    world.apply().await.unwrap();
    assert!(
        world
            .failure(CheckStep::Policies)
            .await
            .contains("is not of the mode takeover")
    );
    world.remove().await.unwrap();
    assert_eq!(world.policies(), 0);
}

#[tokio::test]
async fn what_belongs_to_others_is_neither_taken_over_nor_removed() {
    let world = World::new().await;
    world
        .objects()
        .create_namespace(Install::NAMESPACE)
        .unwrap();
    let account = json!({"metadata": {"namespace": Install::NAMESPACE, "name": Install::NAME}});
    world.objects().create("serviceaccounts", account).unwrap();
    let refused = world.apply().await.unwrap_err();
    assert_eq!(refused.kind(), InstallErrorKind::Refused);
    assert!(
        refused
            .to_string()
            .starts_with("ServiceAccount pac-concurrency/pac-concurrency: ")
    );
    let removed = world.remove().await.unwrap();
    let theirs = removed
        .iter()
        .filter(|one| **one == ObjectOutcome::NotOurs)
        .count();
    assert_eq!(theirs, 2, "{removed:?}");
}

#[tokio::test]
async fn a_canary_is_looked_at_and_leaves_nothing() {
    let world = World::new().await;
    world.apply().await.unwrap();
    let options = CheckOptions::default()
        .with_canary("ci")
        .with_canary_time(Duration::from_millis(10));
    let result = world.check(CheckStep::Canary, &options).await;
    assert!(
        matches!(&result, CheckResult::Ok(detail) if detail.contains("ci/website")),
        "{result:?}"
    );
    assert_eq!(
        world.objects().list("pipelineruns", "", "").unwrap(),
        [] as [Value; 0]
    );
    world
        .objects()
        .delete("mutatingadmissionpolicybindings", "", TAKEOVER)
        .unwrap();
    let result = world.check(CheckStep::Canary, &options).await;
    let CheckResult::Failed(error) = result else {
        panic!("{result:?}");
    };
    assert!(
        error
            .to_string()
            .contains("does not move the execution order"),
        "{error}"
    );
}

#[tokio::test]
async fn a_repository_in_two_modes_is_named() {
    let world = World::new().await;
    // What is passed over does not hide it.
    let both = json!({"metadata": {"annotations": {LIMIT: "2", WEIGHT: "none"}}});
    world
        .objects()
        .merge("repositories", "ci", "website", both)
        .unwrap();
    let failure = world.failure(CheckStep::Repositories).await;
    assert!(failure.contains("ci/website have both"), "{failure}");
}

#[tokio::test]
async fn annotations_that_are_passed_over_are_named() {
    let world = World::new().await;
    let limits = "gpu=2, staging";
    let bad = json!({"metadata": {"annotations": {
        WEIGHT: "none", ORDER: "lifo", SECTION_LIMITS: limits}}});
    world
        .objects()
        .merge("repositories", "ci", "website", bad)
        .unwrap();
    let failure = world.failure(CheckStep::Repositories).await;
    for annotation in [WEIGHT, ORDER, SECTION_LIMITS] {
        let named = format!("Repository ci/website: metadata.annotations.{annotation}");
        assert!(failure.contains(&named), "{failure}");
    }
}

#[tokio::test]
async fn queues_that_are_not_empty_are_neither_installed_over_nor_left_behind() {
    let world = World::new().await;
    world.run(
        "a",
        PENDING,
        &[(EXECUTION_ORDER, "ci/a"), (STATE, "queued")],
    );
    let refused = world.apply().await.unwrap_err();
    assert_eq!(refused.kind(), InstallErrorKind::Unsafe);
    assert!(refused.to_string().contains("ci/a") && refused.to_string().contains("onboard"));
    assert_eq!(world.policies(), 0);
    world.objects().delete("pipelineruns", "ci", "a").unwrap();

    world.apply().await.unwrap();
    world.run(
        "b",
        PENDING,
        &[(OUR_EXECUTION_ORDER, "ci/b"), (STATE, "queued")],
    );
    let refused = world.remove().await.unwrap_err();
    assert!(refused.to_string().contains("ci/b") && refused.to_string().contains("offboard"));
    assert_eq!(world.policies(), 2);
}

/// As it was tried: with the watcher up it starts d beside the running c, since it does not count
/// c; stopped meanwhile, its rebuild counts c and goes on with d after it.
#[tokio::test]
async fn a_busy_cluster_changes_hands_and_back() {
    let world = World::new().await;
    let order = "ci/c,ci/d";
    world.run("c", "", &[(EXECUTION_ORDER, order), (STATE, "started")]);
    world.run("d", PENDING, &[(EXECUTION_ORDER, order), (STATE, "queued")]);
    let options = HandoverOptions::default().with_apply(true);
    let up = world.onboard(&options).await.unwrap_err();
    assert!(up.to_string().contains("--replicas=0"), "{up}");
    let stopped = json!({"spec": {"replicas": 0}});
    world
        .objects()
        .merge("deployments", PAC, WATCHER, stopped)
        .unwrap();
    let pods = world.onboard(&options).await.unwrap_err();
    assert!(pods.to_string().contains("watcher-1"), "{pods}");
    assert_eq!(world.policies(), 0);
    world.objects().delete("pods", PAC, "watcher-1").unwrap();
    // Without `apply` nothing changes.
    let dry = HandoverOptions::default();
    world.onboard(&dry).await.unwrap();
    assert_eq!(world.policies(), 0);
    world.onboard(&options).await.unwrap();
    for run in ["c", "d"] {
        assert_eq!(
            world.annotation(run, OUR_EXECUTION_ORDER).as_deref(),
            Some(order)
        );
        assert_eq!(world.annotation(run, EXECUTION_ORDER), None);
    }
    world.is_ok(CheckStep::Policies).await;

    // A run that the controller has started, and that the watcher has not seen to run.
    world.run("e", "", &[(TOKEN, "7"), (STATE, "queued")]);
    let unknown = world.offboard(&options).await.map(drop).unwrap_err();
    assert!(unknown.to_string().contains("ci/e"), "{unknown}");
    assert_eq!(world.policies(), 2);
    let seen = json!({"metadata": {"annotations": {STATE: "started"}}});
    world
        .objects()
        .merge("pipelineruns", "ci", "e", seen)
        .unwrap();
    let said = world.offboard(&options).await.unwrap();
    assert!(said.last().unwrap().contains("--replicas=1"), "{said:?}");
    assert_eq!(world.policies(), 0);
    for (run, order) in [("c", order), ("d", order), ("e", "ci/e")] {
        assert_eq!(
            world.annotation(run, EXECUTION_ORDER).as_deref(),
            Some(order),
            "{run}"
        );
        assert_eq!(world.annotation(run, OUR_EXECUTION_ORDER), None);
    }
    let deployment = world
        .objects()
        .get("deployments", Install::NAMESPACE, Install::NAME)
        .unwrap();
    assert_eq!(deployment["spec"]["replicas"], 0);
    world.remove().await.unwrap();
}

#[tokio::test]
async fn nothing_is_given_back_while_the_watcher_is_up_or_cannot_be_found() {
    let world = World::new().await;
    world.apply().await.unwrap();
    world.run(
        "a",
        PENDING,
        &[(OUR_EXECUTION_ORDER, "ci/a"), (STATE, "queued")],
    );
    let options = HandoverOptions::default().with_apply(true);
    let elsewhere = options.clone().with_pac_namespace("ci");
    for options in [&options, &elsewhere] {
        let refused = world.offboard(options).await.map(drop);
        assert_eq!(refused.unwrap_err().subject(), "watcher");
        assert_eq!(world.annotation("a", EXECUTION_ORDER), None);
        assert_eq!(world.policies(), 2);
    }
    world.stop_watcher();
    world.offboard(&options).await.map(drop).unwrap();
    assert_eq!(
        world.annotation("a", EXECUTION_ORDER).as_deref(),
        Some("ci/a")
    );
}
