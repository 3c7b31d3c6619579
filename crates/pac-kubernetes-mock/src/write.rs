//! The writing verbs: what each makes of the stored objects.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::access;
use crate::admission::{self, Operation, Review};
use crate::call::{Answer, Call};
use crate::definitions;
use crate::failure::Failure;
use crate::object::{self, text};
use crate::patch;
use crate::resource::Resource;
use crate::rules;
use crate::store::State;

impl State {
    /// Makes the object in the body.
    ///
    /// # Errors
    /// 400 for a body that is no such object, 404 for an absent namespace, 409 when the name is
    /// taken, 422 for a name that no object may have, and the refusal of a mutator.
    pub(crate) fn create(&mut self, call: &Call) -> Result<Answer, Failure> {
        if access::is_review(&call.resource) {
            return Ok(Answer::created(access::reviewed(self, &call.body)));
        }
        let mut object = call.body.clone();
        object::normalize(&call.resource, &mut object)?;
        if !object::resource_version(&object).is_empty() {
            return Err(Failure::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.place(call, &mut object)?;
        self.name(call, &mut object)?;
        if call.resource.status {
            object::as_map(&mut object).remove("status");
        }
        let review = Review {
            operation: Operation::Create,
            resource: &call.resource,
            old: None,
        };
        admission::admit(self, &review, &mut object)?;
        rules::check_event(&call.resource, &object)?;
        if definitions::declares(&call.resource) {
            object::as_map(&mut object).insert("status".to_owned(), definitions::established());
        }
        if call.resource.plural == "namespaces" {
            let active = json!({"phase": "Active"});
            object::as_map(&mut object).insert("status".to_owned(), active);
        }
        let metadata = object::fields(&mut object, "metadata");
        metadata.insert("uid".to_owned(), json!(object::new_uid()));
        metadata.insert("creationTimestamp".to_owned(), json!(object::now()));
        let generation = call.resource.generation.then(|| json!(1));
        object::set(metadata, "generation", generation);
        object::set(metadata, "deletionTimestamp", None);
        object::set(metadata, "deletionGracePeriodSeconds", None);
        if call.dry_run() {
            return Ok(Answer::created(object));
        }
        let kept = self.commit(&call.resource, None, object);
        Ok(Answer::created(kept))
    }

    /// Replaces an object by the one in the body.
    ///
    /// # Errors
    /// 400 for a body that is no such object, 404 when there is none, 409 when it is of another
    /// resourceVersion or uid, 422 for a custom resource without resourceVersion, and the refusal
    /// of a mutator.
    pub(crate) fn update(&mut self, call: &Call) -> Result<Answer, Failure> {
        let current = self.get(&call.resource, &call.namespace, &call.name)?;
        let new = call.body.clone();
        if call.resource.custom && object::resource_version(&new).is_empty() {
            let rule = "must be specified for an update";
            let field = "metadata.resourceVersion";
            return Err(Failure::invalid(
                &call.resource,
                &call.name,
                field,
                "0x0",
                rule,
            ));
        }
        let (expected, uid) = (text(&new, "/metadata/uid"), text(&current, "/metadata/uid"));
        if !expected.is_empty() && expected != uid {
            let why = format!(
                "Precondition failed: UID in precondition: {expected}, UID in object meta: {uid}"
            );
            let plural = &call.resource.plural;
            return Err(Failure::conflict(&call.resource, plural, &call.name, &why));
        }
        self.replace(call, &current, new).map(Answer::ok)
    }

    /// Changes an object, or applies one.
    ///
    /// # Errors
    /// As of [`patch::patched`] and [`patch::Applied::apply`]; 404 when there is none, 409 when
    /// the patch has another resourceVersion, 422 when it has another uid.
    pub(crate) fn patch(&mut self, call: &Call) -> Result<Answer, Failure> {
        if patch::is_apply(call) {
            return self.apply(call);
        }
        let current = self.get(&call.resource, &call.namespace, &call.name)?;
        let new = patch::patched(call, &current)?;
        self.replace(call, &current, new).map(Answer::ok)
    }

    fn apply(&mut self, call: &Call) -> Result<Answer, Failure> {
        let current = self.find(&call.resource, &call.namespace, &call.name);
        let new = self.applied.apply(call, current.as_deref())?;
        let answer = match current {
            Some(current) => self.replace(call, &current, new).map(Answer::ok)?,
            None => {
                let mut creation = call.clone();
                creation.body = new;
                object::fields(&mut creation.body, "metadata")
                    .insert("name".to_owned(), json!(call.name));
                self.create(&creation)?
            }
        };
        if !call.dry_run() {
            self.applied.remember(call);
        }
        Ok(answer)
    }

    /// Puts `new` in the place of `current`, if that changes anything.
    fn replace(
        &mut self,
        call: &Call,
        current: &Arc<Value>,
        mut new: Value,
    ) -> Result<Arc<Value>, Failure> {
        let resource = &*call.resource;
        let expected = object::resource_version(&new);
        if !expected.is_empty() && expected != object::resource_version(current) {
            return Err(Failure::modified(resource, &call.name));
        }
        let uid = text(&new, "/metadata/uid");
        if !uid.is_empty() && uid != text(current, "/metadata/uid") {
            let rule = "field is immutable";
            return Err(Failure::invalid(
                resource,
                &call.name,
                "metadata.uid",
                uid,
                rule,
            ));
        }
        if !object::name(&new).is_empty() && object::name(&new) != call.name {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                object::name(&new),
                call.name
            );
            return Err(Failure::bad_request(message));
        }
        object::normalize(resource, &mut new)?;
        if call.status {
            let status = new.get("status").cloned();
            new = Value::clone(current);
            object::set(object::as_map(&mut new), "status", status);
        } else {
            rules::keep_status(resource, current, &mut new);
            rules::keep_identity(current, &mut new);
            let review = Review {
                operation: Operation::Update,
                resource,
                old: Some(current),
            };
            admission::admit(self, &review, &mut new)?;
        }
        rules::keep_identity(current, &mut new);
        rules::count_generation(resource, current, &mut new);
        if new == **current {
            return Ok(Arc::clone(current));
        }
        if call.dry_run() {
            return Ok(Arc::new(new));
        }
        Ok(
            if object::is_deleting(&new) && !object::has_finalizers(&new) {
                self.remove(resource, current, new)
            } else {
                self.commit(resource, Some(Arc::clone(current)), new)
            },
        )
    }

    /// Deletes an object. One with finalizers is only marked: it goes with its last finalizer.
    ///
    /// # Errors
    /// 404 when there is none, and 409 when it is of another uid or resourceVersion than the
    /// request expects.
    pub(crate) fn delete(&mut self, call: &Call) -> Result<Answer, Failure> {
        let current = self.get(&call.resource, &call.namespace, &call.name)?;
        rules::check_preconditions(call, &current)?;
        if object::has_finalizers(&current) {
            if object::is_deleting(&current) || call.dry_run() {
                return Ok(Answer::ok(current));
            }
            let mut marked = Value::clone(&current);
            let generation = marked
                .pointer("/metadata/generation")
                .and_then(Value::as_u64);
            let metadata = object::fields(&mut marked, "metadata");
            metadata.insert("deletionTimestamp".to_owned(), json!(object::now()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
            if let Some(generation) = generation {
                metadata.insert("generation".to_owned(), json!(generation + 1));
            }
            let kept = self.commit(&call.resource, Some(current), marked);
            return Ok(Answer::ok(kept));
        }
        if !call.dry_run() {
            if call.resource.plural == "namespaces" {
                self.empty(&call.name);
            }
            self.remove(&call.resource, &current, Value::clone(&current));
        }
        let mut details = json!({
            "name": call.name,
            "kind": call.resource.plural,
            "uid": text(&current, "/metadata/uid"),
        });
        if !call.resource.group.is_empty() {
            object::as_map(&mut details).insert("group".to_owned(), json!(call.resource.group));
        }
        Ok(Answer::ok(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        })))
    }

    /// Deletes the selected objects; answers with the list of them.
    ///
    /// # Errors
    /// 400 for a malformed selector, and those of [`State::delete`].
    pub(crate) fn delete_collection(&mut self, call: &Call) -> Result<Answer, Failure> {
        let list = self.list(call)?;
        for object in self.select(&call.resource, &call.namespace, &call.selector()?) {
            let mut one = call.clone();
            one.namespace = object::namespace(&object).to_owned();
            one.name = object::name(&object).to_owned();
            self.delete(&one)?;
        }
        Ok(list)
    }

    /// Removes all objects of a namespace at once, those with finalizers too.
    fn empty(&mut self, namespace: &str) {
        let resources: Vec<Arc<Resource>> = self.resources().to_vec();
        for resource in resources.iter().filter(|resource| resource.namespaced) {
            for object in self.select(resource, namespace, &Default::default()) {
                self.remove(resource, &object, Value::clone(&object));
            }
        }
    }

    /// Gives a new object the namespace of its path.
    fn place(&self, call: &Call, object: &mut Value) -> Result<(), Failure> {
        let found = object::namespace(object);
        if !found.is_empty() && found != call.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
        if call.resource.namespaced {
            let namespaces = self.resource_named("namespaces")?;
            self.get(&namespaces, "", &call.namespace)?;
            let namespace = json!(call.namespace);
            object::fields(object, "metadata").insert("namespace".to_owned(), namespace);
        }
        Ok(())
    }

    /// Checks the name of a new object, or makes one from its prefix.
    fn name(&self, call: &Call, object: &mut Value) -> Result<(), Failure> {
        let resource = &call.resource;
        let taken = |name: &str| self.find(resource, &call.namespace, name).is_some();
        let name = object::name(object).to_owned();
        if !name.is_empty() {
            rules::check_name(resource, &name)?;
            return if taken(&name) {
                Err(Failure::already_exists(resource, &name))
            } else {
                Ok(())
            };
        }
        let prefix = text(object, "/metadata/generateName").to_owned();
        if prefix.is_empty() {
            let kind = resource.qualified_kind();
            let message = format!(
                "{kind} \"\" is invalid: metadata.name: Required value: name or generateName is \
                 required"
            );
            return Err(Failure::new(422, "Invalid", message));
        }
        let mut name = object::generated_name(&prefix);
        while taken(&name) {
            name = object::generated_name(&prefix);
        }
        rules::check_name(resource, &name)?;
        object::fields(object, "metadata").insert("name".to_owned(), json!(name));
        Ok(())
    }
}
