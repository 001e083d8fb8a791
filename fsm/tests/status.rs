//! What a pool shows, when that is written, its tag and its secret.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod toy;

use fsm::{
    Input, PoolName, Timestamp,
    command::PoolWrite,
    input::Outcome,
    time::Seconds,
    view::{ImageRef, PoolStatus, SecretRef},
};
use toy::{Toy, image};

fn tag(name: &str) -> ImageRef {
    ImageRef::Tag {
        reference: format!("registry.test/os:{name}"),
        repository: "registry.test/os".to_owned(),
    }
}

fn reasons(status: &PoolStatus) -> (String, String) {
    let reason = |it: &Option<fsm::view::Condition>| it.clone().unwrap().reason;
    (reason(&status.up_to_date), reason(&status.is_degraded))
}

fn with_tag(seed: u64) -> Toy {
    let mut toy = Toy::new(2, seed);
    let digest = image(1).digest().to_owned();
    toy.tags.insert("registry.test/os:1".into(), Ok(digest));
    toy.edit_pool("p", |pool| pool.spec.image = tag("1"));
    toy.run(60);
    toy
}

#[test]
fn a_pool_without_nodes_is_up_to_date() {
    let mut toy = Toy::new(0, 1);
    toy.run(60);
    let status = toy.status();
    assert_eq!(reasons(&status), ("AllUpdated".into(), "OK".into()));
    assert_eq!(status.deployed_digest.as_deref(), Some(image(1).digest()));
    assert_eq!((status.observed_generation, status.nodes), (Some(1), 0));
}

#[test]
fn a_new_target_is_shown_as_available_until_all_nodes_run_it() {
    let mut toy = Toy::new(3, 1);
    toy.run(60);
    toy.want(2);
    assert!(toy.until(|toy| toy.status().updated == 1 && toy.status().updating == 2));
    let status = toy.status();
    assert!(status.update_available);
    assert_eq!(status.deployed_digest.as_deref(), Some(image(1).digest()));
    assert_eq!(status.target_digest.as_deref(), Some(image(2).digest()));
    let up_to_date = status.up_to_date.unwrap();
    assert_eq!(
        (up_to_date.status, up_to_date.reason.as_str()),
        (Some(false), "RolloutInProgress")
    );
    assert!(
        up_to_date.message.starts_with("1/3 updated; "),
        "{}",
        up_to_date.message
    );
    toy.run(60);
    assert!(!toy.status().update_available);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut toy = Toy::new(2, 1);
    toy.run(60);
    toy.pass(100);
    toy.want(2);
    toy.edit_pool("p", |pool| pool.spec.paused = true);
    toy.run(60);
    let paused = toy.status().up_to_date.unwrap();
    toy.pass(100);
    toy.edit_pool("p", |pool| pool.spec.paused = false);
    assert!(toy.until(|toy| toy.status().up_to_date.unwrap().reason == "RolloutInProgress"));
    assert_eq!(toy.status().up_to_date.unwrap().since, paused.since);
    assert_eq!(paused.since, paused.since.whole_seconds());
}

#[test]
fn a_status_is_written_at_most_once_a_second_unless_a_condition_changes() {
    for seed in 0..5 {
        let mut toy = Toy::new(20, seed);
        toy.edit_pool("p", |pool| {
            pool.spec.max_unavailable = fsm::view::Amount::Count(7);
        });
        toy.run(60);
        toy.commands.clear();
        toy.want(2);
        let (mut last, mut shown): (Option<Timestamp>, Option<(String, String)>) = (None, None);
        while toy.step() {
            for command in std::mem::take(&mut toy.commands) {
                let fsm::Command::Pool {
                    what: PoolWrite::Status(status),
                    ..
                } = command
                else {
                    continue;
                };
                let now = reasons(&status);
                let same = shown.replace(now.clone()).is_some_and(|shown| shown == now);
                let gap = last
                    .replace(toy.now)
                    .map_or(i64::MAX, |last| toy.now.since(last));
                assert!(!same || gap >= 900, "{gap} ms");
            }
        }
        toy.run(60);
        toy.assert_all_run(2);
    }
}

