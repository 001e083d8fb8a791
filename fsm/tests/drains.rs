//! Drains: what they wait for, when they end, when they give their slot back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use std::sync::Arc;

use fsm::{
    Command, Input, NodeName, State,
    command::Effect,
    input::{BlockedPod, DrainReport},
    node::Approval,
    time::Seconds,
    view::{Activity, AgentFault, AgentFaultKind, Amount, Kept, NodeView},
};
use toy::{Toy, image};

fn ready(nodes: u32, seed: u64) -> Toy {
    let mut toy = Toy::new(nodes, seed);
    toy.run(60);
    toy
}

fn degraded(toy: &Toy) -> (String, String) {
    let condition = toy.status().is_degraded.unwrap();
    (condition.reason, condition.message)
}

#[test]
fn a_halted_pool_approves_nothing_and_its_drain_timeout_stands_still() {
    let mut toy = ready(3, 3);
    toy.edit_pool("p", |pool| {
        pool.spec.max_unavailable = Amount::Count(3);
        pool.spec.drain_timeout = Some(Seconds(100));
        pool.spec.reboot_timeout = Some(Seconds(30));
    });
    toy.blocked.insert("w3".into());
    toy.host("w1").stays_down = true;
    toy.host("w2").stays_down = true;
    toy.want(2);
    assert!(toy.until(|toy| toy.hosts[&"w1".into()].down && toy.hosts[&"w2".into()].down));
    assert!(toy.until(|toy| toy.record("w3").state == State::Draining));
    toy.pass(40);
    assert_eq!(degraded(&toy).0, "RolloutHalted");
    toy.unblock("w3");
    toy.pass(1000);
    assert_eq!(
        toy.record("w3").state,
        State::Draining,
        "drained, not approved, not timed out"
    );
    assert!(!toy.bootc[&"w3".into()].spec.booted);
    toy.host("w1").stays_down = false;
    toy.host("w2").stays_down = false;
    toy.run(900);
    toy.assert_all_run(2);
}

#[test]
fn a_drain_has_the_rest_of_its_time_after_a_halt() {
    let mut toy = ready(3, 3);
    toy.edit_pool("p", |pool| {
        pool.spec.max_unavailable = Amount::Count(3);
        pool.spec.drain_timeout = Some(Seconds(100));
        pool.spec.reboot_timeout = Some(Seconds(30));
    });
    toy.blocked.insert("w3".into());
    for name in ["w1", "w2"] {
        toy.host(name).stays_down = true;
    }
    toy.want(2);
    toy.pass(40);
    assert_eq!(degraded(&toy).0, "RolloutHalted");
    toy.pass(1000);
    for name in ["w1", "w2"] {
        toy.host(name).stays_down = false;
    }
    toy.pass(30);
    assert_eq!(degraded(&toy).0, "OK");
    assert_eq!(toy.record("w3").state, State::Draining);
    toy.pass(100);
    assert_eq!(toy.record("w3").state, State::Staged, "it had 100 seconds");
}

#[test]
fn a_dead_node_gives_its_slot_to_another_one() {
    let mut toy = ready(2, 5);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    let now = toy.now;
    toy.edit_node("w1", |node| {
        (node.ready, node.ready_since) = (Some(false), Some(now));
    });
    toy.pass(200);
    assert_eq!(toy.record("w1").state, State::Draining);
    toy.pass(200);
    let w1 = &toy.nodes[&NodeName::from("w1")];
    assert!(
        !w1.cordoned && w1.cordoned_by.is_none(),
        "{}",
        toy.log.join("\n")
    );
    assert_eq!(toy.hosts[&NodeName::from("w2")].booted, image(2));
    toy.unblock("w1");
    toy.edit_node("w1", |node| node.ready = Some(true));
    toy.run(900);
    toy.assert_all_run(2);
}

#[test]
fn a_drain_that_takes_too_long_gives_the_slot_back_and_is_tried_later() {
    let mut toy = ready(2, 6);
    toy.edit_pool("p", |pool| pool.spec.drain_timeout = Some(Seconds(60)));
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    toy.pass(120);
    assert_eq!(toy.record("w1").state, State::Staged);
    assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
    assert_eq!(toy.hosts[&NodeName::from("w2")].booted, image(2));
    assert!(
        degraded(&toy)
            .1
            .starts_with("w1: its drain took longer than drainTimeoutSeconds (1 in a row)")
    );
    toy.start();
    toy.pass(30);
    assert_eq!(
        toy.record("w1").state,
        State::Staged,
        "a restart does not end the back-off"
    );
    let again = toy.until(|toy| toy.nodes[&NodeName::from("w1")].cordoned);
    assert!(again, "tried again");
    toy.unblock("w1");
    toy.run(900);
    toy.assert_all_run(2);
}

