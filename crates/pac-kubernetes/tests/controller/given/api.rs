//! The API of a given cluster, through the client library.

use std::path::Path;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use http::Request;
use http::header::CONTENT_TYPE;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Client, Config, Error};
use pac_kubernetes_mock::{Remote, RemoteRequest, RemoteWatch};
use serde_json::{Value, json};

/// What carries the requests.
pub(super) struct Api(Client);

impl Api {
    /// The cluster of this kubeconfig, in its current context.
    pub(super) async fn connect(kubeconfig: &Path) -> Result<Self, String> {
        let text = |error: &dyn std::error::Error| format!("{}: {error}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| text(&error))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| text(&error))?;
        // A write whose answer is lost must not be sent again: the stand-ins look what came of it.
        config.default_retry = false;
        Client::try_from(config)
            .map(Self)
            .map_err(|error| text(&error))
    }
}

#[async_trait]
impl Remote for Api {
    async fn send(&self, request: RemoteRequest) -> Result<(u16, Value), String> {
        let mut sent = Request::builder().method(request.method).uri(request.path);
        if !request.content_type.is_empty() {
            sent = sent.header(CONTENT_TYPE, request.content_type);
        }
        let body = match request.body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let sent = sent.body(body).map_err(|error| error.to_string())?;
        match self.0.request::<Value>(sent).await {
            Ok(body) => Ok((200, body)),
            Err(Error::Api(status)) => Ok((
                status.code,
                json!({"reason": status.reason, "message": status.message}),
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn watch(&self, path: String) -> Result<Box<dyn RemoteWatch>, String> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| error.to_string())?;
        let events = self.0.request_events::<Value>(request).await;
        let events = events.map_err(|error| error.to_string())?;
        Ok(Box::new(Events(events.boxed())))
    }
}

struct Events(BoxStream<'static, Result<WatchEvent<Value>, Error>>);

#[async_trait]
impl RemoteWatch for Events {
    async fn next(&mut self) -> Option<(String, Value)> {
        let (kind, object) = match self.0.next().await? {
            Ok(WatchEvent::Added(object)) => ("ADDED", object),
            Ok(WatchEvent::Modified(object)) => ("MODIFIED", object),
            Ok(WatchEvent::Deleted(object)) => ("DELETED", object),
            // No bookmarks are asked for, and what cannot be read is an error as well.
            Ok(WatchEvent::Bookmark(_) | WatchEvent::Error(_)) | Err(_) => ("ERROR", Value::Null),
        };
        Some((kind.to_owned(), object))
    }
}
