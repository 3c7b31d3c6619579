//! The manifests of a directory: which objects there are, and where each is written.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use pac_concurrency::{InvalidValue, PipelineRunKey, RepositoryKey, Timestamp};
use pac_pipelines::model::{
    ExecutionOrder, Object, RepositoryView, ResourceVersion, RunManifest, RunView, SpecStatus,
    parse_placed,
};
use pac_pipelines::policy::Policies;
use pac_pipelines::{ModelError, Unreadable, UnreadableObject, vocabulary};

use crate::manifest_files;

/// The namespace of an object that names none, as `kubectl` has it.
const NAMESPACE: &str = "default";

/// All objects that matter.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) repositories: BTreeMap<RepositoryKey, RepositoryView>,
    /// In the order in which they are written.
    pub(super) runs: Vec<Run>,
    /// What cannot be understood, as far as the controller is to know of it.
    pub(super) unreadable_objects: Vec<Unreadable>,
    /// What cannot be read, or breaks a rule.
    pub(super) unreadable: Vec<Problem>,
    /// What is passed over, and changes nothing for the rest of its object.
    pub(super) warnings: Vec<Problem>,
    /// Objects of other kinds.
    pub(super) others: usize,
    /// Objects taken in so far: each has another version.
    count: u64,
    places: HashMap<String, Place>,
    /// The last ending that was made up for each start of a name.
    endings: HashMap<String, u32>,
}

/// A run, as it is or would be in the cluster.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) view: RunView,
    /// It is yet to be created.
    pub(super) is_new: bool,
    /// The ending of its name is made up here.
    pub(super) is_named_here: bool,
    /// The manifest says when it was created.
    pub(super) has_time: bool,
    pub(super) place: Place,
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The file's name in the directory.
    pub(super) file: String,
    /// Counted from 1; `None` for the file as a whole.
    pub(super) document: Option<usize>,
    /// Counted from 1, in a list.
    pub(super) item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        match self.item {
            Some(item) => write!(f, ", item {item}"),
            None => Ok(()),
        }
    }
}

/// Something that cannot be read or breaks a rule.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) place: Place,
    /// `None` for a file as a whole.
    pub(super) object: Option<String>,
    pub(super) field: Option<String>,
    pub(super) rule: String,
}

impl Problem {
    fn of(place: &Place, error: &ModelError) -> Self {
        Self {
            place: place.clone(),
            object: Some(error.object().to_owned()).filter(|object| *object != place.file),
            field: Some(error.field().to_owned()),
            rule: error.rule().to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.rule)
    }
}

