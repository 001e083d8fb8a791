//! A client that lets an operator see one run's objects and no others, so that many operators, each
//! with its run, share an API server.

use http::{Method, Request, uri::PathAndQuery};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use api_tests::fleet::LABEL;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The same client, for the objects of the fleet `run` alone: lists and watches of Nodes, pools and
/// `BootcNode`s select them by their label, which new `BootcNode`s get; what has a namespace of the
/// operator's own, such as its Lease, has the run's.
pub(crate) fn in_run(inner: &Client, run: &str) -> Client {
    let namespace = run.to_owned();
    let (sender, run) = (inner.clone(), run.to_owned());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (sender, run) = (sender.clone(), run.clone());
        async move {
            let request = match *request.method() {
                Method::GET => selected(request, &run)?,
                Method::POST => labelled(request, &run).await?,
                _ => request,
            };
            sender.send(request).await.map_err(BoxError::from)
        }
    });
    Client::new(service, namespace)
}

fn selected(mut request: Request<Body>, run: &str) -> Result<Request<Body>, BoxError> {
    let uri = request.uri();
    let kinds = ["/nodes", "/bootcnodes", "/bootcnodepools"];
    if kinds.iter().any(|kind| uri.path().ends_with(kind)) {
        let query = uri.query().unwrap_or_default();
        let selector = LABEL.replace('/', "%2F");
        let path = format!("{}?labelSelector={selector}%3D{run}&{query}", uri.path());
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(path)?);
        *request.uri_mut() = parts.try_into()?;
    }
    Ok(request)
}

async fn labelled(request: Request<Body>, run: &str) -> Result<Request<Body>, BoxError> {
    if !request.uri().path().ends_with("/bootcnodes") {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let mut object: Value = serde_json::from_slice(&body.collect_bytes().await?)?;
    object["metadata"]["labels"] = json!({ LABEL: run });
    Ok(Request::from_parts(
        parts,
        object.to_string().into_bytes().into(),
    ))
}
