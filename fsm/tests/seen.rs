//! What traces and metrics are told: hops with the update that they belong to, and a pool in numbers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use std::sync::Arc;

use fsm::{
    Command, State,
    node::{Hop, Trace},
    view::{Activity, AgentFault, AgentFaultKind, Amount, Report},
};
use toy::{Toy, image};

struct Told {
    hop: Hop,
    trace: Option<Trace>,
    again: bool,
}

/// The hops of a node that were told, from the first of these commands.
fn told(toy: &Toy, from: usize, name: &str) -> Vec<Told> {
    let hops = toy.commands[from..].iter().filter_map(|it| match it {
        Command::Hop {
            node,
            hop,
            trace,
            again,
            ..
        } if node.as_str() == name => Some(Told {
            hop: hop.clone(),
            trace: trace.clone(),
            again: *again,
        }),
        _ => None,
    });
    hops.collect()
}

fn settled(nodes: u32) -> Toy {
    let mut toy = Toy::new(nodes, 1);
    toy.run(60);
    toy
}

#[test]
fn the_hops_of_an_update_are_one_unbroken_way_under_one_trace() {
    let mut toy = settled(2);
    let (from, wanted) = (toy.commands.len(), toy.now);
    toy.want(2);
    toy.run(60);
    for name in ["w1", "w2"] {
        let all = told(&toy, from, name);
        let ends: Vec<_> = all.iter().map(|it| it.hop.to).collect();
        assert_eq!(ends.first(), Some(&State::Staging), "{name}");
        assert_eq!(ends.last(), Some(&State::Idle), "{name}");
        let trace = all[1].trace.clone().unwrap();
        assert_eq!(trace.image, Some(image(2)));
        assert!(trace.began >= wanted && trace.began <= all[0].hop.at);
        for pair in all.windows(2) {
            assert_eq!(pair[1].hop.since, pair[0].hop.at, "{name}: a gap");
            assert_eq!(pair[1].trace.as_ref(), Some(&trace), "{name}");
            assert!(!pair[1].again);
        }
        assert_ne!(all[0].trace, Some(trace), "it ends what was before");
    }
}

#[test]
fn what_another_image_cuts_short_belongs_to_the_update_before() {
    let mut toy = settled(1);
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.want(2);
    toy.run(60);
    let from = toy.commands.len();
    toy.want(3);
    toy.run(60);
    let all = told(&toy, from, "w1");
    assert_eq!(all[0].hop.from, State::Staged);
    let images = all.iter().map(|it| it.trace.clone().unwrap().image);
    assert_eq!(images.collect::<Vec<_>>(), [Some(image(2)), Some(image(3))]);
}

#[test]
fn an_update_begins_when_its_image_is_wanted_and_not_when_there_is_room() {
    let mut toy = settled(2);
    toy.edit_pool("p", |pool| {
        pool.spec.max_concurrent_staging = Some(Amount::Count(1));
    });
    toy.run(60);
    let from = toy.commands.len();
    toy.want(2);
    let wanted = toy.now;
    toy.run(60);
    let begins = |name: &str| {
        let all = told(&toy, from, name);
        (all[1].trace.clone().unwrap().began, all[0].hop.at)
    };
    let both = [begins("w1"), begins("w2")];
    assert!(
        both.iter().all(|(began, _)| began.since(wanted) < 1000),
        "{both:?}"
    );
    assert!(
        both.iter().any(|(began, staged)| staged > began),
        "{both:?}"
    );
}