/// It was heard long ago, and what fails afterwards has its back-off.
#[test]
fn a_wish_for_another_try_is_heard_once() {
    let mut toy = ready(1, 6);
    toy.edit_pool("p", |pool| pool.spec.drain_timeout = Some(Seconds(60)));
    toy.retry("w1");
    toy.run(60);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    toy.pass(120);
    assert_eq!(toy.record("w1").state, State::Staged);
    assert!(degraded(&toy).1.contains("drainTimeoutSeconds"));
    toy.pass(100);
    assert_eq!(toy.record("w1").state, State::Staged, "a back-off");
    toy.unblock("w1");
    toy.run(900);
    toy.assert_all_run(2);
}

#[test]
fn a_drain_timeout_counts_from_the_cordon_and_not_from_a_restart() {
    let mut toy = ready(1, 6);
    toy.edit_pool("p", |pool| pool.spec.drain_timeout = Some(Seconds(100)));
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    toy.pass(70);
    toy.start();
    toy.pass(40);
    assert_eq!(toy.record("w1").state, State::Staged);
}

#[test]
fn a_cordon_taken_away_in_mid_drain_is_set_again() {
    for seed in 0..10 {
        let mut toy = ready(1, seed);
        toy.blocked.insert("w1".into());
        toy.want(2);
        assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
        toy.settle();
        toy.edit_node("w1", |node| {
            (node.cordoned, node.cordoned_by) = (false, None);
        });
        toy.settle();
        assert!(toy.nodes[&NodeName::from("w1")].cordoned);
        assert_eq!(toy.record("w1").attempt, 2);
        assert!(toy.log.iter().any(|line| line.contains("CordonLost: ")));
        toy.unblock("w1");
        toy.run(900);
        toy.assert_all_run(2);
    }
}

#[test]
fn a_drains_result_counts_for_its_own_attempt_only() {
    let mut toy = ready(1, 3);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    toy.settle();
    toy.edit_node("w1", |node| {
        (node.cordoned, node.cordoned_by) = (false, None);
    });
    toy.settle();
    toy.feed(Input::Drain {
        node: "w1".into(),
        attempt: 1,
        report: DrainReport::Done,
    });
    toy.settle();
    assert!(!toy.bootc[&"w1".into()].spec.booted);
}

#[test]
fn what_a_drain_waits_for_is_shown_and_not_too_often() {
    let mut toy = ready(1, 3);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| toy.record("w1").state == State::Draining));
    let attempt = toy.record("w1").attempt;
    let before = toy.waiting_writes;
    for allowed in 0..50 {
        let pod = BlockedPod {
            pod: "shop/web-1".into(),
            why: Some(format!(
                "PodDisruptionBudget shop/web allows {allowed} disruptions"
            )),
        };
        let report = DrainReport::Pods(vec![pod]);
        toy.feed(Input::Drain {
            node: "w1".into(),
            attempt,
            report,
        });
        toy.pass(2);
    }
    assert!(
        (3..=5).contains(&(toy.waiting_writes - before)),
        "{}",
        toy.waiting_writes - before
    );
    let waiting = toy.bootc[&"w1".into()].waiting.clone().unwrap();
    assert_eq!((waiting.waiting, waiting.reason.as_str()), (true, "Drain"));
    assert!(
        waiting
            .message
            .starts_with("waiting for pod shop/web-1: PodDisruptionBudget shop/web allows")
    );
    toy.pass(400);
    let told = toy
        .log
        .iter()
        .filter(|line| line.contains("DrainTakingTooLong"))
        .count();
    assert_eq!(told, 1);
    toy.unblock("w1");
    toy.run(900);
    assert!(!toy.bootc[&"w1".into()].waiting.clone().unwrap().waiting);
}

/// A cluster of one node whose drain was just started, of which the answer is still to come.
fn starting_to_drain() -> Toy {
    let mut toy = ready(1, 5);
    toy.blocked.insert("w1".into());
    toy.want(2);
    assert!(toy.until(|toy| !drains_started(toy).is_empty()));
    assert_eq!(toy.record("w1").state, State::Cordoned);
    toy
}

