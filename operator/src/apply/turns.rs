//! Whose write is next, where thousands wait.

use std::sync::Arc;

use fsm::command::{Decision, Effect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Writes under way at once: enough for many nodes, and no flood for the API server.
const AT_ONCE: usize = 16;
/// So many of them are left to the first line: else a node in its slot, whose workloads are away,
/// would stand still until thousands of others have been told to stage.
const OF_THE_FIRST: usize = 4;

/// Where a write waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Of nodes in slots, of pools, and of what is shown.
    First,
    /// Of all others.
    Rest,
}

impl Line {
    /// Of a decision on a node, which may be in a slot already or take one now.
    #[must_use]
    pub fn of(decision: &Decision, in_slot: bool) -> Self {
        let takes = |effect: &Effect| matches!(effect, Effect::Commit(it) if it.in_reboot_slot);
        if in_slot || decision.effects.iter().any(takes) {
            Self::First
        } else {
            Self::Rest
        }
    }
}

/// The turns. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    rest: Arc<Semaphore>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            rest: Arc::new(Semaphore::new(AT_ONCE - OF_THE_FIRST)),
        }
    }

    /// Waits for a turn. (None only once nobody gives any out: the semaphores are never closed.)
    pub(super) async fn next(&self, line: Line) -> Option<Turn> {
        let rest = match line {
            Line::First => None,
            Line::Rest => Some(self.rest.clone().acquire_owned().await.ok()?),
        };
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(Turn {
            _permits: [rest, Some(all)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsm::{command::NodeWrite, view::NodeSpec};
    use futures::FutureExt as _;

    fn decision(in_reboot_slot: bool) -> Decision {
        let write = NodeWrite {
            spec: NodeSpec::default(),
            record: Arc::default(),
            in_reboot_slot,
            was_cordoned: None,
            retry: None,
        };
        Decision {
            node: "w1".into(),
            pool: None,
            id: 1,
            effects: vec![Effect::Label, Effect::Commit(write)],
        }
    }

    #[test]
    fn who_has_a_slot_takes_one_or_gives_it_back_is_before_the_rest() {
        assert_eq!(Line::of(&decision(false), false), Line::Rest);
        assert_eq!(Line::of(&decision(true), false), Line::First);
        assert_eq!(Line::of(&decision(false), true), Line::First);
    }

    fn take(turns: &Turns, line: Line) -> Vec<Turn> {
        std::iter::from_fn(|| turns.next(line).now_or_never().flatten()).collect()
    }

    #[test]
    fn a_long_line_leaves_room_for_the_first() {
        let turns = Turns::new();
        let mut rest = take(&turns, Line::Rest);
        assert_eq!(rest.len(), AT_ONCE - OF_THE_FIRST);
        assert_eq!(take(&turns, Line::First).len(), OF_THE_FIRST);
        let first = take(&turns, Line::First);
        assert_eq!(first.len(), OF_THE_FIRST, "they were given back");
        rest.pop();
        assert_eq!(take(&turns, Line::First).len(), 1);
    }

    #[test]
    fn the_first_may_have_all() {
        let turns = Turns::new();
        let first = take(&turns, Line::First);
        assert_eq!(first.len(), AT_ONCE);
        assert!(take(&turns, Line::Rest).is_empty());
    }

    /// Who waits in the first line is before the rest that has no turn yet.
    #[tokio::test]
    async fn the_first_comes_before_those_that_still_wait() {
        let turns = Turns::new();
        let _rest = take(&turns, Line::Rest);
        let mut first = take(&turns, Line::First);
        let mut waiting = Box::pin(turns.next(Line::Rest));
        assert!(waiting.as_mut().now_or_never().is_none());
        first.pop();
        assert_eq!(take(&turns, Line::First).len(), 1);
        assert!(waiting.now_or_never().is_none());
    }
}
