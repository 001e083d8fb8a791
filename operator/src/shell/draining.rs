//! What a drain says, in the words of decisions and of Events.

use fsm::{
    command::{About, Notice},
    input::{BlockedPod, DrainReport},
};

use crate::drain::{Cause, Notable, PodName, Report, Waits};

/// Pods named in one Event; the rest are counted.
const NAMED: usize = 5;

/// What a drain's report means for its node.
pub(super) fn report(report: &Report) -> Option<DrainReport> {
    match report {
        Report::Evicting(_) => None,
        Report::Waiting(waits) => Some(DrainReport::Pods(pods(waits))),
        Report::Done { .. } => Some(DrainReport::Done),
    }
}

fn pods(waits: &Waits) -> Vec<BlockedPod> {
    if let Some(trouble) = &waits.trouble {
        let why = format!("they cannot be seen: {trouble}");
        return vec![BlockedPod {
            pod: "of the node".to_owned(),
            why: Some(why),
        }];
    }
    let blocked = |wait: &crate::drain::PodWait| BlockedPod {
        pod: wait.pod.to_string(),
        why: match &wait.cause {
            Cause::Terminating { overdue: false, .. } => None,
            cause => Some(cause.to_string()),
        },
    };
    waits.pods.iter().map(blocked).collect()
}

/// What people should hear of a drain.
pub(super) fn notice(report: &Report, about: About) -> Option<Notice> {
    let (reason, note) = match report {
        Report::Evicting(pods) => ("Evicting", evicting(pods)),
        Report::Done { stayed } if !stayed.is_empty() => ("PodsStay", staying(stayed)),
        Report::Waiting(_) | Report::Done { .. } => return None,
    };
    Some(Notice {
        about,
        warning: false,
        reason: reason.to_owned(),
        action: "Drain".to_owned(),
        note,
    })
}

fn evicting(pods: &[Notable]) -> String {
    named(pods)
}

fn staying(pods: &[PodName]) -> String {
    format!(
        "pods that tolerate the cordon came back and stay: {}",
        named(pods)
    )
}

fn named<T: ToString>(all: &[T]) -> String {
    let first: Vec<String> = all.iter().take(NAMED).map(ToString::to_string).collect();
    match all.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{Note, PodWait};

    fn about() -> About {
        About::Node("w1".into(), None)
    }

    fn wait(cause: Cause) -> PodWait {
        PodWait {
            pod: PodName::new("shop", "a"),
            cause,
        }
    }

    #[test]
    fn a_pod_that_just_shuts_down_needs_no_reason() {
        let stopping = |overdue| {
            wait(Cause::Terminating {
                grace: 30,
                overdue,
                finalizers: Vec::new(),
            })
        };
        let waits = Waits {
            left: Some(3),
            pods: vec![stopping(false), stopping(true)],
            trouble: None,
        };
        let Some(DrainReport::Pods(pods)) = report(&Report::Waiting(waits)) else {
            panic!("a drain that waits names its pods");
        };
        assert_eq!(
            pods[0],
            BlockedPod {
                pod: "shop/a".into(),
                why: None
            }
        );
        assert!(
            pods[1].why.as_ref().is_some_and(|why| why.contains("30 s")),
            "{pods:?}"
        );
    }

    #[test]
    fn a_drain_that_sees_nothing_says_so() {
        let waits = Waits {
            trouble: Some("forbidden".into()),
            ..Waits::default()
        };
        let Some(DrainReport::Pods(pods)) = report(&Report::Waiting(waits)) else {
            panic!("a drain that waits names its pods");
        };
        assert!(
            pods[0]
                .why
                .as_ref()
                .is_some_and(|why| why.contains("forbidden"))
        );
    }

    #[test]
    fn people_hear_of_notable_evictions_and_of_pods_that_stay() {
        let notable = Notable {
            pod: PodName::new("shop", "a"),
            notes: vec![Note::Bare],
        };
        let evicting = notice(&Report::Evicting(vec![notable; 7]), about()).unwrap();
        assert!(evicting.note.contains("shop/a") && evicting.note.ends_with("and 2 more"));
        let stayed = vec![PodName::new("kube-system", "proxy")];
        let done = notice(&Report::Done { stayed }, about()).unwrap();
        assert!(done.note.contains("kube-system/proxy"));
        assert_eq!(notice(&Report::Done { stayed: Vec::new() }, about()), None);
        assert_eq!(notice(&Report::Waiting(Waits::default()), about()), None);
    }
}