#[test]
fn a_failed_status_write_is_made_again() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.pool_answers
        .push_back(Outcome::Failed("timeout".into()));
    toy.pool_answers.push_back(Outcome::Conflict);
    toy.want(2);
    toy.run(60);
    toy.assert_all_run(2);
    assert!(toy.pool_answers.is_empty());
}

#[test]
fn a_tag_is_resolved_at_once_and_again_after_the_interval() {
    let mut toy = with_tag(1);
    toy.assert_all_run(1);
    assert_eq!(toy.resolved, 1);
    let next = toy.status().next_tag_resolution.unwrap();
    assert!(next > toy.now && next <= toy.now + Seconds(400));
    toy.tags.insert(
        "registry.test/os:1".into(),
        Ok(image(2).digest().to_owned()),
    );
    toy.pass(400);
    assert_eq!(toy.resolved, 2);
    toy.run(60);
    toy.assert_all_run(2);
    assert!(
        toy.log
            .iter()
            .any(|line| line.contains("ImageUpdateAvailable"))
    );
}

#[test]
fn a_restart_does_not_ask_the_registry_again() {
    let mut toy = with_tag(2);
    toy.start();
    toy.run(60);
    assert_eq!(toy.resolved, 1);
    toy.assert_all_run(1);
}

#[test]
fn a_changed_tag_is_resolved_at_once_and_never_mixed_with_an_old_digest() {
    for restart in [false, true] {
        let mut toy = with_tag(3);
        toy.edit_pool("p", |pool| pool.spec.image = tag("2"));
        if restart {
            toy.start();
        }
        toy.settle();
        let status = toy.status();
        assert_eq!(status.target_digest, None);
        assert_eq!(
            reasons(&status),
            ("TargetUnknown".into(), "TagResolutionError".into())
        );
        assert_eq!(
            status.is_degraded.unwrap().message,
            "registry.test/os:2: no such tag"
        );
        assert!(
            toy.bootc
                .values()
                .all(|bootc| bootc.spec.image == Some(image(1)))
        );
        toy.tags.insert(
            "registry.test/os:2".into(),
            Ok(image(2).digest().to_owned()),
        );
        toy.pass(30);
        toy.run(60);
        toy.assert_all_run(2);
    }
}

#[test]
fn a_registry_that_is_down_keeps_the_known_digest() {
    let mut toy = with_tag(4);
    toy.tags.insert(
        "registry.test/os:1".into(),
        Err("connection refused".into()),
    );
    toy.pass(400);
    let status = toy.status();
    assert_eq!(
        reasons(&status),
        ("AllUpdated".into(), "TagResolutionError".into())
    );
    assert_eq!(status.target_digest.as_deref(), Some(image(1).digest()));
    let asked = toy.resolved;
    toy.pass(3600);
    assert!(
        toy.resolved - asked < 25,
        "{} times in an hour",
        toy.resolved - asked
    );
}

