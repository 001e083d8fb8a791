//! Every kind of record with every kind of facts: whatever is known, the guarantees hold.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

use fsm::{
    Image, PoolName, Record, Running, State, Timestamp,
    command::Effect,
    node::{
        Approval, Drain, DrainStage, Facts, Slot, Wanted,
        effects::{Extras, Site, effects},
        record::Group,
        step,
    },
    view::{
        Activity, AgentFault, AgentFaultKind, BootcNodeView, Kept, NodeSpec, NodeView, Owner,
        Report,
    },
};

const NOW: Timestamp = Timestamp(10_000_000);
const LONG_AGO: Timestamp = Timestamp(1_000_000);

fn image(n: u8) -> Image {
    Image::of("r/os", &format!("sha256:{n}")).unwrap()
}

fn running(n: u8) -> Running {
    Running {
        image: None,
        digest: format!("sha256:{n}"),
    }
}

/// The record's image is 2, the host ran 1 before; 3 is any other one.
fn records() -> Vec<Record> {
    let mut all = Vec::new();
    for state in State::ALL {
        for slot in [false, true] {
            let needs_slot = matches!(state, State::Cordoned | State::Draining | State::Rebooting);
            if (needs_slot && !slot) || (state == State::Idle && slot) {
                continue;
            }
            for approval in [None, Some("b1"), Some("b0")] {
                // How often it was tried matters to a slot that is still to be used.
                for tries in if state == State::Staged {
                    vec![0, 3]
                } else {
                    vec![0]
                } {
                    all.push(Record {
                        state,
                        since: LONG_AGO,
                        clock: LONG_AGO,
                        written: LONG_AGO,
                        image: Some(image(2)),
                        slot: slot.then_some(Slot {
                            was_cordoned: false,
                            since: LONG_AGO,
                        }),
                        approval: approval.map(|boot| Approval {
                            boot: Some(boot.to_owned()),
                            before: Some("sha256:1".to_owned()),
                            at: LONG_AGO,
                        }),
                        attempt: 1,
                        tries,
                        node_uid: "n".to_owned(),
                        ..Record::default()
                    });
                }
            }
        }
    }
    all
}

fn nodes() -> Vec<Option<NodeView>> {
    let mut all = vec![None];
    for (ready, since) in [(true, LONG_AGO), (false, NOW), (false, LONG_AGO)] {
        for by in [None, Some("them"), Some("us")] {
            all.push(Some(NodeView {
                uid: "n".to_owned(),
                labelled: true,
                cordoned: by.is_some(),
                cordoned_by: (by == Some("us")).then(|| PoolName::from("p")),
                ready: Some(ready),
                ready_since: Some(since),
                boot_id: Some("b1".to_owned()),
                ..NodeView::default()
            }));
        }
    }
    all
}

fn reports() -> Vec<Option<Report>> {
    let mut all = vec![None];
    for activity in [Activity::Idle, Activity::Staging, Activity::Staged] {
        for booted in [1, 2, 3] {
            for staged in [Some(3), Some(2)] {
                for boot in ["b1", "b2"] {
                    for fault in [
                        None,
                        Some(AgentFaultKind::Error),
                        Some(AgentFaultKind::FellBack),
                    ] {
                        all.push(Some(Report {
                            observed_generation: Some(1),
                            boot: Some(boot.to_owned()),
                            booted: Some(running(booted)),
                            staged: staged.map(running),
                            activity,
                            degraded: fault.map(|kind| AgentFault {
                                kind,
                                message: String::new(),
                            }),
                        }));
                    }
                }
            }
        }
    }
    all
}

fn drains() -> Vec<Option<Drain>> {
    let drain = |attempt, stage| Some(Drain { attempt, stage });
    vec![
        None,
        drain(1, DrainStage::Running),
        drain(1, DrainStage::Done),
        drain(0, DrainStage::Done),
    ]
}

