//! What goes wrong on nodes and at the API server, and that it stays where it is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{NodeName, State, input::Outcome, time::Seconds, view::Amount};
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
fn a_fall_back_keeps_slot_and_cordon_and_is_tried_once() {
    let mut toy = ready(3, 1);
    toy.host("w1").falls_back = true;
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(2));
    toy.want(2);
    toy.run(7200);
    let w1 = NodeName::from("w1");
    assert_eq!(toy.hosts[&w1].reboots, 1);
    assert_eq!(
        toy.record("w1").state,
        State::Rebooting,
        "nothing is asked of it again"
    );
    assert!(toy.nodes[&w1].cordoned && toy.bootc[&w1].in_reboot_slot);
    assert_eq!(
        toy.status().updated,
        2,
        "the others went on in the other slot"
    );
    assert_eq!(
        degraded(&toy),
        ("NodeDegraded".into(), "w1: the host fell back".into())
    );
    toy.host("w1").falls_back = false;
    toy.retry("w1");
    toy.run(900);
    toy.assert_all_run(2);
    assert_eq!(
        toy.bootc[&w1].retry,
        toy.pools[&"p".into()].retry.as_ref().map(|it| it.at)
    );
}

#[test]
fn a_node_that_fell_back_is_healed_by_another_image() {
    let mut toy = ready(1, 2);
    toy.host("w1").falls_back = true;
    toy.want(2);
    toy.run(7200);
    toy.host("w1").falls_back = false;
    toy.want(3);
    toy.run(900);
    toy.assert_all_run(3);
    assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
}

#[test]
fn two_unhealthy_holders_halt_the_pool_until_they_recover() {
    for seed in 0..10 {
        let mut toy = ready(5, seed);
        toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(3));
        toy.host("w1").falls_back = true;
        toy.host("w2").stays_down = true;
        for name in ["w3", "w4", "w5"] {
            toy.host(name).silent = true;
        }
        toy.want(2);
        toy.run(590);
        toy.pass(620);
        for name in ["w3", "w4", "w5"] {
            toy.host(name).silent = false;
        }
        toy.pass(30);
        let (reason, message) = degraded(&toy);
        assert_eq!(reason, "RolloutHalted", "{message}");
        assert!(
            message.starts_with(
                "2 of 2 nodes in reboot slots are unhealthy (w1: FellBack, w2: RebootTimedOut) | "
            ),
            "{message}"
        );
        let held = toy
            .bootc
            .values()
            .filter(|bootc| bootc.in_reboot_slot)
            .count();
        assert_eq!(held, 2, "no new slot");
        toy.host("w2").stays_down = false;
        toy.run(900);
        assert_eq!(toy.status().updated, 4);
        assert_eq!(degraded(&toy).0, "NodeDegraded");
    }
}

#[test]
fn a_power_cut_before_the_reboot_is_tried_again_three_times() {
    let mut toy = ready(1, 4);
    toy.host("w1").loses_update = 2;
    toy.want(2);
    toy.run(900);
    toy.assert_all_run(2);
    assert_eq!(toy.host("w1").reboots, 3);

    toy.host("w1").loses_update = 99;
    toy.want(3);
    toy.run(7200);
    let w1 = NodeName::from("w1");
    assert_eq!(toy.hosts[&w1].reboots, 6, "three tries more");
    assert!(
        degraded(&toy)
            .1
            .contains("3 approved reboots ended in the old image")
    );
    assert!(toy.bootc[&w1].in_reboot_slot && toy.nodes[&w1].cordoned);
    toy.host("w1").loses_update = 0;
    toy.retry("w1");
    toy.run(900);
    toy.assert_all_run(3);
}

