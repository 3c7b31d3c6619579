//! Steps about the cluster itself, and what others have put into it.

use std::collections::BTreeSet;

use pac_pipelines::model::RepositoryView;
use pac_pipelines::policy::Policies;
use pac_pipelines::vocabulary::LIMIT;
use serde_json::{Value, json};

use super::super::api::{ACCESS_REVIEW, ClusterAccess, POLICY_VERSION, Place, REPOSITORY, RUN};
use super::super::apply::policies_are_served;
use super::super::canary::{self, Canary};
use super::super::error::InstallErrorKind;
use super::super::options::{Install, InstallMode};
use super::super::queues;
use super::super::rbac::{self, Permission};
use super::super::runs::some_of;
use super::super::webhook;
use super::{CheckOptions, CheckResult, Examined, ok, skipped, wrong};

pub(super) async fn server(access: &ClusterAccess) -> Examined {
    let version = access.version().await?;
    ok(format!("Kubernetes {}", version.trim_start_matches('v')))
}

pub(super) async fn policies_served(access: &ClusterAccess, install: &Install) -> Examined {
    if !install.webhook().is_empty() {
        return skipped("a webhook is in their place");
    }
    if install.policies().is_empty() {
        return skipped("the mode observe needs no policy");
    }
    policies_are_served(access, install).await?;
    ok(format!("MutatingAdmissionPolicy of {POLICY_VERSION}"))
}

pub(super) async fn definitions(access: &ClusterAccess, install: &Install) -> Examined {
    for (kind, whose) in [(RUN, "Tekton"), (REPOSITORY, "Pipelines-as-Code")] {
        let served = access.served(kind.api_version).await?;
        if !served.iter().any(|plural| plural == kind.plural) {
            let message = format!("the cluster does not serve them; install {whose} first");
            return wrong(format!("{} of {}", kind.plural, kind.api_version), message);
        }
    }
    let mut found = format!("{} and {}", RUN.api_version, REPOSITORY.api_version);
    if install.shows_queues() {
        let served = access.served(queues::OBJECTS).await?;
        if !served.iter().any(|plural| plural == queues::SERVED) {
            let message = "is not there, and no queue is shown; apply it: pac kubernetes install \
                           --queues --apply";
            return wrong(
                format!("CustomResourceDefinition {}", queues::DEFINITION),
                message,
            );
        }
        found.push_str(&format!(", and {}", queues::OBJECTS));
    }
    ok(found)
}

pub(super) async fn permissions(access: &ClusterAccess, install: &Install) -> Examined {
    let mut missing = Vec::new();
    let mut asked = 0;
    for (account, permission, namespace) in needed(install) {
        for verb in permission.verbs {
            let review = review(install, account, permission, namespace, verb);
            let answer = access
                .create(Place::new(ACCESS_REVIEW, None, ""), review, false)
                .await;
            let answer = match answer {
                Err(error) if error.kind() == InstallErrorKind::Unauthorised => {
                    return skipped(format!(
                        "this account may not ask what another one may do: {}",
                        error.message()
                    ));
                }
                answer => answer?,
            };
            asked += 1;
            if answer.pointer("/status/allowed").and_then(Value::as_bool) != Some(true) {
                missing.push((account, format!("{verb} {}", permission.resource)));
            }
        }
    }
    let Some((account, _)) = missing.first().cloned() else {
        return ok(match install.webhook().is_empty() {
            true => format!("the controller's account may do all {asked} things that it needs"),
            false => format!(
                "the accounts of the controller and the webhook may do all {asked} things that they \
                 need"
            ),
        });
    };
    missing.retain(|(of, _)| *of == account);
    let missing: Vec<String> = missing.into_iter().map(|(_, what)| what).collect();
    let account = format!("ServiceAccount {}/{account}", install.namespace);
    let message = format!(
        "may not {}; apply the roles and bindings again: pac kubernetes install --apply",
        some_of(&missing)
    );
    wrong(account, message)
}

