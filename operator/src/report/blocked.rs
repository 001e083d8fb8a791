//! How many drains wait for a pod, by what holds that up.

use std::collections::{BTreeMap, BTreeSet};

use fsm::NodeName;

use crate::drain::{Cause, Report};

/// The drains under way that wait, as a sum.
#[derive(Debug, Default)]
pub struct Blocked {
    nodes: BTreeMap<NodeName, BTreeSet<&'static str>>,
}

impl Blocked {
    /// Takes what a drain has to say.
    pub fn see(&mut self, node: &NodeName, report: &Report) {
        match report {
            Report::Waiting(waits) => {
                let causes = waits.pods.iter().filter_map(|wait| wait.cause.blocks());
                self.nodes.insert(node.clone(), causes.collect());
            }
            Report::Done { .. } => self.forget(node),
            Report::Evicting(_) => {}
        }
    }

    /// The drain of this node has ended.
    pub fn forget(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// How many drains each cause holds up. The work grows with the drains under way, which slots
    /// bound.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let holds_up = |cause| {
            self.nodes
                .values()
                .filter(|all| all.contains(cause))
                .count()
        };
        Cause::BLOCKING.map(|cause| (cause, holds_up(cause))).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{PodName, PodWait, Waits};

    fn waiting(causes: &[Cause]) -> Report {
        let wait = |cause: &Cause| PodWait {
            pod: PodName::new("ns", "web"),
            cause: cause.clone(),
        };
        Report::Waiting(Waits {
            pods: causes.iter().map(wait).collect(),
            ..Waits::default()
        })
    }

    #[test]
    fn a_drain_counts_once_for_each_cause_that_holds_it_up() {
        let mut blocked = Blocked::default();
        let stops = Cause::Terminating {
            grace: 30,
            overdue: false,
            finalizers: Vec::new(),
        };
        blocked.see(
            &"w1".into(),
            &waiting(&[Cause::ManyBudgets, Cause::ManyBudgets]),
        );
        blocked.see(&"w2".into(), &waiting(&[Cause::ManyBudgets, Cause::Busy]));
        blocked.see(&"w3".into(), &waiting(&[stops]));
        let counts = |blocked: &Blocked| {
            let held = blocked.counts().into_iter().filter(|(_, count)| *count > 0);
            held.collect::<Vec<_>>()
        };
        assert_eq!(
            counts(&blocked),
            [("PodDisruptionBudget", 2), ("ApiServer", 1)]
        );
        blocked.see(&"w1".into(), &Report::Done { stayed: Vec::new() });
        blocked.forget(&"w2".into());
        assert_eq!(counts(&blocked), []);
        assert_eq!(
            blocked.counts().len(),
            Cause::BLOCKING.len(),
            "zeros are told"
        );
    }
}
