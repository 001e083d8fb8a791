//! Which Events are the same thing said again: those are counted on the one that is there.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{api::events::v1::Event, jiff::Timestamp};

/// What is said again within this time is the same series, as in client-go.
const WINDOW: Duration = Duration::from_secs(360);
/// Events remembered; beyond that the oldest are forgotten, and said anew.
const REMEMBERED: usize = 4096;

/// What makes two Events the same: object, type, reason, action and note.
type Key = [String; 6];

/// The Events of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Series {
    told: HashMap<Key, Told>,
}

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

/// What is to be done with an Event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is new.
    Create,
    /// The one of this name has now been seen so often.
    Count { name: String, count: i32 },
}

fn key(event: &Event) -> Key {
    let object = event.regarding.clone().unwrap_or_default();
    [
        object.kind,
        object.uid.or(object.name),
        event.type_.clone(),
        event.reason.clone(),
        event.action.clone(),
        event.note.clone(),
    ]
    .map(Option::unwrap_or_default)
}

impl Series {
    /// Takes an Event that is to be told now.
    pub(super) fn next(&mut self, event: &Event, now: Timestamp) -> Next {
        let key = key(event);
        let since = |told: &Told| now.duration_since(told.last).unsigned_abs();
        let known = self.told.get_mut(&key).filter(|told| since(told) < WINDOW);
        if let Some(told) = known {
            (told.count, told.last) = (told.count.saturating_add(1), now);
            let (name, count) = (told.name.clone(), told.count);
            return Next::Count { name, count };
        }
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, told| since(told) < WINDOW);
        }
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let name = event.metadata.name.clone().unwrap_or_default();
        let told = Told {
            name,
            count: 1,
            last: now,
        };
        self.told.insert(key, told);
        Next::Create
    }

    /// It is not there, or was never written: the next one is new.
    pub(super) fn forget(&mut self, event: &Event) {
        self.told.remove(&key(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{
        api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

    fn event(name: &str, uid: &str, note: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            }),
            note: Some(note.to_owned()),
            ..Event::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn what_is_said_again_is_counted_and_what_differs_is_not() {
        let mut series = Series::default();
        assert_eq!(series.next(&event("a", "1", "x"), at(0)), Next::Create);
        let count = |count| Next::Count {
            name: "a".into(),
            count,
        };
        assert_eq!(series.next(&event("b", "1", "x"), at(10)), count(2));
        assert_eq!(series.next(&event("c", "1", "x"), at(300)), count(3));
        assert_eq!(series.next(&event("d", "2", "x"), at(300)), Next::Create);
        assert_eq!(series.next(&event("e", "1", "y"), at(300)), Next::Create);
        assert_eq!(series.next(&event("f", "1", "x"), at(800)), Next::Create);
        series.forget(&event("f", "1", "x"));
        assert_eq!(series.next(&event("g", "1", "x"), at(801)), Next::Create);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut series = Series::default();
        for n in 0..3 * REMEMBERED {
            series.next(&event("a", &n.to_string(), "x"), at(0));
        }
        assert!(series.told.len() <= REMEMBERED);
    }
}
