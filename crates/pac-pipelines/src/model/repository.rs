//! A Repository: whose limit it is.

use std::collections::BTreeMap;

use pac_core::{Limit, RepositoryKey, Timestamp, Uid};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::object::{describe, marks, single, single_json};
use super::time;
use super::version::ResourceVersion;
use crate::error::ModelError;
use crate::vocabulary;

/// A Repository, as far as limits and queues go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryView {
    /// Its namespace and name. Its runs are in the same namespace.
    pub key: RepositoryKey,
    /// Tells it apart from other Repositories of the same name; `None` when it was not read from a
    /// cluster, or is none that can be a uid.
    pub uid: Option<Uid>,
    /// Which state of the object this is; `None` when it was not read from a cluster.
    pub version: Option<ResourceVersion>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// `spec.url`: the repository at the Git provider.
    pub url: Option<String>,
    /// Its own limit: `spec.concurrency_limit`, or else our annotation. `None` where it has none
    /// (0 is none, too): then the global Repository's limit holds.
    pub limit: Option<Limit>,
    /// Whether `spec.concurrency_limit` sets a limit: then Pipelines-as-Code queues its runs, and
    /// where it is the global Repository, those of all Repositories without one of their own.
    pub has_concurrency_limit: bool,
    /// Whether both `spec.concurrency_limit` and our annotation set a limit: the first makes
    /// Pipelines-as-Code queue the runs, the second is for those that it does not queue.
    pub in_two_modes: bool,
    /// The annotations of [`vocabulary::REPOSITORY_ANNOTATIONS`] that it has.
    pub annotations: BTreeMap<String, String>,
}

impl RepositoryView {
    /// A Repository without a limit.
    #[must_use]
    pub fn new(key: RepositoryKey) -> Self {
        Self {
            key,
            uid: None,
            version: None,
            created: None,
            deleting: false,
            url: None,
            limit: None,
            has_concurrency_limit: false,
            in_two_modes: false,
            annotations: BTreeMap::new(),
        }
    }

    /// The same with a `spec.concurrency_limit`; [`Limit::UNLIMITED`] is none.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit).filter(|limit| *limit != Limit::UNLIMITED);
        self.has_concurrency_limit = self.limit.is_some();
        self
    }

    /// Whether our annotation alone sets its limit.
    #[must_use]
    pub fn is_limited_by_annotation(&self) -> bool {
        self.limit.is_some() && !self.has_concurrency_limit
    }

    /// Reads one Repository from its YAML or JSON.
    ///
    /// # Errors
    /// [`ModelError`] for a text that is not one document, a name that Kubernetes would not take,
    /// and a limit that is no number or a negative one.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        Self::read(&single(text)?)
    }

    /// Reads one Repository from the JSON that the API of a cluster answers with. The same as
    /// [`parse`](Self::parse), and much quicker; a key that comes twice has its last value.
    ///
    /// # Errors
    /// [`ModelError`] as of [`parse`](Self::parse).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        Self::read(&single_json(text)?)
    }

    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, ModelError> {
        let object = describe("Repository", map);
        let top = Fields::of(&object, map);
        let metadata = top.inner("metadata")?;
        let name = metadata.text("name")?.unwrap_or_default();
        let namespace = metadata.text("namespace")?.unwrap_or("default");
        let key = RepositoryKey::new(namespace, name)
            .map_err(|invalid| metadata.error("name", invalid.rule()))?;
        let spec = top.inner("spec")?;
        let own = spec.get("concurrency_limit");
        let own = own.map(|value| limit(&spec, "concurrency_limit", value, value.as_i64()));
        let own = own.transpose()?.flatten();
        let annotations = metadata.inner("annotations")?;
        let ours = annotations.scalar(vocabulary::LIMIT)?.map(|text| {
            let number = text.trim().parse().ok();
            limit(
                &annotations,
                vocabulary::LIMIT,
                &Value::String(text),
                number,
            )
        });
        // Beside the limit that is in force, one that breaks its rule changes nothing.
        let ours = ours.filter(|ours| own.is_none() || ours.is_ok());
        let ours = ours.transpose()?.flatten();
        Ok(Self {
            key,
            uid: metadata.get("uid").and_then(uid),
            version: version(&metadata)?,
            created: timestamp(&metadata, "creationTimestamp")?,
            deleting: metadata.text("deletionTimestamp")?.is_some(),
            url: spec.text("url")?.map(str::to_owned),
            limit: own.or(ours),
            has_concurrency_limit: own.is_some(),
            in_two_modes: own.is_some() && ours.is_some(),
            annotations: marks(&metadata, "annotations", vocabulary::REPOSITORY_ANNOTATIONS)?,
        })
    }
}

/// A limit that a field holds; none for 0.
fn limit(
    fields: &Fields<'_>,
    name: &str,
    found: &Value,
    number: Option<i64>,
) -> Result<Option<Limit>, ModelError> {
    let runs = number.and_then(|number| u32::try_from(number).ok());
    let Some(runs) = runs else {
        let expected = "a whole number of at least 1; leave it out for no limit";
        return Err(fields.wrong(name, found, expected));
    };
    Ok(Some(Limit::new(runs)).filter(|limit| *limit != Limit::UNLIMITED))
}