/// What each account has to be allowed, and in which namespace; `None` for all of them.
fn needed(install: &Install) -> Vec<(&'static str, Permission, Option<&str>)> {
    let own = Some(install.namespace.as_str());
    let mut needed = Vec::new();
    let everywhere = rbac::cluster_wide(install).into_iter();
    needed.extend(everywhere.map(|one| (Install::NAME, one, None)));
    needed.extend(rbac::own_namespace().map(|one| (Install::NAME, one, own)));
    if !install.webhook().is_empty() {
        let everywhere = webhook::cluster_wide(install).into_iter();
        needed.extend(everywhere.map(|one| (Install::WEBHOOK, one, None)));
        let in_its_own = webhook::own_namespace(install).into_iter();
        needed.extend(in_its_own.map(|one| (Install::WEBHOOK, one, own)));
    }
    needed
}

/// Asks whether an account, which is another one than ours, may do something.
fn review(
    install: &Install,
    account: &str,
    permission: Permission,
    namespace: Option<&str>,
    verb: &str,
) -> Value {
    let account = format!("system:serviceaccount:{}:{account}", install.namespace);
    let of_namespace = format!("system:serviceaccounts:{}", install.namespace);
    json!({
        "apiVersion": ACCESS_REVIEW.api_version,
        "kind": ACCESS_REVIEW.name,
        "metadata": {},
        "spec": {
            "user": account,
            "groups": ["system:serviceaccounts", of_namespace, "system:authenticated"],
            "resourceAttributes": {
                "group": permission.group,
                "resource": permission.resource,
                "name": permission.name.unwrap_or_default(),
                "namespace": namespace.unwrap_or_default(),
                "verb": verb,
            },
        },
    })
}

