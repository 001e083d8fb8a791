//! Every kind of record with every kind of facts: whatever is known, the guarantees hold.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod every;

use fsm::{
    Record, State,
    command::Effect,
    node::{DrainStage, Facts, Wanted, record::Group},
};

use every::{Outcome, decide, each};

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
