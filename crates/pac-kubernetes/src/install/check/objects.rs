//! Steps about the objects of the installation.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::api::{BINDING, CONFIG_MAP, ClusterAccess, DEPLOYMENT, POLICY, Place, SECRET};
use super::super::compare::difference;
use super::super::error::{InstallError, InstallErrorKind};
use super::super::options::{Install, InstallMode};
use super::super::policies::NAMES;
use super::super::settings::EXAMPLE;
use super::{Examined, FoundSettings, JudgeSettings, ok, skipped, wrong};

pub(super) async fn policies(access: &ClusterAccess, install: &Install) -> Examined {
    let wanted = install.policies();
    for manifest in &wanted {
        let Some(found) = access.get(Place::of(manifest)?).await? else {
            return wrong(
                manifest,
                "is not there; apply it: pac kubernetes install --apply",
            );
        };
        let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
        if let Some(path) = difference(&spec(manifest.as_value()), &spec(&found)) {
            let message = format!(
                "its spec.{path} is not what this version installs; apply it again: pac kubernetes \
                 install --apply"
            );
            return wrong(manifest, message);
        }
    }
    for name in NAMES {
        let is_wanted = wanted.iter().any(|manifest| manifest.name() == name);
        for kind in [BINDING, POLICY] {
            let place = Place::new(kind, None, name);
            if !is_wanted && access.get(place).await?.is_some() {
                let message = format!(
                    "is there, and is not of the mode {} as it is asked for; remove it, or give the \
                     options that it was installed with",
                    install.mode.name()
                );
                return wrong(place, message);
            }
        }
    }
    match wanted.len() / 2 {
        0 => ok("none, as the mode observe needs none"),
        1 => ok("the policy and its binding are as this version installs them"),
        more => ok(format!(
            "{more} policies and their bindings are as this version installs them"
        )),
    }
}

pub(super) async fn controller(access: &ClusterAccess, install: &Install) -> Examined {
    let place = Place::new(DEPLOYMENT, install.namespace.as_str(), Install::NAME);
    let Some(found) = access.get(place).await? else {
        return wrong(
            place,
            "is not there; apply it: pac kubernetes install --apply",
        );
    };
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (wanted, ready) = (number("/spec/replicas"), number("/status/readyReplicas"));
    if wanted > 0 && ready == 0 {
        let message = format!(
            "none of its {wanted} replicas is ready, and held runs wait; see kubectl describe pods \
             --namespace={} and their logs",
            install.namespace
        );
        return wrong(place, message);
    }
    if wanted == 0 && install.mode != InstallMode::Observe {
        let message = format!(
            "is scaled to 0, and held runs wait: kubectl scale deployment/{} --namespace={} \
             --replicas={}",
            Install::NAME,
            install.namespace,
            install.replicas.max(1)
        );
        return wrong(place, message);
    }
    ok(format!("{ready} of {wanted} replicas are ready"))
}

pub(super) async fn settings(
    access: &ClusterAccess,
    install: &Install,
    judge: JudgeSettings<'_>,
) -> Examined {
    let namespace = install.namespace.as_str();
    let place = Place::new(CONFIG_MAP, namespace, Install::CONFIG_MAP);
    let Some(config_map) = access.get(place).await? else {
        let message =
            "is not there, and no pod starts without it; docs/deploy/configmap.yaml is one";
        return wrong(place, message);
    };
    let mut found = FoundSettings {
        config_map: data(&config_map).collect(),
        ..FoundSettings::default()
    };
    let example = found.config_map.iter().find(|(key, value)| {
        (key.starts_with("postgresql-") || key.starts_with("etcd-")) && value.contains(EXAMPLE)
    });
    if let Some((key, _)) = example {
        let message =
            format!("its {key} is still the example; put the address of your store there");
        return wrong(place, message);
    }
    let place = Place::new(SECRET, namespace, Install::SECRET);
    let secret = match access.get(place).await {
        Err(error) if error.kind() == InstallErrorKind::Unauthorised => {
            return skipped(format!("this account may not read {place}"));
        }
        secret => secret?,
    };
    let Some(secret) = secret else {
        let message = format!(
            "is not there, and no pod starts without it: {}",
            install.secret_command()
        );
        return wrong(place, message);
    };
    found.secret = decoded(place, &secret)?;
    match judge(found) {
        Ok(summary) => ok(summary),
        Err(problems) => wrong("settings", problems),
    }
}

fn data(object: &Value) -> impl Iterator<Item = (String, String)> {
    let data = object.get("data").and_then(Value::as_object);
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    data.into_iter().flatten().filter_map(pair)
}

fn decoded(place: Place<'_>, secret: &Value) -> Result<BTreeMap<String, String>, InstallError> {
    let decode = |(key, value): (String, String)| {
        let text = STANDARD.decode(value).ok().map(String::from_utf8);
        match text {
            Some(Ok(text)) => Ok((key, text)),
            _ => {
                let message = format!("its {key} is not base64 of a text");
                Err(InstallError::new(InstallErrorKind::Unsafe, place, message))
            }
        }
    };
    // What others keep in it may be anything.
    let ours = |key: &str| key.starts_with("postgresql-") || key.starts_with("etcd-");
    data(secret)
        .filter(|(key, _)| ours(key))
        .map(decode)
        .collect()
}
