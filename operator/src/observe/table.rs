//! The newest state of every object of one kind, as the watch and the answers to our own writes
//! tell it.
//!
//! An object is never replaced by an older version of itself. All our writes name the version that
//! they were decided on, so the versions they went through are known: a watch that still brings one
//! of those is behind, and an answer whose predecessors are no longer here is behind the watch.

use std::collections::{BTreeMap, BTreeSet};

use kube::{core::ObjectMeta, runtime::watcher::Event};

use super::wire::Watched;

/// Which object, and which version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub version: String,
}

impl From<&ObjectMeta> for Stamp {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

#[derive(Debug)]
struct Entry<V> {
    stamp: Stamp,
    facts: V,
    /// Versions that our own writes went through before this one.
    passed: Vec<String>,
    /// A write was refused since there is a newer version: tell of it even if its facts are equal.
    awaited: bool,
}

/// All objects of one kind by name.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// Boxed, since a map keeps room for as many again.
    known: BTreeMap<K, Box<Entry<V>>>,
    /// The names that a list under way has brought so far.
    listing: Option<BTreeSet<K>>,
    complete: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            listing: None,
            complete: false,
        }
    }
}

impl<K: Ord + Clone + From<String>, V: PartialEq> Table<K, V> {
    /// Whether a whole list was seen: what is not here by now does not exist.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The facts of an object.
    pub(super) fn get(&self, name: &K) -> Option<&V> {
        self.known.get(name).map(|entry| &entry.facts)
    }

    /// The version whose facts are here.
    pub(super) fn stamp(&self, name: &K) -> Option<&Stamp> {
        self.known.get(name).map(|entry| &entry.stamp)
    }

