//! Requests by name: the same one has the same name in every run, so that a fault finds it again.

use http::{Method, Request};
use kube::client::Body;

/// The name of a request without its number: who asks, the verb, the resource, and which node's.
///
/// `run` is what the names of a run's own objects begin with.
pub(crate) fn name(actor: &str, run: &str, request: &Request<Body>) -> String {
    let query = request.uri().query().unwrap_or_default();
    let path = Path::of(request.uri().path());
    let verb = match *request.method() {
        Method::GET if query.contains("watch=true") => "watch",
        Method::GET if path.object.is_none() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "patch",
    };
    let mut words = vec![actor.to_owned(), verb.to_owned(), path.resource.to_owned()];
    words.extend(path.part.map(str::to_owned));
    words.extend(whose(&path, run, query));
    words.join(" ")
}

/// Is it a write?
pub(crate) fn is_write(call: &str) -> bool {
    let verb = call.split(' ').nth(1).unwrap_or_default();
    ["create", "update", "patch", "delete"].contains(&verb)
}

/// Is it a watch?
pub(crate) fn is_watch(call: &str) -> bool {
    call.split(' ').nth(1) == Some("watch")
}

/// Is it a list?
pub(crate) fn is_list(call: &str) -> bool {
    call.split(' ').nth(1) == Some("list")
}

/// A path of the API in its parts.
struct Path<'a> {
    resource: &'a str,
    object: Option<&'a str>,
    part: Option<&'a str>,
}

impl<'a> Path<'a> {
    fn of(path: &'a str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let group = if parts.first() == Some(&"api") { 2 } else { 3 };
        let rest = parts.get(group..).unwrap_or_default();
        let rest = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        Self {
            resource: rest.first().copied().unwrap_or_default(),
            object: rest.get(1).copied(),
            part: rest.get(2).copied(),
        }
    }
}

/// The node, by its number in the run; pods and Events have names that no other run has.
fn whose(path: &Path<'_>, run: &str, query: &str) -> Option<String> {
    let selected = query.split("spec.nodeName%3D").nth(1);
    let selected = selected.and_then(|rest| rest.split('&').next());
    let node = selected.or(path.object)?.strip_prefix(run)?;
    let number = node.strip_prefix('-')?;
    Some(format!("of {number}"))
}