/// wanted, contested, granted, halted
fn wishes() -> Vec<(Wanted, bool, bool, bool)> {
    let mut all = vec![(Wanted::Left, false, false, false)];
    for wanted in [
        Wanted::Unknown,
        Wanted::Wants(image(1)),
        Wanted::Wants(image(2)),
        Wanted::Wants(image(3)),
    ] {
        for (contested, granted, halted) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
        ] {
            all.push((wanted.clone(), contested, granted, halted));
        }
    }
    all
}

/// The `BootcNode` that holds this record.
fn holder(record: &Record, report: Option<&Report>) -> BootcNodeView {
    BootcNodeView {
        uid: "b".to_owned(),
        generation: 1,
        spec: NodeSpec {
            image: record.image.clone(),
            booted: record.approval.is_some(),
            approved_boot: record
                .approval
                .as_ref()
                .and_then(|approval| approval.boot.clone()),
            ..NodeSpec::default()
        },
        kept: Kept::Is(Box::new(record.clone())),
        in_reboot_slot: record.slot.is_some(),
        was_cordoned: record.slot.as_ref().map(|slot| slot.was_cordoned),
        report: report.cloned(),
        ..BootcNodeView::default()
    }
}

struct Outcome {
    after: Record,
    effects: Vec<Effect>,
}

fn decide(record: &Record, facts: &Facts<'_>) -> Outcome {
    let owner = Owner {
        pool: "p".into(),
        uid: "p".to_owned(),
    };
    let bootc = holder(record, facts.report);
    let extras = Extras::default();
    let site = Site {
        owner: Some(&owner),
        extras: &extras,
        bootc: Some(&bootc),
        kept: Some(record),
    };
    let after = step(record, facts, |next| {
        !effects(next, facts, &site).is_empty()
    });
    let effects = effects(&after, facts, &site);
    Outcome { after, effects }
}