#[test]
fn a_reboot_by_somebody_else_is_noticed_in_any_phase() {
    for phase in toy::PHASES.into_iter().take(4) {
        for mut toy in toy::in_phase(phase, 1, 10) {
            toy.host("w1").staged = Some(image(2));
            toy.boot(&"w1".into());
            toy.run(900);
            toy.assert_all_run(2);
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
            assert_eq!(toy.host("w1").reboots, 0, "{phase}: no reboot of ours");
        }
    }
}

#[test]
fn a_power_cut_in_any_phase_loses_nothing() {
    for phase in toy::PHASES {
        for mut toy in toy::in_phase(phase, 1, 20) {
            toy.power_cut("w1");
            toy.run(900);
            toy.assert_all_run(2);
            assert!(!toy.nodes[&NodeName::from("w1")].cordoned);
        }
    }
}

#[test]
fn a_third_image_keeps_the_slot_and_is_replaced() {
    for phase in [State::Rebooting, State::Verifying] {
        for mut toy in toy::in_phase(phase, 1, 10) {
            toy.host("w1").staged = Some(image(7));
            toy.host("w1").asked_reboot = false;
            toy.host("w1").down = false;
            toy.boot(&"w1".into());
            toy.settle_news();
            assert!(toy.bootc[&"w1".into()].in_reboot_slot || phase == State::Verifying);
            toy.run(900);
            toy.assert_all_run(2);
        }
    }
}

#[test]
fn a_reboot_that_takes_too_long_is_shown_and_heals_by_itself() {
    let mut toy = ready(2, 3);
    toy.edit_pool("p", |pool| pool.spec.reboot_timeout = Some(Seconds(120)));
    toy.host("w1").stays_down = true;
    toy.want(2);
    assert!(toy.until(|toy| toy.hosts[&"w1".into()].down));
    toy.pass(60);
    assert_eq!(degraded(&toy).0, "OK");
    toy.start();
    toy.pass(70);
    assert_eq!(
        degraded(&toy),
        (
            "NodeDegraded".into(),
            "w1: not back 120 seconds after its reboot was approved".into()
        )
    );
    assert_eq!(toy.status().updated, 0, "one slot, and w1 holds it");
    toy.host("w1").stays_down = false;
    toy.run(900);
    toy.assert_all_run(2);
}

#[test]
fn a_rebooted_node_must_be_ready_for_min_ready_seconds() {
    // By the operator's clock, however far that is behind the one that the Node's time is of.
    for ahead in [0, 2_000, 3_600_000] {
        let mut toy = ready(2, 3);
        toy.nodes_ahead = ahead;
        toy.edit_pool("p", |pool| pool.spec.min_ready = Seconds(300));
        toy.want(2);
        assert!(toy.until(|toy| toy.record("w1").state == State::Verifying));
        toy.pass(280);
        assert!(toy.nodes[&"w1".into()].cordoned);
        assert_eq!(toy.hosts[&"w2".into()].booted, image(1));
        toy.pass(40);
        assert!(!toy.nodes[&"w1".into()].cordoned, "{ahead}");
        toy.run(900);
        toy.assert_all_run(2);
    }
}

#[test]
fn a_silent_agent_is_named_after_ten_minutes() {
    let mut toy = ready(2, 3);
    toy.host("w1").silent = true;
    toy.want(2);
    toy.pass(540);
    assert_eq!(degraded(&toy).0, "OK");
    assert_eq!(toy.status().updated, 1);
    toy.pass(120);
    assert!(
        degraded(&toy)
            .1
            .starts_with("w1: the agent has not reported")
    );
    assert_eq!(
        toy.bootc[&"w1".into()].waiting.clone().unwrap().reason,
        "AgentSilent"
    );
    toy.host("w1").silent = false;
    toy.run(900);
    toy.assert_all_run(2);
}

#[test]
fn an_agent_that_never_reports_is_named_after_ten_minutes() {
    let mut toy = Toy::new(2, 3);
    toy.host("w1").silent = true;
    toy.pass(540);
    assert_eq!(degraded(&toy).0, "OK");
    toy.pass(120);
    let shown = degraded(&toy).1;
    assert!(shown.starts_with("w1: the agent has not"), "{shown}");
    toy.host("w1").silent = false;
    toy.run(900);
    toy.assert_all_run(1);
}

