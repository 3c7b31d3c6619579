//! The changes that are asked for, as patches. Pure.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, TestOperation};
use pac_core::{FencingToken, Uid};
use pac_pipelines::model::SpecStatus;
use pac_pipelines::vocabulary;
use serde_json::{Map, Value, json};

/// The start of a run: where the object has this uid and is pending, `spec.status` is removed and
/// the token is written. A JSON patch, so that all of it is done or nothing.
pub(crate) fn start(uid: &Uid, token: FencingToken) -> json_patch::Patch {
    let mut operations = is_pending(uid);
    let place = ["metadata", "annotations", vocabulary::TOKEN];
    operations.push(add(&place, token.to_string().into()));
    json_patch::Patch(operations)
}

/// The same for an object without any annotation, where the map has to be made first: only where it
/// is still at this version, since another writer may make the map meanwhile.
pub(crate) fn start_without_annotations(
    uid: &Uid,
    token: FencingToken,
    version: &str,
) -> json_patch::Patch {
    let mut operations = is_pending(uid);
    operations.insert(0, test(&["metadata", "resourceVersion"], version.into()));
    let map = json!({vocabulary::TOKEN: token.to_string()});
    operations.push(add(&["metadata", "annotations"], map));
    json_patch::Patch(operations)
}

/// Writes the position of a run that is held back. Once it has started, nothing is written: whatever
/// order the patches of a position and of the start arrive in, no position stays.
pub(crate) fn position(uid: &Uid, position: usize) -> json_patch::Patch {
    json_patch::Patch(vec![
        test(&["metadata", "uid"], uid.as_str().into()),
        test(&["spec", "status"], vocabulary::PENDING.into()),
        add(
            &["metadata", "annotations", vocabulary::POSITION],
            position.to_string().into(),
        ),
    ])
}

/// Holds a run back, where it still is as it was read.
pub(crate) fn hold(uid: &Uid, version: &str) -> Value {
    json!({
        "metadata": {
            "uid": uid.as_str(),
            "resourceVersion": version,
            "annotations": {vocabulary::HELD: "true"},
        },
        "spec": {"status": vocabulary::PENDING},
    })
}

/// Ends a run, where it still is as it was read.
pub(crate) fn end(uid: &Uid, version: &str, form: &SpecStatus) -> Value {
    json!({
        "metadata": {"uid": uid.as_str(), "resourceVersion": version},
        "spec": {"status": form.as_str()},
    })
}

/// Writes and removes annotations. A merge patch makes the map where there is none, and removes
/// what is not there; the uid in it is a condition, since a uid cannot be changed.
pub(crate) fn annotate(uid: &Uid, annotations: &[(&str, Option<&str>)]) -> Value {
    let annotations: Map<String, Value> = annotations
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    json!({"metadata": {"uid": uid.as_str(), "annotations": annotations}})
}

/// The same where the object still is as it was read: what is written depends on what was there.
pub(crate) fn annotate_version(
    uid: &Uid,
    version: &str,
    annotations: &[(&str, Option<&str>)],
) -> Value {
    let mut patch = annotate(uid, annotations);
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), version.into());
    }
    patch
}

fn is_pending(uid: &Uid) -> Vec<PatchOperation> {
    let status = ["spec", "status"];
    vec![
        test(&["metadata", "uid"], uid.as_str().into()),
        test(&status, vocabulary::PENDING.into()),
        remove(&status),
    ]
}

/// An operation that fails unless this value is at this place.
pub(crate) fn test(place: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(place.iter().copied());
    PatchOperation::Test(TestOperation { path, value })
}

/// An operation that writes this value at this place.
pub(crate) fn add(place: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(place.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

/// An operation that removes what is at this place.
pub(crate) fn remove(place: &[&str]) -> PatchOperation {
    let path = PointerBuf::from_tokens(place.iter().copied());
    PatchOperation::Remove(RemoveOperation { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_s_name_is_escaped_in_a_pointer() {
        let patch = start(&"u".parse().unwrap(), FencingToken::new(7));
        let text = serde_json::to_string(&patch).unwrap();
        assert_eq!(
            text,
            "[{\"op\":\"test\",\"path\":\"/metadata/uid\",\"value\":\"u\"},\
             {\"op\":\"test\",\"path\":\"/spec/status\",\"value\":\"PipelineRunPending\"},\
             {\"op\":\"remove\",\"path\":\"/spec/status\"},\
             {\"op\":\"add\",\"path\":\"/metadata/annotations/concurrency.pipelinesascode.tekton.dev\
             ~1fencing-token\",\"value\":\"7\"}]"
        );
    }

    #[test]
    fn a_slash_in_a_key_is_escaped_in_a_path() {
        let operation = remove(&["metadata", "annotations", "a.b/c~d"]);
        let path = operation.path().to_string();
        assert_eq!(path, "/metadata/annotations/a.b~1c~0d");
    }

    #[test]
    fn a_patch_does_what_it_says_to_an_object_that_it_fits() {
        let pending = json!({"metadata": {"uid": "u", "resourceVersion": "7"},
            "spec": {"status": "PipelineRunPending", "params": []}});
        let uid = "u".parse().unwrap();
        let mut object = pending.clone();
        let plain = start(&uid, FencingToken::new(7));
        assert!(
            json_patch::patch(&mut object, &plain).is_err(),
            "it has no annotations"
        );
        let mut object = pending.clone();
        let whole = start_without_annotations(&uid, FencingToken::new(7), "7");
        json_patch::patch(&mut object, &whole).unwrap();
        assert_eq!(object["metadata"]["annotations"][vocabulary::TOKEN], "7");
        assert_eq!(object["spec"], json!({"params": []}));
        for (uid, version) in [("other", "7"), ("u", "8")] {
            let patch =
                start_without_annotations(&uid.parse().unwrap(), FencingToken::new(7), version);
            assert!(
                json_patch::patch(&mut pending.clone(), &patch).is_err(),
                "{uid} {version}"
            );
        }
    }

    #[test]
    fn annotations_are_written_and_removed_by_name() {
        let patch = annotate(&"u".parse().unwrap(), &[("a/b", Some("1")), ("c", None)]);
        let expected = json!({"metadata": {"uid": "u", "annotations": {"a/b": "1", "c": null}}});
        assert_eq!(patch, expected);
        let patch = annotate_version(&"u".parse().unwrap(), "7", &[("a/b", Some("1"))]);
        let expected =
            json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"a/b": "1"}}});
        assert_eq!(patch, expected);
    }
}