fn each(mut check: impl FnMut(&Record, &Facts<'_>)) {
    let (nodes, reports, drains) = (nodes(), reports(), drains());
    for record in records() {
        for (wanted, contested, granted, halted) in wishes() {
            for node in &nodes {
                for report in &reports {
                    for drain in &drains {
                        let facts = Facts {
                            now: NOW,
                            wanted: wanted.clone(),
                            contested,
                            granted,
                            room: true,
                            halted,
                            node: node.as_ref(),
                            generation: 1,
                            report: report.as_ref(),
                            drain: drain.as_ref(),
                            ..Facts::default()
                        };
                        check(&record, &facts);
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_is_known_the_guarantees_hold() {
    let mut points = 0_u32;
    each(|record, facts| {
        points += 1;
        let Outcome { after, effects } = decide(record, facts);
        let point = || format!("{record:?}\n{facts:?}\n{after:?}\n{effects:?}");
        approvals(record, facts, &after, &point);
        slots(record, facts, &after, &point);
        order(record, facts, &effects, &point);
        if effects.is_empty() {
            let facts = Facts {
                granted: false,
                ..facts.clone()
            };
            assert_eq!(
                decide(&after, &facts).after,
                after,
                "not at rest: {}",
                point()
            );
        }
    });
    assert!(points > 1_000_000, "{points}");
}

/// 2, 4 and 16: an approval is new only for a cordoned, drained, exactly staged slot holder of a
/// pool that is not halted, and never comes with another image.
fn approvals(record: &Record, facts: &Facts<'_>, after: &Record, point: &dyn Fn() -> String) {
    if after.image != record.image {
        assert_eq!(after.approval, None, "{}", point());
    }
    if after.approval.is_none() || after.approval == record.approval {
        return;
    }
    let drain = facts.drain.unwrap();
    let drained = drain.stage == DrainStage::Done && drain.attempt == record.attempt;
    let staged = facts.staged_is(record.image.as_ref().unwrap());
    let calm = !facts.halted && !facts.contested && facts.wanted != Wanted::Left;
    assert!(facts.cordoned() && drained && staged && calm, "{}", point());
    assert!(
        after.slot.is_some() && matches!(record.state, State::Cordoned | State::Draining),
        "{}",
        point()
    );
    assert_eq!(
        after.approval.as_ref().unwrap().boot.as_deref(),
        facts.boot(),
        "{}",
        point()
    );
}

/// 1 and 16: a slot is taken only when granted, and not given back while a reboot may be under way.
fn slots(record: &Record, facts: &Facts<'_>, after: &Record, point: &dyn Fn() -> String) {
    if record.slot.is_none() && after.slot.is_some() {
        assert!(
            facts.granted && record.state != State::Leaving,
            "{}",
            point()
        );
    }
    if record.slot.is_some() && after.slot.is_none() {
        let runs = facts.booted_is(record.image.as_ref().unwrap());
        let unused = matches!(
            record.state,
            State::Cordoned | State::Draining | State::Staging | State::Staged
        );
        assert!(!facts.approval_out(record) || runs || unused, "{}", point());
        assert_ne!(after.state, State::Rebooting, "{}", point());
    }
    if after.state == State::Rebooting {
        assert!(
            after.slot.is_some() && after.approval == record.approval
                || matches!(record.state, State::Cordoned | State::Draining)
        );
    }
}

/// 5 and the order of effects: release, commit, acquire; only our own cordon is taken back, and not
/// before an approval that may still be acted on.
fn order(record: &Record, facts: &Facts<'_>, effects: &[Effect], point: &dyn Fn() -> String) {
    let revokes = facts.approval_out(record);
    let rank = |effect: &Effect| match effect {
        Effect::Delete if revokes => -1,
        Effect::CancelDrain => 0,
        Effect::Uncordon | Effect::ForgetCordon => 1,
        Effect::Unlabel => 2,
        Effect::Commit(_) | Effect::Create { .. } | Effect::Delete => 3,
        Effect::Label => 4,
        Effect::Cordon { .. } => 5,
        Effect::StartDrain { .. } => 6,
    };
    assert!(effects.is_sorted_by_key(rank), "{}", point());
    let ours = facts.node.is_some_and(|node| node.cordoned_by.is_some());
    for effect in effects {
        match effect {
            Effect::Uncordon => assert!(ours, "{}", point()),
            Effect::StartDrain { .. } => {
                assert!(facts.cordoned() && record.slot.is_some(), "{}", point());
            }
            Effect::Cordon { .. } => assert!(!facts.cordoned(), "{}", point()),
            _ => {}
        }
    }
}

/// The state that a restart finds: what is kept is the group.
fn found_after_restart(record: &Record) -> Record {
    let state = match record.state {
        State::Staged | State::Idle => State::Staging,
        State::Draining => State::Cordoned,
        State::Verifying if record.approval.is_some() => State::Rebooting,
        State::Verifying if record.slot.is_none() => State::Staging,
        other => other,
    };
    Record {
        state,
        ..record.clone()
    }
}

#[test]
fn a_restart_between_any_two_steps_changes_nothing() {
    let mut compared = 0_u32;
    each(|record, facts| {
        // A restart ends all drains, and a grant is given to a node that has come to rest.
        // (A report, once made, does not vanish.)
        let transient = facts.drain.is_some() || facts.granted || facts.report.is_none();
        if transient || record.state == State::Leaving {
            return;
        }
        let plain = decide(record, facts);
        if !plain.effects.is_empty() {
            return;
        }
        let rest = plain.after;
        let again = decide(&found_after_restart(&rest), facts);
        let point = || format!("{rest:?}\n{facts:?}\n{:?} {:?}", again.after, again.effects);
        assert_eq!(again.effects, [], "{}", point());
        // Rebooting and Verifying differ in name alone until the node is back.
        if rest.group() != Group::ComingUp {
            assert_eq!(again.after.state, rest.state, "{}", point());
        }
        assert!(again.after.is_kept_by(&rest), "{}", point());
        compared += 1;
    });
    assert!(compared > 10_000, "{compared}");
}
