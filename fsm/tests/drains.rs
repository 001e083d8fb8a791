//! Drains: what they wait for, when they end, when they give their slot back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{
    Input, NodeName, State,
    input::{BlockedPod, DrainReport},
    time::Seconds,
    view::Amount,
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
