//! What the API server has answered, by its own counters.

use std::collections::BTreeMap;

use anyhow::Result;
use kube::Client;

/// Requests answered so far, by resource, verb and status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<[String; 4], u64>);

impl Counts {
    /// As they are now.
    pub(crate) async fn now(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client.request_text(request).await?;
        let mut counts = BTreeMap::new();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("apiserver_request_total{"));
        for line in lines {
            if let Some((key, count)) = read(line) {
                *counts.entry(key).or_default() += count;
            }
        }
        Ok(Self(counts))
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown = |(key, count): (&[String; 4], &u64)| {
            let more = count.saturating_sub(before.0.get(key).copied().unwrap_or(0));
            (more > 0).then(|| (key.clone(), more))
        };
        Self(self.0.iter().filter_map(grown).collect())
    }

    fn sum(&self, counted: impl Fn(&str, &str, &str, &str) -> bool) -> u64 {
        let all = self.0.iter();
        let counted =
            all.filter(|([resource, sub, verb, code], _)| counted(resource, sub, verb, code));
        counted.map(|(_, count)| count).sum()
    }

    /// Patches of Nodes and `BootcNode`s themselves that took place: the operator's.
    pub(crate) fn patches(&self) -> u64 {
        self.sum(|resource, sub, verb, code| {
            is_node(resource) && sub.is_empty() && verb == "PATCH" && code.starts_with('2')
        })
    }

    /// Writes of any kind to Nodes, `BootcNode`s and pools that were refused since the object was
    /// newer.
    pub(crate) fn conflicts(&self) -> u64 {
        self.sum(|_, _, _, code| code == "409")
    }

    /// Requests for objects of any kind, by anybody.
    pub(crate) fn requests(&self) -> u64 {
        self.sum(|resource, _, _, _| !resource.is_empty())
    }

    /// Everything, `resource/subresource VERB code: count`, for who looks closer.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |([resource, sub, verb, code], count): (&[String; 4], &u64)| {
            format!("{count:>8}  {verb} {resource}/{sub} {code}")
        };
        self.0.iter().map(line).collect()
    }
}

fn is_node(resource: &str) -> bool {
    resource == "nodes" || resource == "bootcnodes"
}

/// `code="200",…,resource="nodes",…} 5`
fn read(line: &str) -> Option<([String; 4], u64)> {
    let (labels, count) = line.split_once("} ")?;
    let label = |name: &str| {
        let of = |pair: &str| Some(pair.strip_prefix(name)?.strip_prefix("=\"")?.to_owned());
        let value = labels.split("\",").find_map(of).unwrap_or_default();
        value.trim_end_matches('"').to_owned()
    };
    let key = ["resource", "subresource", "verb", "code"].map(label);
    Some((key, count.trim().parse().ok()?))
}