    /// All facts, to be changed in place where they depend on other kinds.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.known
            .iter_mut()
            .map(|(name, entry)| (name, &mut entry.facts))
    }

    /// An object's facts, to be changed in place where they depend on other kinds.
    pub(super) fn get_mut(&mut self, name: &K) -> Option<&mut V> {
        self.known.get_mut(name).map(|entry| &mut entry.facts)
    }

    /// Takes in what the watch says, and names the objects of which there is news: facts that are
    /// not the `same`, or an end.
    pub(super) fn watched<W: Watched>(
        &mut self,
        event: Event<W>,
        facts: impl Fn(&K, W) -> V,
        same: impl Fn(&V, &V) -> bool,
    ) -> Vec<K> {
        match event {
            Event::Init => self.listing = Some(BTreeSet::new()),
            Event::InitDone => return self.end_list(),
            Event::InitApply(object) => {
                let name: K = name(&object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(name.clone());
                }
                return self.apply(name, object, facts, same).into_iter().collect();
            }
            Event::Apply(object) => {
                return self
                    .apply(name(&object), object, facts, same)
                    .into_iter()
                    .collect();
            }
            Event::Delete(object) => return self.delete(name(&object), &object),
        }
        Vec::new()
    }

    fn apply<W: Watched>(
        &mut self,
        name: K,
        object: W,
        facts: impl Fn(&K, W) -> V,
        same: impl Fn(&V, &V) -> bool,
    ) -> Option<K> {
        let stamp = Stamp::from(object.meta());
        let known = self.known.get(&name);
        if known.is_some_and(|known| known.passed.contains(&stamp.version)) {
            return None;
        }
        let facts = facts(&name, object);
        let news = known.is_none_or(|known| known.awaited || !same(&known.facts, &facts));
        self.put(name.clone(), stamp, facts, Vec::new());
        news.then_some(name)
    }

    fn put(&mut self, name: K, stamp: Stamp, facts: V, passed: Vec<String>) {
        let Some(known) = self.known.get_mut(&name) else {
            let entry = Entry {
                stamp,
                facts,
                passed,
                awaited: false,
            };
            self.known.insert(name, Box::new(entry));
            return;
        };
        (known.stamp, known.passed, known.awaited) = (stamp, passed, false);
        // The decisions share parts of equal ones, which would else be there twice.
        if known.facts != facts {
            known.facts = facts;
        }
    }

    /// Takes in an object that one of our writes returned; `before` are the versions that it had
    /// since the decision. Says whether that is news.
    pub(super) fn answered<W: Watched>(
        &mut self,
        object: W,
        before: Vec<String>,
        facts: impl Fn(&K, W) -> V,
        same: impl Fn(&V, &V) -> bool,
    ) -> Option<K> {
        let name = name(&object);
        let stamp = Stamp::from(object.meta());
        let known = self.known.get(&name)?;
        if known.stamp.uid != stamp.uid || !before.contains(&known.stamp.version) {
            return None;
        }
        let facts = facts(&name, object);
        let news = !same(&known.facts, &facts);
        let mut passed = known.passed.clone();
        passed.extend(
            before
                .into_iter()
                .filter(|version| *version != stamp.version),
        );
        self.put(name.clone(), stamp, facts, passed);
        news.then_some(name)
    }

    /// A write that was decided on `stale` was refused as such. Says whether the newer version is
    /// here already; if not, it will be news whatever its facts.
    pub(super) fn outdated(&mut self, name: &K, stale: &Stamp) -> bool {
        match self.known.get_mut(name) {
            Some(known) if known.stamp == *stale => {
                known.awaited = true;
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    fn delete<W: Watched>(&mut self, name: K, object: &W) -> Vec<K> {
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        match self.known.get(&name) {
            Some(known) if known.stamp.uid == uid => {
                self.known.remove(&name);
                vec![name]
            }
            _ => Vec::new(),
        }
    }

    /// Ends a list: what it did not bring is gone, its deletion happened while nobody watched.
    fn end_list(&mut self) -> Vec<K> {
        self.complete = true;
        let Some(listed) = self.listing.take() else {
            return Vec::new();
        };
        let gone: Vec<K> = self
            .known
            .keys()
            .filter(|name| !listed.contains(*name))
            .cloned()
            .collect();
        for name in &gone {
            self.known.remove(name);
        }
        gone
    }
}

fn name<K: From<String>, W: Watched>(object: &W) -> K {
    object.meta().name.clone().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::wire;
    use fsm::NodeName;
    use serde_json::json;

    type Cordons = Table<NodeName, bool>;

    fn node(name: &str, uid: &str, version: &str, cordoned: bool) -> wire::Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": uid, "resourceVersion": version },
            "spec": { "unschedulable": cordoned },
        }))
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the table calls it")]
    fn facts(_: &NodeName, node: wire::Node) -> bool {
        node.spec.unschedulable
    }

    fn watched(table: &mut Cordons, event: Event<wire::Node>) -> usize {
        table.watched(event, facts, |a, b| a == b).len()
    }

    fn apply(table: &mut Cordons, version: &str, cordoned: bool) -> usize {
        watched(table, Event::Apply(node("w1", "u1", version, cordoned)))
    }

    fn answer(table: &mut Cordons, version: &str, cordoned: bool, before: &[&str]) -> bool {
        let before = before.iter().map(|version| (*version).to_owned()).collect();
        table
            .answered(
                node("w1", "u1", version, cordoned),
                before,
                facts,
                |a, b| a == b,
            )
            .is_some()
    }

    fn version(table: &Cordons) -> Option<&str> {
        table
            .stamp(&"w1".into())
            .map(|stamp| stamp.version.as_str())
    }

    #[test]
    fn equal_facts_are_no_news_but_a_newer_version() {
        let mut table = Cordons::default();
        assert_eq!(apply(&mut table, "1", false), 1);
        assert_eq!(apply(&mut table, "2", false), 0);
        assert_eq!(version(&table), Some("2"));
        assert_eq!(apply(&mut table, "3", true), 1);
    }

    #[test]
    fn what_a_later_list_does_not_bring_is_gone() {
        let mut table = Cordons::default();
        watched(&mut table, Event::Init);
        watched(&mut table, Event::InitApply(node("w1", "u1", "1", false)));
        watched(&mut table, Event::InitApply(node("w2", "u2", "1", false)));
        assert!(!table.is_complete());
        assert_eq!(watched(&mut table, Event::InitDone), 0);
        assert!(table.is_complete());
        watched(&mut table, Event::Init);
        assert!(
            table.is_complete(),
            "what was known stays known while a list is under way"
        );
        watched(&mut table, Event::InitApply(node("w2", "u2", "1", false)));
        assert_eq!(
            table.watched(Event::<wire::Node>::InitDone, facts, |a, b| a == b),
            ["w1".into()]
        );
        assert_eq!(version(&table), None);
    }

    #[test]
    fn the_end_of_a_namesake_is_no_news() {
        let mut table = Cordons::default();
        watched(&mut table, Event::Apply(node("w1", "u2", "5", false)));
        assert_eq!(
            watched(&mut table, Event::Delete(node("w1", "u1", "4", false))),
            0
        );
        assert_eq!(
            watched(&mut table, Event::Delete(node("w1", "u2", "6", false))),
            1
        );
    }

    #[test]
    fn an_answer_is_taken_once_and_the_watch_behind_it_is_not() {
        let mut table = Cordons::default();
        apply(&mut table, "1", false);
        assert!(answer(&mut table, "3", true, &["1", "2"]));
        assert_eq!(apply(&mut table, "2", false), 0, "the watch is behind");
        assert_eq!(version(&table), Some("3"));
        assert_eq!(apply(&mut table, "3", true), 0);
        assert_eq!(apply(&mut table, "4", false), 1);
    }

    #[test]
    fn an_answer_behind_the_watch_is_not_taken() {
        let mut table = Cordons::default();
        apply(&mut table, "1", false);
        apply(&mut table, "2", true);
        apply(&mut table, "3", false);
        assert!(!answer(&mut table, "2", true, &["1"]));
        assert_eq!(version(&table), Some("3"));
    }

    #[test]
    fn two_answers_in_a_row_remember_what_both_passed() {
        let mut table = Cordons::default();
        apply(&mut table, "1", false);
        answer(&mut table, "2", true, &["1"]);
        answer(&mut table, "3", false, &["2"]);
        assert_eq!(apply(&mut table, "2", true), 0);
        assert_eq!(version(&table), Some("3"));
    }

    #[test]
    fn an_answer_that_changed_nothing_does_not_drop_its_own_version() {
        let mut table = Cordons::default();
        apply(&mut table, "1", false);
        assert!(!answer(&mut table, "1", false, &["1"]));
        assert_eq!(apply(&mut table, "2", true), 1);
    }

    #[test]
    fn after_a_conflict_the_next_version_is_news_whatever_its_facts() {
        let mut table = Cordons::default();
        let stale = Stamp {
            uid: "u1".into(),
            version: "1".into(),
        };
        let name = "w1".into();
        apply(&mut table, "1", false);
        assert!(!table.outdated(&name, &stale));
        assert_eq!(apply(&mut table, "2", false), 1);
        assert_eq!(apply(&mut table, "3", false), 0);
        assert!(
            table.outdated(&name, &stale),
            "the newer one is here already"
        );
    }
}