fn drains_started(toy: &Toy) -> Vec<u32> {
    let effects = toy.commands.iter().filter_map(|it| match it {
        Command::Decide(it) => Some(&it.effects),
        _ => None,
    });
    let attempt = |it: &Effect| match it {
        Effect::StartDrain { attempt } => Some(*attempt),
        _ => None,
    };
    effects.flatten().filter_map(attempt).collect()
}

/// Uncordoned and cordoned again while another decision was on its way: pods may have come.
#[test]
fn a_drain_from_before_an_uncordon_does_not_count_however_short_that_was() {
    for done_first in [true, false] {
        let mut toy = starting_to_drain();
        let done = Input::Drain {
            node: "w1".into(),
            attempt: drains_started(&toy)[0],
            report: DrainReport::Done,
        };
        let cordoned = toy.nodes[&NodeName::from("w1")].clone();
        let uncordoned = NodeView {
            cordoned: false,
            ..cordoned.clone()
        };
        if done_first {
            toy.feed(done.clone());
        }
        toy.feed(Input::Node("w1".into(), Some(uncordoned)));
        toy.feed(Input::Node("w1".into(), Some(cordoned)));
        if !done_first {
            toy.feed(done);
        }
        toy.settle_news();
        assert!(!toy.bootc[&"w1".into()].spec.booted);
        toy.blocked.clear();
        toy.unblock("w1");
        toy.run(900);
        toy.assert_all_run(2);
        let attempts = drains_started(&toy);
        assert!(
            attempts.len() == 2 && attempts[0] < attempts[1],
            "{attempts:?}"
        );
    }
}

/// Another operator, not knowing that it leads no more, wrote it first.
#[test]
fn what_another_operator_approves_while_a_drain_is_started_holds() {
    let mut toy = starting_to_drain();
    toy.edit_bootc("w1", |bootc| {
        let Kept::Is(record) = &mut bootc.kept else {
            panic!("{:?}", bootc.kept);
        };
        let boot = bootc.report.as_ref().and_then(|report| report.boot.clone());
        let record = Arc::make_mut(record);
        record.state = State::Rebooting;
        record.approval = Some(Approval {
            boot: boot.clone(),
            before: Some(image(1).digest().to_owned()),
            at: record.since,
        });
        bootc.generation += 1;
        (bootc.spec.booted, bootc.spec.approved_boot) = (true, boot);
    });
    toy.settle_news();
    assert_eq!(toy.record("w1").state, State::Rebooting);
    assert!(
        toy.bootc[&"w1".into()].spec.booted,
        "{}",
        toy.log.join("\n")
    );
    toy.run(900);
    toy.assert_all_run(2);
    assert_eq!(toy.host("w1").reboots, 1);
}

/// The pool's sum knows of what a node tells only once the node was decided on.
#[test]
fn a_node_that_halts_its_pool_is_not_approved_with_the_same_report() {
    let mut toy = ready(2, 3);
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(2));
    toy.blocked.extend(["w1".into(), "w2".into()]);
    toy.want(2);
    toy.run(60);
    let tells = |toy: &mut Toy, name: &str, activity, fault: bool| {
        toy.edit_bootc(name, |bootc| {
            let report = Arc::make_mut(bootc.report.as_mut().unwrap());
            report.activity = activity;
            report.degraded = fault.then(|| AgentFault {
                kind: AgentFaultKind::Error,
                message: "bootc status failed".into(),
            });
        });
        toy.settle_news();
    };
    for name in ["w1", "w2"] {
        toy.host(name).silent = true;
    }
    tells(&mut toy, "w1", Activity::Staged, true);
    tells(&mut toy, "w2", Activity::Staging, false);
    toy.unblock("w2");
    toy.settle();
    tells(&mut toy, "w2", Activity::Staged, true);
    assert!(!toy.bootc[&"w2".into()].spec.booted);
    assert_eq!(degraded(&toy).0, "RolloutHalted");
    tells(&mut toy, "w1", Activity::Staged, false);
    tells(&mut toy, "w2", Activity::Staged, false);
    for name in ["w1", "w2"] {
        toy.host(name).silent = false;
    }
    toy.unblock("w1");
    toy.run(900);
    toy.assert_all_run(2);
}