/// The version in an object's metadata.
pub(super) fn version(metadata: &Fields<'_>) -> Result<Option<ResourceVersion>, ModelError> {
    let text = metadata.scalar("resourceVersion")?;
    Ok(text.as_deref().and_then(ResourceVersion::parse))
}

/// A uid. No limit depends on it, so that what is none is not worth an error.
fn uid(value: &Value) -> Option<Uid> {
    value.as_str()?.parse().ok()
}

/// The time in a field.
pub(super) fn timestamp(fields: &Fields<'_>, name: &str) -> Result<Option<Timestamp>, ModelError> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    let time = time::parse(text).ok_or_else(|| {
        let expected = "a time such as \"2026-06-01T14:47:16Z\"";
        fields.wrong(name, &Value::String(text.to_owned()), expected)
    });
    time.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_spec(spec: &str) -> Result<RepositoryView, ModelError> {
        RepositoryView::parse(&format!(
            "apiVersion: pipelinesascode.tekton.dev/v1alpha1\nkind: Repository\n\
             metadata: {{name: website, namespace: ci, resourceVersion: \"42\"}}\nspec: {spec}\n"
        ))
    }

    #[test]
    fn a_limit_is_a_number_and_zero_is_none() {
        let view = with_spec("{url: 'https://example.org/x', concurrency_limit: 3}").unwrap();
        assert_eq!(view.key.as_str(), "ci/website");
        assert_eq!(view.limit, Some(Limit::new(3)));
        assert_eq!(view.version, Some(ResourceVersion::new(42)));
        assert_eq!(view.url.as_deref(), Some("https://example.org/x"));
        for none in [
            "{concurrency_limit: 0}",
            "{}",
            "{concurrency_limit: null}",
            "null",
        ] {
            assert_eq!(with_spec(none).unwrap().limit, None, "{none}");
        }
    }

    #[test]
    fn a_uid_is_kept_and_one_that_is_none_hides_no_limit() {
        let read = |uid: &str| {
            let text = format!(
                "{{\"metadata\":{{\"name\":\"a\",\"uid\":{uid}}},\"spec\":{{\"concurrency_limit\":2}}}}"
            );
            RepositoryView::from_json(&text).unwrap()
        };
        assert_eq!(read("\"u-1\"").uid, Some("u-1".parse().unwrap()));
        for bad in ["5", "\"\"", "null"] {
            assert_eq!(
                (read(bad).uid, read(bad).limit),
                (None, Some(Limit::new(2)))
            );
        }
    }

    #[test]
    fn a_limit_that_is_none_is_refused_by_its_name() {
        for bad in ["-1", "\"3\"", "1.5", "4294967296", "[1]", "many"] {
            let error = with_spec(&format!("{{concurrency_limit: {bad}}}")).unwrap_err();
            assert_eq!(error.object(), "Repository ci/website", "{bad}");
            assert_eq!(error.field(), "spec.concurrency_limit", "{bad}");
            assert!(error.rule().contains("at least 1; leave it out"), "{error}");
        }
    }

    #[test]
    fn our_annotation_stands_in_for_an_absent_limit() {
        let text = |spec| {
            format!(
                "{{\"kind\":\"Repository\",\"metadata\":{{\"name\":\"a\",\"namespace\":\"ci\",\
                 \"annotations\":{{\"{}\":\"2\"}}}},\"spec\":{spec}}}",
                vocabulary::LIMIT
            )
        };
        let read = |spec| RepositoryView::from_json(&text(spec)).unwrap();
        let limit = |spec| (read(spec).limit.unwrap(), read(spec).in_two_modes);
        assert_eq!(limit("{}"), (Limit::new(2), false));
        assert_eq!(limit("{\"concurrency_limit\":5}"), (Limit::new(5), true));
        assert!(read("{}").is_limited_by_annotation());
        assert!(!read("{\"concurrency_limit\":5}").is_limited_by_annotation());
        assert_eq!(read("{}").annotations[vocabulary::LIMIT], "2");
    }

    #[test]
    fn our_annotation_must_be_a_number_where_it_is_the_limit() {
        let text = |spec| {
            format!(
                "{{\"metadata\":{{\"name\":\"a\",\"annotations\":{{\"{}\":\"two\"}}}},\"spec\":{spec}}}",
                vocabulary::LIMIT
            )
        };
        let error = RepositoryView::from_json(&text("{}")).unwrap_err();
        assert!(error.field().ends_with(vocabulary::LIMIT), "{error}");
        let beside = RepositoryView::from_json(&text("{\"concurrency_limit\":5}")).unwrap();
        assert_eq!(
            (beside.limit, beside.in_two_modes),
            (Some(Limit::new(5)), false)
        );
    }

    #[test]
    fn a_name_that_is_none_is_an_error_of_its_field() {
        let error = RepositoryView::parse("kind: Repository\nmetadata: {name: A}\n").unwrap_err();
        assert_eq!(
            (error.object(), error.field()),
            ("Repository A", "metadata.name")
        );
    }
}