#[test]
fn after_a_restart_fresh_hops_are_told_again_as_they_were() {
    for state in [State::Cordoned, State::Draining, State::Rebooting] {
        let mut toy = settled(1);
        toy.want(2);
        assert!(toy.until(|toy| toy.record("w1").state == state));
        let before = told(&toy, 0, "w1");
        let trace = toy.record("w1").trace();
        let from = toy.commands.len();
        toy.start();
        toy.settle();
        let again = told(&toy, from, "w1");
        let repeated: Vec<_> = again.iter().filter(|it| it.again).collect();
        assert!(!repeated.is_empty(), "{state}");
        // What belongs to the update before is told without it: nobody knows it any more.
        let begins = repeated.iter().rposition(|it| it.hop.begins_update());
        for (n, told) in repeated.into_iter().enumerate() {
            let known = before.iter().find(|it| it.hop == told.hop);
            let known = known.unwrap_or_else(|| panic!("{state}: {:?} is new", told.hop));
            let of_before = begins.is_some_and(|begins| n <= begins);
            let wanted = known.trace.clone().filter(|_| !of_before);
            assert_eq!(told.trace, wanted, "{state}");
        }
        toy.run(60);
        let last = told(&toy, from, "w1").pop().unwrap();
        assert_eq!((last.hop.to, last.trace), (State::Idle, trace), "{state}");
    }
}

#[test]
fn old_hops_are_not_told_again() {
    let mut toy = settled(1);
    toy.want(2);
    toy.run(60);
    toy.pass(3600);
    let from = toy.commands.len();
    toy.start();
    toy.run(60);
    assert!(told(&toy, from, "w1").is_empty());
}

#[test]
fn an_update_of_a_node_that_somebody_set_back_has_a_trace_of_its_own() {
    let mut toy = settled(1);
    toy.want(2);
    toy.run(60);
    let first = toy.record("w1").trace().unwrap();
    toy.host("w1").booted = image(1);
    toy.power_cut("w1");
    toy.run(120);
    let second = toy.record("w1").trace().unwrap();
    assert_ne!(first.parent, second.parent);
    assert!(second.began > first.began);
}

#[test]
fn a_pool_is_told_in_numbers() {
    let mut toy = settled(3);
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.want(2);
    toy.run(60);
    let (name, figures) = toy.rollout.figures().next().unwrap();
    assert_eq!(name.as_str(), "p");
    let staged = figures.nodes.iter().find(|it| it.0 == "staged").unwrap();
    assert_eq!(staged.1, 3);
    let oldest = (1..=3).map(|n| toy.record(&format!("w{n}")).since).min();
    assert!(staged.2.is_some_and(|since| since >= oldest.unwrap()));
    let all: usize = figures.nodes.iter().map(|(_, count, _)| count).sum();
    assert_eq!(all, 3, "each node is in one state");
    assert_eq!(figures.waiting, [("Paused", 3)]);
    assert_eq!((figures.slots_used, figures.slots_allowed), (0, 1));
    assert!(figures.paused);
    assert!(figures.problems.iter().all(|(_, applies)| !applies));
    assert_eq!(figures.stage_failures, 0);
}

#[test]
fn each_try_of_staging_that_fails_is_counted_once() {
    let mut toy = settled(1);
    toy.host("w1").silent = true;
    toy.want(2);
    toy.run(5);
    let mut say = |activity, message: Option<&str>| {
        toy.edit_bootc("w1", |bootc| {
            bootc.report = Some(Arc::new(Report {
                activity,
                degraded: message.map(|message| AgentFault {
                    kind: AgentFaultKind::Error,
                    message: message.to_owned(),
                }),
                ..Report::clone(bootc.report.as_ref().unwrap())
            }));
        });
        toy.settle_news();
        toy.rollout.figures().next().unwrap().1.stage_failures
    };
    assert_eq!(say(Activity::Staging, None), 0);
    assert_eq!(say(Activity::Idle, Some("no route")), 1);
    assert_eq!(say(Activity::Idle, Some("no route")), 1, "no news");
    assert_eq!(say(Activity::Staging, Some("no route")), 1, "tried again");
    assert_eq!(say(Activity::Idle, Some("no route")), 2);
    assert_eq!(say(Activity::Idle, Some("no space")), 3);
}