pub(super) async fn repositories(access: &ClusterAccess, install: &Install) -> Examined {
    let place = Place::new(REPOSITORY, None, "");
    let keep = |object: &Value| {
        let text = |field: &str| {
            let text = object.pointer(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let key = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        let annotations = object.pointer("/metadata/annotations");
        let ours = annotations.is_some_and(|annotations| annotations.get(LIMIT).is_some());
        let of_pac = object
            .pointer("/spec/concurrency_limit")
            .and_then(Value::as_i64);
        let (fault, passed_over) = match RepositoryView::from_json(&object.to_string()) {
            Ok(view) => (None, Policies::faults(&view)),
            Err(fault) => (Some(fault.to_string()), Vec::new()),
        };
        let is_of_pac = of_pac.is_some_and(|limit| limit != 0);
        Some((key, is_of_pac, ours, fault, passed_over))
    };
    let all = access.list(place, "", keep).await?;
    let faults: Vec<_> = all.iter().filter_map(|one| one.3.clone()).collect();
    if !faults.is_empty() {
        let faults = some_of(&faults);
        let message = format!("cannot be understood, so that their runs wait: {faults}");
        return wrong("Repositories", message);
    }
    let keys = |pac: bool, ours: bool| -> Vec<String> {
        let are = all.iter().filter(|one| (one.1, one.2) == (pac, ours));
        are.map(|one| one.0.clone()).collect()
    };
    let in_two = keys(true, true);
    if !in_two.is_empty() {
        let message = format!(
            "{} have both spec.concurrency_limit and the annotation {LIMIT}: two queues would start \
             their runs; remove one of them",
            some_of(&in_two)
        );
        return wrong("Repositories", message);
    }
    let of_mode = match install.mode {
        InstallMode::Takeover => Some((keys(true, false), keys(false, true), LIMIT)),
        InstallMode::Gate => Some((
            keys(false, true),
            keys(true, false),
            "spec.concurrency_limit",
        )),
        InstallMode::Observe => None,
    };
    if let Some((_, of_other, other)) = &of_mode
        && !of_other.is_empty()
    {
        let message = format!(
            "{} have {other}, which is not how the mode {} sets a limit; set it the other way, or \
             install the other mode",
            some_of(of_other),
            install.mode.name()
        );
        return wrong("Repositories", message);
    }
    // Last: a value that is passed over hides nothing that is worse.
    let absent = all.iter().flat_map(|one| &one.4);
    let absent: Vec<_> = absent.map(ToString::to_string).collect();
    if !absent.is_empty() {
        let message = format!("annotations are passed over: {}", some_of(&absent));
        return wrong("Repositories", message);
    }
    let count = all.len();
    ok(match of_mode {
        Some((limited, ..)) => format!(
            "{count} Repositories, {} with a limit of their own",
            limited.len()
        ),
        None => format!("{count} Repositories"),
    })
}

pub(super) async fn canary(
    access: &ClusterAccess,
    install: &Install,
    options: &CheckOptions,
) -> Examined {
    let Some(namespace) = options.canary.as_deref() else {
        return skipped("not asked for; --canary NAMESPACE creates a held run and looks at it");
    };
    if install.excluded_namespaces.contains(namespace) {
        return skipped(format!(
            "the policies leave {namespace} alone; choose another namespace"
        ));
    }
    let subject = format!("canary in {namespace}");
    if install.mode == InstallMode::Takeover && !canary::policy_acts(access, namespace).await? {
        let message = "the policy does not move the execution order of a new run; see the step \
                       policies, and look whether a namespace or an object selector was changed";
        return wrong(subject, message);
    }
    let Some(repository) = canary::repository(access, namespace).await? else {
        return skipped(format!(
            "there is no Repository in {namespace}; choose another namespace"
        ));
    };
    let time = options.canary_time;
    match canary::watch(access, namespace, &repository, time).await? {
        Canary::StayedPending => ok(format!(
            "a held run of {namespace}/{repository} stayed pending for {} s",
            time.as_secs()
        )),
        Canary::StartedByUs(token) => Ok(CheckResult::Skipped(format!(
            "a controller started the canary, with token {token}: an older version runs, which does \
             not know the label of canaries; install this version first"
        ))),
        Canary::StartedByOthers => wrong(
            subject,
            "something else than the controller started a held run: this version of \
             Pipelines-as-Code does not need the execution order any more, or another queue acts \
             here; off-board, and use the mode gate",
        ),
        Canary::Gone => wrong(
            subject,
            "something deleted the canary; find out what, and try again",
        ),
    }
}

/// Namespaces that hold a Repository, in which a dry run can be made.
pub(in super::super) async fn namespaces(
    access: &ClusterAccess,
    install: &Install,
) -> Result<BTreeSet<String>, super::InstallError> {
    let keep = |object: &Value| {
        let namespace = object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)?;
        Some(namespace.to_owned()).filter(|name| !install.excluded_namespaces.contains(name))
    };
    let all = access
        .list(Place::new(REPOSITORY, None, ""), "", keep)
        .await?;
    Ok(all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use kube::Client;
    use kube::client::Body;
    use tower_test::mock;

    use super::*;

    /// Answers each review with what `answer` makes of its attributes: a status and a body.
    async fn examined(answer: impl Fn(&Value) -> (u16, Value) + Send + 'static) -> Examined {
        let (service, mut requests) = mock::pair();
        let answering = tokio::spawn(async move {
            while let Some((request, send)) = requests.next_request().await {
                let request: http::Request<Body> = request;
                assert_eq!(
                    request.uri().path(),
                    "/apis/authorization.k8s.io/v1/subjectaccessreviews"
                );
                let body = request.into_body().collect_bytes().await.unwrap();
                let review: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(review["metadata"], json!({}));
                assert_eq!(
                    review["spec"]["user"],
                    "system:serviceaccount:pac-concurrency:pac-concurrency"
                );
                let (status, body) = answer(&review["spec"]["resourceAttributes"]);
                let response = http::Response::builder().status(status);
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                send.send_response(response.body(body).unwrap());
            }
        });
        let access = ClusterAccess::with(Client::new(service, "default"));
        let result = permissions(&access, &Install::default()).await;
        answering.abort();
        result
    }

    fn allowed(allowed: bool) -> (u16, Value) {
        let review = json!({
            "apiVersion": ACCESS_REVIEW.api_version, "kind": ACCESS_REVIEW.name, "metadata": {},
            "status": {"allowed": allowed},
        });
        (201, review)
    }

    #[tokio::test]
    async fn what_the_account_of_the_controller_may_not_do_is_named() {
        let all = examined(|_| allowed(true)).await;
        assert!(
            matches!(&all, Ok(CheckResult::Ok(detail)) if detail.contains("13 things")),
            "{all:?}"
        );
        let patch = examined(|asked| allowed(asked["verb"] != "patch"))
            .await
            .unwrap_err();
        assert!(
            patch
                .to_string()
                .contains("may not patch pipelineruns, patch events;"),
            "{patch}"
        );
    }

    #[tokio::test]
    async fn an_account_that_may_not_ask_is_told_so() {
        let forbidden = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": "no",
        });
        let result = examined(move |_| (403, forbidden.clone())).await;
        assert!(
            matches!(&result, Ok(CheckResult::Skipped(why)) if why.contains("may not ask")),
            "{result:?}"
        );
    }
}