#[test]
fn a_secret_is_waited_for_and_passed_on_and_its_loss_is_shown() {
    let secret = SecretRef {
        name: "pull".into(),
        namespace: "bootc-operator".into(),
    };
    let mut toy = Toy::new(0, 1);
    let named = secret.clone();
    toy.edit_pool("p", |pool| pool.spec.secret = Some(named));
    toy.settle();
    toy.add_node("w1", &["p"]);
    toy.settle();
    assert!(toy.bootc.is_empty(), "nobody has looked at the secret yet");
    let tell = |toy: &mut Toy, result| {
        toy.feed(Input::Secret {
            pool: PoolName::from("p"),
            secret: secret.clone(),
            result,
        });
        toy.run(60);
    };
    tell(&mut toy, Err("there is no such Secret".to_owned()));
    let degraded = toy.status().is_degraded.unwrap();
    assert_eq!(degraded.reason, "SecretError");
    assert_eq!(
        degraded.message,
        "pull secret bootc-operator/pull: there is no such Secret"
    );
    let spec = |toy: &Toy| toy.bootc[&"w1".into()].spec.clone();
    assert_eq!(
        (spec(&toy).secret, spec(&toy).secret_hash),
        (Some(secret.clone()), None)
    );
    tell(&mut toy, Ok("h1".to_owned()));
    assert_eq!(spec(&toy).secret_hash.as_deref(), Some("h1"));
    let writes = toy.writes;
    tell(&mut toy, Ok("h1".to_owned()));
    assert_eq!(toy.writes, writes);
    tell(&mut toy, Err("gone".to_owned()));
    assert_eq!(
        spec(&toy).secret_hash.as_deref(),
        Some("h1"),
        "no node is told anything by a loss"
    );
    tell(&mut toy, Ok("h2".to_owned()));
    assert_eq!(spec(&toy).secret_hash.as_deref(), Some("h2"));
    toy.edit_pool("p", |pool| pool.spec.secret = None);
    toy.run(60);
    assert_eq!((spec(&toy).secret, spec(&toy).secret_hash), (None, None));
    toy.assert_all_run(1);
}

#[test]
fn soft_reboots_are_passed_on() {
    let mut toy = Toy::new(1, 1);
    toy.run(60);
    toy.edit_pool("p", |pool| pool.spec.soft_reboot = true);
    toy.run(60);
    assert!(toy.bootc[&"w1".into()].spec.soft_reboot);
}

#[test]
fn the_most_urgent_reason_is_shown_and_every_problem_is_named() {
    let mut toy = Toy::new(12, 1);
    toy.run(60);
    for n in 1..=12 {
        toy.host(&format!("w{n}")).broken = Some("no space".into());
    }
    toy.want(2);
    toy.run(60);
    let message = toy.status().is_degraded.unwrap().message;
    assert!(message.ends_with("; and 2 more"), "{message}");
    assert_eq!(message.matches("no space").count(), 10);
    toy.edit_pool("p", |pool| {
        pool.spec.image = ImageRef::Invalid("no digest".into());
    });
    toy.run(60);
    let degraded = toy.status().is_degraded.unwrap();
    assert_eq!(degraded.reason, "InvalidSpec");
    assert!(
        degraded
            .message
            .starts_with("spec.image.ref: no digest | w1: no space")
    );
}

#[test]
fn a_journal_replayed_gives_the_same_commands() {
    let mut toy = Toy::new(3, 11);
    toy.run(60);
    toy.want(2);
    toy.run(60);
    let mut replay = fsm::Rollout::new(fsm::Config::default());
    for (now, input, commands) in &toy.journal {
        let json = serde_json::to_string(input).unwrap();
        let again = replay.handle(*now, serde_json::from_str(&json).unwrap());
        assert_eq!(again, *commands);
    }
}

/// Pools that were made together must not ask their registry together for ever.
#[test]
fn tags_are_asked_again_after_the_interval_and_a_part_of_it_that_differs_by_pool() {
    let mut toy = Toy::new(0, 1);
    let digest = image(1).digest().to_owned();
    toy.tags.insert("registry.test/os:1".into(), Ok(digest));
    for n in 0..20 {
        let mut spec = toy::pool_spec(image(1));
        spec.image = tag("1");
        toy.add_pool(&format!("pool-{n}"), spec);
    }
    let before = toy.now;
    toy.settle();
    let interval = i64::from(fsm::Config::default().tag_interval.0);
    let waits: std::collections::BTreeSet<i64> = (0..20)
        .map(|n| {
            let pool = &toy.pools[&PoolName::from(format!("pool-{n}"))];
            let next = pool.status.as_ref().unwrap().next_tag_resolution.unwrap();
            next.since(before) / 1000
        })
        .collect();
    let asked_within = toy.now.since(before) / 1000 + 1;
    let latest = interval * 11 / 10 + asked_within;
    assert!(
        waits.first() >= Some(&(interval - 1)) && waits.last() <= Some(&latest),
        "{waits:?} around {interval}"
    );
    assert!(waits.len() > 10, "{waits:?}");
}