impl Manifests {
    /// Reads a directory, or one file.
    ///
    /// # Errors
    /// What is wrong with the path itself. What is wrong in it is in
    /// [`unreadable`](Self::unreadable).
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |reason: String| format!("{}: {reason}", path.display());
        if !path.is_dir() {
            let text = manifest_files::text(path).map_err(wrong)?;
            let name = path.file_name().map(Path::new).unwrap_or(path);
            return Ok(Self::of(&name.display().to_string(), &text));
        }
        let entries = manifest_files::entries(path).map_err(wrong)?;
        let mut manifests = Self::default();
        manifest_files::each(entries, &mut |file, text| {
            let name = file.strip_prefix(path).unwrap_or(file);
            manifests.file(&name.display().to_string(), text);
        });
        manifests.create_later();
        Ok(manifests)
    }

    /// Those of one file.
    pub(super) fn of(name: &str, text: &str) -> Self {
        let mut manifests = Self::default();
        manifests.text(name, text);
        manifests.create_later();
        manifests
    }

    fn file(&mut self, name: &str, text: Result<String, String>) {
        match text {
            Ok(text) => self.text(name, &text),
            Err(rule) => self.unreadable.push(Problem {
                place: Place {
                    file: name.to_owned(),
                    document: None,
                    item: None,
                },
                object: None,
                field: None,
                rule,
            }),
        }
    }

    fn text(&mut self, file: &str, text: &str) {
        for placed in parse_placed(file, text) {
            let place = Place {
                file: file.to_owned(),
                document: Some(placed.document),
                item: placed.item,
            };
            let taken = match placed.found {
                Ok(Object::Run(run)) => self.run(*run, &place),
                Ok(Object::Repository(view)) => self.repository(view, &place),
                Ok(_) => {
                    self.others += 1;
                    Ok(())
                }
                Err(unreadable) => Err(unreadable),
            };
            if let Err(unreadable) = taken {
                self.unreadable.push(Problem::of(&place, &unreadable.error));
                self.unreadable_objects.push(unreadable);
            }
        }
    }

    fn repository(&mut self, mut view: RepositoryView, place: &Place) -> Result<(), Unreadable> {
        let object = format!("Repository {}", view.key);
        self.take_name(&object, place)?;
        view.version = Some(self.next_version());
        self.passed_over(&Policies::faults(&view), place);
        self.repositories.insert(view.key.clone(), view);
        Ok(())
    }

    fn run(&mut self, manifest: RunManifest, place: &Place) -> Result<(), Unreadable> {
        let is_named_here = manifest.name.is_none();
        let key = self.name_of(&manifest).map_err(|error| {
            let error = ModelError::new(describe(&manifest), "metadata.name", error);
            Unreadable::new(UnreadableObject::Nameless, error)
        })?;
        let object = format!("PipelineRun {key}");
        self.take_name(&object, place)?;
        let version = self.next_version();
        let has_begun = manifest.started.is_some() || manifest.succeeded.is_some();
        let is_new = manifest.uid.is_none() && !has_begun;
        let uid = match &manifest.uid {
            Some(uid) => uid.clone(),
            None => format!("planned-{version}")
                .parse()
                .map_err(|invalid: InvalidValue| {
                    let error = ModelError::new(&object, "metadata.uid", invalid.rule());
                    Unreadable::new(UnreadableObject::Run(key.clone()), error)
                })?,
        };
        let mut view = manifest.with_identity(key, uid);
        view.version = Some(version);
        if is_new && view.spec_status == SpecStatus::None && view.repository().is_some() {
            // What creates it holds it back, or has it held back.
            view.spec_status = SpecStatus::Pending;
            view.annotations
                .insert(vocabulary::HELD.to_owned(), "true".to_owned());
        }
        for malformed in view.order().iter().flat_map(ExecutionOrder::malformed) {
            self.warnings.push(Problem {
                place: place.clone(),
                object: Some(object.clone()),
                field: Some("execution-order".to_owned()),
                rule: format!("{:?} is passed over: {}", malformed.entry, malformed.rule),
            });
        }
        self.passed_over(&Policies::of(&view, None).invalid, place);
        self.runs.push(Run {
            has_time: view.created.is_some(),
            view,
            is_new,
            is_named_here,
            place: place.clone(),
        });
        Ok(())
    }

    /// The name of a run, made up where the manifest leaves that to the cluster.
    /// Annotations that break their rules, and count as absent.
    fn passed_over(&mut self, annotations: &[ModelError], place: &Place) {
        let warnings = annotations.iter().map(|error| Problem::of(place, error));
        self.warnings.extend(warnings);
    }

    fn name_of(&mut self, manifest: &RunManifest) -> Result<PipelineRunKey, String> {
        let namespace = manifest.namespace.as_deref().unwrap_or(NAMESPACE);
        let key = |name: &str| {
            PipelineRunKey::new(namespace, name).map_err(|invalid| invalid.rule().to_owned())
        };
        if let Some(name) = &manifest.name {
            return key(name);
        }
        let start = manifest.generate_name.as_ref();
        let start = start.ok_or("is missing; write it, or metadata.generateName")?;
        let number = self.endings.entry(format!("{namespace}/{start}"));
        let number = number.or_default();
        loop {
            *number += 1;
            let key = key(&format!("{start}{number:05}"))?;
            if !self.places.contains_key(&format!("PipelineRun {key}")) {
                return Ok(key);
            }
        }
    }

    /// Notes where an object is written; of two of one name the first counts.
    fn take_name(&mut self, object: &str, place: &Place) -> Result<(), Unreadable> {
        if let Some(first) = self.places.get(object) {
            let rule = format!("is there before, in {first}, and that one counts; keep one");
            let error = ModelError::new(object, "metadata.name", rule);
            return Err(Unreadable::new(UnreadableObject::Nameless, error));
        }
        self.places.insert(object.to_owned(), place.clone());
        Ok(())
    }

    fn next_version(&mut self) -> ResourceVersion {
        self.count += 1;
        ResourceVersion::new(self.count)
    }

    /// The version of the cluster's state that this is.
    pub(super) fn version(&self) -> ResourceVersion {
        ResourceVersion::new(self.count + 1)
    }

    /// Runs without a time of creation come after those that have one.
    fn create_later(&mut self) {
        let latest = self.runs.iter().filter_map(|run| run.view.created).max();
        let after = latest
            .unwrap_or(Timestamp::from_unix_millis(0))
            .plus(std::time::Duration::from_secs(1));
        for run in self.runs.iter_mut().filter(|run| !run.has_time) {
            run.view.created = Some(after);
        }
    }
}

fn describe(manifest: &RunManifest) -> String {
    let namespace = manifest.namespace.as_deref().unwrap_or(NAMESPACE);
    let name = manifest.name.as_ref().or(manifest.generate_name.as_ref());
    match name {
        Some(name) => format!("PipelineRun {namespace}/{name}"),
        None => format!("PipelineRun without a name in {namespace}"),
    }
}
