//! The agents of a fleet. They see what the API server shows and write what
//! real ones would write; beside that they note what should never be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use crd::{BootcNode, DesiredImageState, names};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::sync::Notify;

use super::host::{Act, Host, Plan};
use crate::hosts;

/// The agents of one fleet, and what they have seen.
pub(super) struct Played {
    client: Client,
    /// Which `BootcNode`s are watched: its own, and maybe others.
    seen_by: watcher::Config,
    fleet: String,
    hosts: Mutex<BTreeMap<String, Host>>,
    seen: Mutex<BTreeMap<String, BootcNode>>,
    /// All versions that were ever seen, in order.
    history: Mutex<Vec<BootcNode>>,
    changed: Notify,
    /// What should never be seen.
    pub(super) faults: Mutex<Vec<String>>,
    /// Approvals that were looked at: a node, and the generation of its object.
    witnessed: Mutex<BTreeSet<(String, Option<i64>)>>,
    /// The most nodes that held a slot at once.
    pub(super) most_slots: AtomicUsize,
    names: Vec<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Played {
    pub(super) fn new(
        client: Client,
        fleet: &str,
        names: &[String],
        seen_by: watcher::Config,
    ) -> Self {
        let image = super::reference(super::A);
        let hosts = names
            .iter()
            .map(|name| (name.clone(), Host::booted(&image)));
        Self {
            client,
            seen_by,
            fleet: fleet.to_owned(),
            hosts: Mutex::new(hosts.collect()),
            seen: Mutex::default(),
            history: Mutex::default(),
            changed: Notify::new(),
            faults: Mutex::default(),
            witnessed: Mutex::default(),
            most_slots: AtomicUsize::new(0),
            names: names.to_vec(),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn plan(&self, name: &str, change: impl FnOnce(&mut Plan)) {
        self.change(name, |host| change(&mut host.plan));
    }

    pub(super) fn plan_all(&self, change: impl Fn(&mut Plan)) {
        for host in locked(&self.hosts).values_mut() {
            change(&mut host.plan);
        }
        self.changed.notify_one();
    }

    pub(super) fn boot_into(&self, name: &str, image: &str) {
        self.change(name, |host| host.boot_into(image));
    }

    pub(super) fn unstage(&self, name: &str) {
        self.change(name, Host::unstage);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Host)) {
        if let Some(host) = locked(&self.hosts).get_mut(name) {
            change(host);
        }
        self.changed.notify_one();
    }

    pub(super) fn history(&self, name: &str) -> Vec<BootcNode> {
        let all = locked(&self.history);
        all.iter()
            .filter(|node| node.name_any() == name)
            .cloned()
            .collect()
    }

    pub(super) fn reboots(&self) -> Vec<u32> {
        locked(&self.hosts)
            .values()
            .map(|host| host.reboots)
            .collect()
    }

    /// The boot that a host is in.
    pub(super) fn boot(&self, name: &str) -> String {
        locked(&self.hosts)
            .get(name)
            .map(Host::boot)
            .unwrap_or_default()
    }

    fn fault(&self, fault: String) {
        locked(&self.faults).push(fault);
    }

    /// Plays the agents until it is dropped.
    pub(super) async fn agents(self: Arc<Self>) {
        let api = Api::<BootcNode>::all(self.client.clone());
        let mut events = watcher(api, self.seen_by.clone()).default_backoff().boxed();
        loop {
            let turn = tokio::select! {
                event = events.try_next() => match event {
                    Ok(Some(event)) => self.observe(event),
                    Ok(None) => return,
                    Err(_) => continue,
                },
                () = self.changed.notified() => self.names.clone(),
            };
            for name in turn {
                self.turn(&name).await;
            }
        }
    }

    /// Keeps what was seen; answers whose turn it is.
    fn observe(&self, event: Event<BootcNode>) -> Vec<String> {
        // A list that follows a broken watch may skip versions: what it shows of one object fits
        // neither the version before nor the other objects until it is complete.
        let (node, gone, listed) = match event {
            Event::Apply(node) => (node, false, false),
            Event::InitApply(node) => (node, false, true),
            Event::Delete(node) => (node, true, false),
            Event::Init => {
                locked(&self.seen).clear();
                return Vec::new();
            }
            Event::InitDone => {
                self.count_slots(&locked(&self.seen));
                return Vec::new();
            }
        };
        let name = node.name_any();
        if !self.names.contains(&name) {
            return Vec::new();
        }
        locked(&self.history).push(node.clone());
        let mut seen = locked(&self.seen);
        if gone {
            seen.remove(&name);
        } else {
            self.judge(seen.get(&name), &node);
            seen.insert(name.clone(), node);
        }
        if !listed {
            self.count_slots(&seen);
        }
        vec![name]
    }

    fn count_slots(&self, seen: &BTreeMap<String, BootcNode>) {
        let in_slot = |node: &&BootcNode| {
            node.annotations()
                .contains_key(names::ANNOTATION_IN_REBOOT_SLOT)
        };
        let slots = seen.values().filter(in_slot).count();
        self.most_slots.fetch_max(slots, Ordering::AcqRel);
    }

    /// Guarantees that one version of an object shows, beside the version before.
    fn judge(&self, before: Option<&BootcNode>, now: &BootcNode) {
        let (name, booted) = (
            now.name_any(),
            now.spec.desired_image_state == DesiredImageState::Booted,
        );
        let Some(before) = before else { return };
        let another = before.spec.desired_image != now.spec.desired_image;
        if another && booted {
            self.fault(format!(
                "{name}: another image, and its state was not reset in the same write"
            ));
        }
        let approves = booted && before.spec.desired_image_state != now.spec.desired_image_state;
        if approves
            && !now
                .annotations()
                .contains_key(names::ANNOTATION_IN_REBOOT_SLOT)
        {
            self.fault(format!("{name}: approved without a slot"));
        }
    }

    /// A host acts on the newest that the API server has, as the agent must: what was seen may be
    /// an approval that is revoked by now.
    async fn turn(&self, name: &str) {
        let api = Api::<BootcNode>::all(self.client.clone());
        let Ok(Some(node)) = api.get_opt(name).await else {
            return;
        };
        self.witness(name, &node).await;
        let acts = locked(&self.hosts)
            .get_mut(name)
            .map(|host| host.step(&node));
        for act in acts.into_iter().flatten() {
            // A node or object that is being deleted takes no more reports.
            let _gone = self.act(name, &node, act).await;
        }
    }

    async fn act(&self, name: &str, node: &BootcNode, act: Act) -> Result<()> {
        match act {
            Act::Report(status) => {
                let known = node.status.as_ref().map(serde_json::to_value).transpose()?;
                if known.is_some_and(|known| says(&known, &status)) {
                    return Ok(());
                }
                let body = json!({
                    "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode",
                    "metadata": { "uid": node.uid() }, "status": status,
                });
                let params = PatchParams::apply(names::FIELD_MANAGER_AGENT).force();
                let api = Api::<BootcNode>::all(self.client.clone());
                api.patch_status(name, &params, &Patch::Apply(body)).await?;
            }
            Act::Node(ready, boot) => {
                let status = if ready { "True" } else { "Unknown" };
                let patch = Patch::Merge(hosts::ready(status, &boot));
                let api = Api::<Node>::all(self.client.clone());
                api.patch_status(name, &PatchParams::default(), &patch)
                    .await?;
            }
        }
        Ok(())
    }

    /// A node that was just approved must be cordoned and empty. What is found must be so while the
    /// approval stands: one that is taken back meanwhile says nothing.
    async fn witness(&self, name: &str, node: &BootcNode) {
        let approval = (name.to_owned(), node.metadata.generation);
        let approved = node.spec.desired_image_state == DesiredImageState::Booted;
        if !approved || !locked(&self.witnessed).insert(approval) {
            return;
        }
        // A node or object that is gone is approved for nothing.
        if let Ok(found) = self.objections(name).await
            && let Ok(Some(now)) = Api::<BootcNode>::all(self.client.clone())
                .get_opt(name)
                .await
            && now.metadata.generation == node.metadata.generation
        {
            for fault in found {
                self.fault(fault);
            }
        }
    }

    async fn objections(&self, name: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let node = Api::<Node>::all(self.client.clone()).get(name).await?;
        if node
            .spec
            .is_none_or(|spec| spec.unschedulable != Some(true))
        {
            found.push(format!("{name}: approved, and it is not cordoned"));
        }
        let on_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.fleet)
            .list(&on_node)
            .await?;
        let left: BTreeSet<_> = pods.iter().map(ResourceExt::name_any).collect();
        if !left.is_empty() {
            found.push(format!("{name}: approved, and not drained of {left:?}"));
        }
        Ok(found)
    }
}

/// Does the status say all of this already? Times are not compared: ours are made up.
fn says(known: &serde_json::Value, report: &serde_json::Value) -> bool {
    let part = |field: &str| known.get(field).filter(|value| !value.is_null()).cloned();
    let same = |field: &str| match report.get(field).filter(|value| !value.is_null()) {
        None => part(field).is_none(),
        Some(wanted) => part(field).is_some_and(|have| covers(&have, wanted)),
    };
    [
        "observedGeneration",
        "boot",
        "booted",
        "staged",
        "rollback",
        "conditions",
    ]
    .into_iter()
    .all(same)
}

/// Does `have` hold everything of `wanted`? Lists are searched, since others add to them.
fn covers(have: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| have.get(key).is_some_and(|have| covers(have, value))),
        (Value::Array(have), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| have.iter().any(|have| covers(have, wanted))),
        _ => have == wanted,
    }
}