#[test]
fn a_refused_write_is_shown_and_holds_up_nobody_else() {
    for seed in 0..10 {
        let mut toy = ready(3, seed);
        let why = Outcome::Refused("admission webhook \"no\" denied the request".into());
        toy.refuse.insert("w1".into(), why);
        toy.want(2);
        toy.pass(300);
        assert_eq!(toy.status().updated, 2);
        let (reason, message) = degraded(&toy);
        assert_eq!(reason, "NodeDegraded");
        assert_eq!(message, "w1: admission webhook \"no\" denied the request");
        toy.refuse.clear();
        toy.run(300);
        toy.assert_all_run(2);
    }
}

#[test]
fn refused_and_failed_writes_in_any_phase_are_tried_again_with_back_off() {
    let answers = [
        Outcome::Refused("no".into()),
        Outcome::Failed("timeout".into()),
        Outcome::Conflict,
    ];
    for phase in toy::PHASES {
        for answer in &answers {
            for mut toy in toy::in_phase(phase, 2, 5) {
                toy.refuse.insert("w1".into(), answer.clone());
                toy.refuse.insert("w2".into(), answer.clone());
                let before = toy.commands.len();
                toy.pass(600);
                let tries = toy.commands[before..]
                    .iter()
                    .filter(|command| matches!(command, fsm::Command::Decide(_)))
                    .count();
                assert!(
                    tries < 2 * 130,
                    "{phase} {answer:?}: {tries} tries in ten minutes"
                );
                toy.refuse.clear();
                toy.run(300);
                toy.assert_all_run(2);
            }
        }
    }
}

#[test]
fn a_back_off_ends_when_something_else_is_wanted() {
    let mut toy = ready(1, 1);
    toy.refuse
        .insert("w1".into(), Outcome::Refused("no".into()));
    toy.want(2);
    toy.pass(300);
    toy.refuse.clear();
    let now = toy.now;
    toy.want(3);
    toy.settle();
    assert!(toy.now.since(now) < 10_000);
    assert_eq!(toy.bootc[&"w1".into()].spec.image, Some(image(3)));
}

#[test]
fn a_node_that_is_not_ready_takes_no_slot_and_counts_as_down() {
    let mut toy = ready(3, 1);
    let now = toy.now;
    toy.edit_pool("p", |pool| pool.spec.max_unavailable = Amount::Count(2));
    toy.edit_node("w1", |node| {
        (node.ready, node.ready_since) = (Some(false), Some(now));
    });
    toy.want(2);
    let mut most = 0;
    while toy.step() {
        most = most.max(
            toy.bootc
                .values()
                .filter(|bootc| bootc.in_reboot_slot)
                .count(),
        );
    }
    toy.run(60);
    assert_eq!(most, 1, "two slots, one node down already");
    assert_eq!(toy.hosts[&"w1".into()].booted, image(1));
    assert_eq!(toy.status().updated, 2);
}

#[test]
fn an_agent_that_names_no_boot_and_no_generation_is_judged_by_its_images() {
    for seed in 0..10 {
        let mut toy = ready(2, seed);
        toy.plain_agents = true;
        toy.want(2);
        toy.run(900);
        toy.assert_all_run(2);
        toy.want(1);
        toy.run(900);
        toy.assert_all_run(1);
    }
}

#[test]
fn a_slot_whose_write_got_no_answer_is_not_given_to_another_node() {
    let mut toy = ready(2, 1);
    toy.loses_a_grant("w1");
    assert!(
        !toy.bootc[&"w2".into()].in_reboot_slot,
        "w1 may have the only slot"
    );
    toy.refuse.clear();
    toy.run(300);
    toy.assert_all_run(2);
}
