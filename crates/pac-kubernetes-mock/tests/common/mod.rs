//! A client that shows each byte of an answer: one request a connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod replay;

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON: &str = "application/json-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const RUNS: &str = "/apis/tekton.dev/v1/namespaces/ci/pipelineruns";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// The header, in lower case.
    pub(crate) head: String,
    pub(crate) text: String,
    /// `null` when the text is no JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn at(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().to_owned();
        Self { address }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", None).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, "application/json", Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, "application/json", Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn patch(&self, path: &str, media_type: &str, body: Value) -> Answer {
        self.send("PATCH", path, media_type, Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn delete(&self, path: &str, options: Option<Value>) -> Answer {
        self.send("DELETE", path, "application/json", options)
            .await
            .unwrap()
    }

    /// Sends a request; an error when the connection ends before a whole answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: Option<Value>,
    ) -> io::Result<Answer> {
        let accept = if path.contains("as=partial") {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        } else {
            "application/json"
        };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Accept: {accept}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        );
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
            .await
            .expect("no answer within ten seconds")?;
        let text = String::from_utf8(bytes).unwrap();
        let (head, text) = text
            .split_once("\r\n\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Answer {
            code: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            text: text.to_owned(),
            body: serde_json::from_str(text).unwrap_or_default(),
        })
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path_and_query: &str) -> Watch {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // Of version 1.0, so that the body comes without chunks around it.
        let request = format!("GET {path_and_query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        let code = line.split(' ').nth(1).unwrap().parse().unwrap();
        while line.trim_end() != "" {
            line.clear();
            lines.read_line(&mut line).await.unwrap();
        }
        Watch { code, lines }
    }
}

/// An open watch.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) code: u16,
    lines: BufReader<TcpStream>,
}

impl Watch {
    /// The next event, or the whole body of an error; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(10), self.lines.read_line(&mut line)).await;
        match read.expect("no event within ten seconds") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// The type and the name of the next event.
    pub(crate) async fn next_named(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |pointer| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        (
            text("/type").to_owned(),
            text("/object/metadata/name").to_owned(),
        )
    }
}

/// A PipelineRun of the namespace `ci`.
pub(crate) fn run(name: &str, status: Option<&str>) -> Value {
    let mut run = serde_json::json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"name": name, "namespace": "ci"},
        "spec": {"pipelineRef": {"name": "build"}},
    });
    if let Some(status) = status {
        run["spec"]["status"] = status.into();
    }
    run
}
