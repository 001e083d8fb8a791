//! Kubernetes' own objects in protobuf, of which a reader skips what it does not want: a Node has
//! kilobytes of images, addresses and `managedFields` that no decision looks at.
//!
//! kube reads JSON. A client made here asks for protobuf and hands on the few fields in use
//! (`message`) as JSON, so that kube's own lists, watches and patches work on that. What the API
//! server answers in JSON all the same passes through as it is.

mod message;
#[cfg(test)]
mod tests;

use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use prost::bytes::BytesMut;
use tokio_util::codec::{Decoder as _, LengthDelimitedCodec};
use tower::BoxError;

/// The media type.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What is asked for: JSON where the server, or a proxy on the way, knows nothing else.
pub const WANTED: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json");
/// What is handed on.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The parameter of the media type that tells a watch.
const OF_WATCH: &str = "stream=watch";
/// The longest event of a watch. An object in etcd has 1.5 MiB at most by default.
const LONGEST: usize = 16 << 20;

type Json = UnsyncBoxBody<Bytes, BoxError>;

/// `client`, for lists, watches and patches of Nodes. Its requests are sent by `client` itself.
#[must_use]
pub fn of_nodes(client: &Client) -> Client {
    let inner = client.clone();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let inner = inner.clone();
        async move {
            request.headers_mut().insert(ACCEPT, WANTED);
            in_json(inner.send(request).await?).await
        }
    });
    Client::new(service, client.default_namespace())
}

async fn in_json(response: Response<Body>) -> Result<Response<Json>, BoxError> {
    let (mut parts, body) = response.into_parts();
    let Some(is_watch) = is_watch(&parts.headers) else {
        let body = body.map_err(Into::into).boxed_unsync();
        return Ok(Response::from_parts(parts, body));
    };
    parts.headers.insert(CONTENT_TYPE, JSON);
    parts.headers.remove(CONTENT_LENGTH);
    let json = if is_watch {
        events(body)
    } else {
        let json = message::object(body.collect().await?.to_bytes())?;
        Full::from(json)
            .map_err(|never| match never {})
            .boxed_unsync()
    };
    Ok(Response::from_parts(parts, json))
}

/// The JSON of one event of a watch on Nodes, without its length.
///
/// # Errors
/// If it is no event, or one of another kind.
pub fn line(event: Bytes) -> Result<Vec<u8>, BoxError> {
    let mut line = message::event(event)?;
    line.push(b'\n');
    Ok(line)
}

/// Whether an answer in protobuf is a watch; none of one that is not in protobuf.
fn is_watch(headers: &HeaderMap) -> Option<bool> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let parameters = kind.strip_prefix(PROTOBUF)?;
    Some(parameters.contains(OF_WATCH))
}

/// The events of a watch as lines.
fn events(body: Body) -> Json {
    let events = Events {
        body,
        read: BytesMut::new(),
        frames: LengthDelimitedCodec::builder()
            .max_frame_length(LONGEST)
            .new_codec(),
    };
    let lines = futures::stream::unfold(Some(events), |events| async {
        let mut events = events?;
        let line = events.next().await.transpose()?;
        // What follows an error cannot be told apart any more.
        let rest = line.is_ok().then_some(events);
        Some((line.map(|line| Frame::data(line.into())), rest))
    });
    StreamBody::new(lines).boxed_unsync()
}

/// The events of a watch: each is preceded by its length.
struct Events {
    body: Body,
    read: BytesMut,
    frames: LengthDelimitedCodec,
}

impl Events {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        loop {
            if let Some(event) = self.frames.decode(&mut self.read)? {
                return line(event.freeze()).map(Some);
            }
            match self.body.frame().await {
                // Trailers say nothing here.
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                // Also one that breaks off within an event: kube takes it up again before that.
                None => return Ok(None),
            }
        }
    }
}
