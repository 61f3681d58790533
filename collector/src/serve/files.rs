//! Committed files of this node, for a query service that keeps copies of them.

use std::{io, path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use netverdict_flowlog::path::{ManifestPath, SegmentPath};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::refusal::{internal, refusal};
use crate::store::Store;

/// `GET /v1/files/PATH`: a manifest or a file of a segment, by its path below the data directory.
pub(super) fn router(store: Arc<Store>, node: Arc<str>) -> Router {
    Router::new().route("/v1/files/{*path}", get(file)).with_state((store, node))
}

async fn file(State((store, node)): State<(Arc<Store>, Arc<str>)>, UrlPath(path): UrlPath<String>) -> Response {
    let options = store.options();
    let Some(found) = own(&path, &options.cluster, &node) else {
        let remedy = "ask for a path that a manifest of this node names";
        return refusal(StatusCode::BAD_REQUEST, "bad-request", "no path of a file of this node's record", remedy);
    };
    match open(&options.data_dir.join(found)).await {
        Ok((length, body)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (headers, body).into_response()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refusal(StatusCode::NOT_FOUND, "not-found", "the file is not there any more", "")
        }
        Err(error) => internal(&format!("{path}: {error}")),
    }
}

/// The path, rendered from its parsed parts, if it is one of this node's record: no other file is served.
fn own(path: &str, cluster: &str, node: &Arc<str>) -> Option<String> {
    let is_own = |of_cluster: &str, of_node: &str| of_cluster == cluster && *of_node == **node;
    if let Ok(path) = path.parse::<SegmentPath>() {
        return is_own(path.cluster(), path.node()).then(|| path.to_string());
    }
    let path: ManifestPath = path.parse().ok()?;
    is_own(path.cluster(), path.node()).then(|| path.to_string())
}

async fn open(path: &Path) -> io::Result<(u64, Body)> {
    let file = File::open(path).await?;
    let length = file.metadata().await?.len();
    Ok((length, Body::from_stream(ReaderStream::new(file))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_this_nodes_record_can_be_asked_for() {
        const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";
        let node: Arc<str> = "node-1".into();
        let manifest = |node: &str| format!("manifests/cluster=prod/node={node}/{BOOT}-0000000001.json");
        let file = format!("flows/cluster=prod/date=2026-11-19/hour=08/node-1-{BOOT}-0000000001.parquet");
        assert_eq!(own(&manifest("node-1"), "prod", &node), Some(manifest("node-1")));
        assert_eq!(own(&file, "prod", &node), Some(file.clone()));
        for path in [
            manifest("node-2"),
            file.replace("prod", "test"),
            "../state/collector.token".to_owned(),
            format!("flows/../{file}"),
            format!("/{file}"),
            file.replace("node-1", "..%2fnode-1"),
        ] {
            assert_eq!(own(&path, "prod", &node), None, "{path}");
        }
    }
}
