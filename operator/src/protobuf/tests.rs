use std::convert::Infallible;

use futures::{StreamExt as _, stream};
use http::StatusCode;
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
    core::Request as ApiRequest,
};
use serde_json::json;

use super::{
    message::tests::{event, list, node, refusal},
    *,
};
use crate::observe::wire;

/// What a server gives as its answer: status, media type, and the body in pieces.
type Answer = (u16, &'static str, Vec<Bytes>);

const WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// A client of a server that gives every question this answer.
fn answering((code, kind, pieces): Answer) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        assert_eq!(request.headers().get(ACCEPT), Some(&WANTED));
        let pieces = pieces.clone().into_iter();
        async move {
            let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
            let mut response = Response::new(StreamBody::new(stream::iter(frames)));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            let kind = HeaderValue::from_static(kind);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok::<_, Infallible>(response)
        }
    });
    of_nodes(&Client::new(service, "default"))
}

/// Events as a watch sends them.
fn framed(events: &[Vec<u8>]) -> Vec<u8> {
    let frame = |event: &Vec<u8>| {
        let length = u32::try_from(event.len()).unwrap().to_be_bytes();
        [&length, event.as_slice()].concat()
    };
    events.iter().flat_map(frame).collect()
}

fn pieces(bytes: &[u8], size: usize) -> Vec<Bytes> {
    bytes.chunks(size).map(Bytes::copy_from_slice).collect()
}

/// What a watch brings, in words, up to its end or its first error.
async fn watched(answer: Answer) -> Vec<String> {
    let request = ApiRequest::new("/api/v1/nodes").watch(&WatchParams::default(), "0");
    let events = answering(answer)
        .request_events::<wire::Node>(request.unwrap())
        .await;
    let mut events = std::pin::pin!(events.unwrap());
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(match event {
            Ok(WatchEvent::Added(node)) => format!("+{}", node.metadata.name.unwrap()),
            Ok(WatchEvent::Modified(node)) => format!("~{}", node.metadata.name.unwrap()),
            Ok(WatchEvent::Deleted(node)) => format!("-{}", node.metadata.name.unwrap()),
            Ok(WatchEvent::Bookmark(mark)) => format!("={}", mark.metadata.resource_version),
            Ok(WatchEvent::Error(status)) => format!("!{} {}", status.code, status.reason),
            Err(error) => {
                all.push(error.to_string());
                break;
            }
        });
    }
    all
}

#[tokio::test]
async fn a_watch_is_read_in_pieces_of_any_size() {
    let events = framed(&[
        event("ADDED", &node("w1")),
        event("MODIFIED", &node("w2")),
        event("DELETED", &node("w1")),
        event("BOOKMARK", &node("mark")),
        event("ERROR", &refusal(410, "Expired")),
    ]);
    for size in [1, 2, 3, 5, 7, 64, 1000, events.len()] {
        assert_eq!(
            watched((200, WATCH, pieces(&events, size))).await,
            ["+w1", "~w2", "-w1", "=7", "!410 Expired"],
            "in pieces of {size}"
        );
    }
}

/// kube takes up again what ends without an error, and what ends with one after a while.
#[tokio::test]
async fn a_watch_that_is_cut_within_an_event_ends_before_it() {
    let events = framed(&[event("ADDED", &node("w1")), event("ADDED", &node("w2"))]);
    for missing in [1, 5, 20] {
        let cut = &events[..events.len() - missing];
        assert_eq!(watched((200, WATCH, pieces(cut, 16))).await, ["+w1"]);
    }
}

#[tokio::test]
async fn a_watch_of_something_else_ends_with_an_error() {
    let long = u32::MAX.to_be_bytes();
    let said = watched((200, WATCH, pieces(&long, 4))).await.join(" ");
    assert!(said.contains("rror"), "{said}");
    let nonsense = framed(&[b"\x0a\x05ADDED\x12\x04\x0a\x02{}".to_vec()]);
    let events = [framed(&[event("ADDED", &node("w1"))]), nonsense].concat();
    let said = watched((200, WATCH, pieces(&events, 99))).await;
    assert_eq!(said.len(), 2, "{said:?}");
}

#[tokio::test]
async fn a_list_is_read_whole_with_where_it_goes_on() {
    let bytes = list(&["w1", "w2"]);
    let client = answering((200, PROTOBUF, pieces(&bytes, 50)));
    let nodes = Api::<wire::Node>::all(client);
    let page = nodes.list(&ListParams::default()).await.unwrap();
    assert_eq!(page.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(page.metadata.continue_.as_deref(), Some("there"));
    assert_eq!(page.metadata.remaining_item_count, Some(3));
    let names: Vec<_> = page.items.iter().flat_map(|it| &it.metadata.name).collect();
    assert_eq!(names, ["w1", "w2"]);
}

#[tokio::test]
async fn a_refusal_is_the_same_error_in_either_form() {
    let bytes = refusal(429, "TooManyRequests");
    let json = json!({ "kind": "Status", "status": "Failure", "message": "its words",
        "reason": "TooManyRequests", "details": { "retryAfterSeconds": 3 }, "code": 429 });
    for (kind, body) in [
        (PROTOBUF, bytes),
        ("application/json", json.to_string().into()),
    ] {
        let nodes = Api::<wire::Node>::all(answering((429, kind, pieces(&body, 10))));
        let error = nodes.get("w1").await.unwrap_err();
        let kube::Error::Api(status) = error else {
            panic!("{error}")
        };
        let said = (status.code, status.reason.as_str(), status.message.as_str());
        assert_eq!(said, (429, "TooManyRequests", "its words"));
        assert_eq!(status.details.unwrap().retry_after_seconds, 3);
    }
}

#[tokio::test]
async fn json_passes_through() {
    let object = json!({ "metadata": { "name": "w1" }, "spec": { "unschedulable": true } });
    let body = vec![Bytes::from(object.to_string())];
    let nodes = Api::<wire::Node>::all(answering((200, "application/json", body)));
    let node = nodes.get("w1").await.unwrap();
    assert!(node.spec.unschedulable);
}

#[tokio::test]
async fn an_answer_that_is_no_node_is_an_error_that_says_so() {
    for (body, words) in [
        (b"<html>".to_vec(), "no object in protobuf"),
        (
            b"k8s\0\x0a\x05\x12\x03Pod\x12\x00".to_vec(),
            "a Pod, not a Node",
        ),
    ] {
        let nodes = Api::<wire::Node>::all(answering((200, PROTOBUF, vec![body.into()])));
        let error = crate::words::request(&nodes.get("w1").await.unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}
