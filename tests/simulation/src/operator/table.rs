//! What one watch has told, and what of it is news.

use std::{collections::BTreeMap, sync::Arc};

use crate::api::{BootcNode, Named, Shelf, Stamp};

/// An object as it is known.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub(super) version: u64,
    pub(super) object: Arc<T>,
    /// A write was refused since there is a newer version: tell of it even if its facts are equal.
    awaited: bool,
}

/// What one watch has told.
#[derive(Clone, Debug)]
pub(super) struct Table<K, T> {
    pub(super) known: BTreeMap<K, Known<T>>,
    /// Up to here the log was read; `None` before the first list.
    pub(super) cursor: Option<usize>,
    /// The watch broke: it begins with a list.
    pub(super) relist: bool,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            cursor: None,
            relist: false,
        }
    }
}

impl<K: Ord + Clone, T: Named> Table<K, T> {
    pub(super) fn has_news(&self, shelf: &Shelf<K, T>) -> bool {
        self.relist || self.cursor.is_none_or(|cursor| cursor < shelf.log.len())
    }

    pub(super) fn lags(&self, shelf: &Shelf<K, T>) -> usize {
        shelf.log.len().saturating_sub(self.cursor.unwrap_or(0))
    }

    /// The names of which there is news.
    pub(super) fn next(&mut self, shelf: &Shelf<K, T>, same: fn(&T, &T) -> bool) -> Vec<K> {
        match self.cursor {
            Some(cursor) if !self.relist => {
                self.cursor = Some(cursor + 1);
                let Some(change) = shelf.log.get(cursor) else {
                    return Vec::new();
                };
                let known = self.known.get(&change.name);
                if known.is_some_and(|known| known.version >= change.version) {
                    return Vec::new();
                }
                let news = match &change.object {
                    Some(object) => self.put(&change.name, change.version, object.clone(), same),
                    None => self.known.remove(&change.name).is_some(),
                };
                news.then(|| change.name.clone()).into_iter().collect()
            }
            _ => self.list(shelf, same),
        }
    }

    fn list(&mut self, shelf: &Shelf<K, T>, same: fn(&T, &T) -> bool) -> Vec<K> {
        (self.cursor, self.relist) = (Some(shelf.log.len()), false);
        let mut news = Vec::new();
        for (name, stored) in &shelf.now {
            if self.put(name, stored.version, stored.object.clone(), same) {
                news.push(name.clone());
            }
        }
        let gone = |name: &&K| !shelf.now.contains_key(*name);
        let gone: Vec<K> = self.known.keys().filter(gone).cloned().collect();
        for name in gone {
            self.known.remove(&name);
            news.push(name);
        }
        news
    }

    fn put(&mut self, name: &K, version: u64, object: Arc<T>, same: fn(&T, &T) -> bool) -> bool {
        let known = self.known.get(name);
        let news = known.is_none_or(|known| known.awaited || !same(&known.object, &object));
        let known = Known {
            version,
            object,
            awaited: false,
        };
        self.known.insert(name.clone(), known);
        news
    }

    /// An object that a write of ours returned.
    pub(super) fn answered(
        &mut self,
        name: &K,
        version: u64,
        object: Arc<T>,
        same: fn(&T, &T) -> bool,
    ) -> bool {
        let Some(known) = self.known.get(name) else {
            return false;
        };
        if known.object.uid() != object.uid() || known.version >= version {
            return false;
        }
        self.put(name, version, object, same)
    }

    /// After a conflict; says whether the newer version is here already.
    pub(super) fn outdated(&mut self, name: &K, stale: &Stamp) -> bool {
        match self.known.get_mut(name) {
            Some(known) if known.version == stale.version => {
                known.awaited = true;
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    pub(super) fn stamp(&self, name: &K) -> Option<Stamp> {
        let known = self.known.get(name)?;
        Some(Stamp {
            uid: known.object.uid().to_owned(),
            version: known.version,
        })
    }

    pub(super) fn get(&self, name: &K) -> Option<&T> {
        self.known.get(name).map(|known| &*known.object)
    }
}

/// Are all facts of two versions the same?
pub(super) fn same_bootc(a: &BootcNode, b: &BootcNode) -> bool {
    a.view == b.view
}
