//! From an image to the next, and what can become of a reboot.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::Suite;
use k8s_openapi::jiff::Timestamp;
use libtest_mimic::Trial;
use tokio::time::sleep;

use super::bench::{A, B, Bench, shown};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("agent::a_host_is_updated", a_host_is_updated),
        suite.trial("agent::four_writes", four_writes),
        suite.trial("agent::one_step_lock", one_step_lock),
        suite.trial("agent::no_lock_at_all", no_lock_at_all),
        suite.trial("agent::an_approval_for_another_boot", another_boot),
        suite.trial("agent::an_operator_that_names_no_boot", older_operator),
        suite.trial("agent::an_approval_that_is_being_deleted", deleted),
        suite.trial("agent::an_image_that_falls_back", falls_back),
        suite.trial("agent::a_lost_update", lost_update),
        suite.trial("agent::a_refused_reboot", refused_reboot),
        suite.trial("agent::killed_before_the_reboot", killed_before_the_reboot),
        suite.trial("agent::a_steady_host_writes_nothing", steady),
    ]
}

/// Idle, Staging, Staged, Rebooting and back, each step on the host once and in this order.
async fn a_host_is_updated(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "updates").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.host.set("state/slow", "1");
            bench.want(B).await?;
            bench.says("Staging Healthy").await?;
            let staged = bench
                .says("Staged Healthy")
                .await?
                .staged
                .context("staged")?;
            ensure!(staged.image == B && staged.download_only, "{staged:?}");
            bench.approve().await?;
            bench.rebooted(1).await
        })
        .await?;
    let before = bench.status().await?;
    ensure!(shown(&before) == "Rebooting Healthy", "{}", shown(&before));
    let attempt = before.last_attempt.context("the attempt is noted")?;
    ensure!(B.ends_with(&attempt.image_digest) && attempt.boot == "boot-0");

    let status = bench.agent(bench.says("Idle Healthy")).await?;
    ensure!(
        status.boot.as_deref() == Some("boot-1"),
        "{:?}",
        status.boot
    );
    ensure!(status.booted.is_some_and(|it| it.image == B));
    ensure!(status.rollback.is_some_and(|it| it.image == A));
    ensure!(status.observed_generation == bench.node().await?.metadata.generation);
    let log = [
        format!("bootc switch -- {B}"),
        "bootc upgrade --download-only".to_owned(),
        "systemctl stop bootc-operator-stage.service".to_owned(),
        "bootc upgrade --from-downloaded".to_owned(),
        "systemctl reboot".to_owned(),
    ];
    ensure!(bench.host.log() == log, "{:#?}", bench.host.log());
    steps_follow_each_other(&status.steps)
}

fn steps_follow_each_other(steps: &[crd::Step]) -> Result<()> {
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let all = ["Staging", "Unlocking", "Stopping", "Booting", "Returning"];
    ensure!(names == all, "{names:?}");
    let mut last = Timestamp::MIN;
    for step in steps {
        let start = step.start.as_ref().context("a start")?.0;
        let end = step.end.as_ref().context("an end")?.0;
        ensure!(last <= start && start <= end, "{steps:#?}");
        last = start;
    }
    // Most steps are over within a second or two.
    let starts = steps.iter().filter_map(|step| step.start.as_ref());
    let mut fractions = starts.map(|start| start.0.subsec_nanosecond());
    ensure!(fractions.any(|it| it != 0), "whole seconds: {steps:#?}");
    Ok(())
}

/// An update costs four writes of the agent, each of which says something new.
async fn four_writes(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "four-writes").await?;
    bench.agent(bench.says("Idle Healthy")).await?;
    let update = async {
        bench
            .agent(async {
                bench.host.set("state/slow", "1");
                bench.send_to_b().await?;
                bench.rebooted(1).await
            })
            .await?;
        bench.agent(bench.says("Idle Healthy")).await?;
        // Whatever else it might have to say.
        bench
            .agent(async {
                sleep(Duration::from_secs(2)).await;
                Ok(())
            })
            .await
    };
    let ((), statuses) = Box::pin(bench.statuses(update)).await?;
    let said: Vec<String> = statuses.iter().map(shown).collect();
    let four = [
        "Staging Healthy",
        "Staged Healthy",
        "Rebooting Healthy",
        "Idle Healthy",
    ];
    ensure!(said == four, "{said:?}");
    Ok(())
}

/// Where bootc can, the image is staged and locked by one command.
async fn one_step_lock(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "one-step").await?;
    bench.host.set("state/one-step", "");
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.rebooted(1).await
        })
        .await?;
    ensure!(bench.host.log()[0] == format!("bootc switch --download-only -- {B}"));
    ensure!(bench.did("bootc upgrade --download-only") == 0);
    bench.agent(bench.says("Idle Healthy")).await?;
    Ok(())
}

/// Where bootc cannot lock, the status says so, and the update works all the same.
async fn no_lock_at_all(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "no-lock").await?;
    bench.host.set("state/old", "");
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Staged Healthy").await?;
            let message = bench.message("Idle").await?;
            ensure!(message.contains("not locked, because"), "{message}");
            bench.approve().await?;
            bench.rebooted(1).await
        })
        .await?;
    ensure!(bench.did("bootc upgrade") == 0, "{:?}", bench.host.log());
    bench.agent(bench.says("Idle Healthy")).await?;
    Ok(())
}

/// The Go operator approves without naming a boot: an approval all the same, for one reboot.
async fn older_operator(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "older-operator").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Staged Healthy").await?;
            bench
                .spec(serde_json::json!({ "desiredImageState": "Booted" }))
                .await?;
            bench.rebooted(1).await
        })
        .await?;
    is_not_rebooted_again(&bench).await
}

/// The agent that came up with the new boot leaves it at that.
async fn is_not_rebooted_again(bench: &Bench) -> Result<()> {
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            sleep(Duration::from_secs(2)).await;
            ensure!(bench.host.boots() == 1, "rebooted again");
            Ok(())
        })
        .await
}

/// An approval holds for the boot that it names, and after the update it reboots nothing.
async fn another_boot(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "another-boot").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Staged Healthy").await?;
            let other = serde_json::json!({ "desiredImageState": "Booted", "approvedBoot": "x" });
            bench.spec(other).await?;
            sleep(Duration::from_secs(2)).await;
            bench.says("Staged Healthy").await?;
            ensure!(bench.did("bootc upgrade --from-downloaded") == 0);
            ensure!(bench.host.boots() == 0);
            bench.approve().await?;
            bench.rebooted(1).await
        })
        .await?;
    is_not_rebooted_again(&bench).await
}

/// Somebody's finalizer keeps the object: what it approves holds no more, and what was staged for it
/// goes.
async fn deleted(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "deleted").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Staged Healthy").await?;
            bench.delete_but_keep().await?;
            bench.approve().await?;
            bench.says("Idle Healthy").await?;
            bench.does("ostree admin undeploy", 1).await?;
            ensure!(bench.host.boots() == 0, "rebooted by what is deleted");
            Ok(())
        })
        .await
}

/// Tried once; the boot order is put right; not again until a person asks.
async fn falls_back(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "falls-back").await?;
    bench.host.set("state/fall-back", "");
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.rebooted(1).await
        })
        .await?;
    bench
        .agent(async {
            let status = bench.says("Idle FellBack").await?;
            ensure!(status.booted.is_some_and(|it| it.image == A));
            ensure!(bench.did("bootc rollback") == 1);
            ensure!(bench.host.get("state/rollback-queued").is_empty());
            bench.approve().await?;
            sleep(Duration::from_secs(2)).await;
            ensure!(bench.did("bootc switch") == 1, "staged again");
            Ok(())
        })
        .await?;
    // The next agent knows it too.
    bench
        .agent(async {
            sleep(Duration::from_secs(2)).await;
            bench.says("Idle FellBack").await?;
            ensure!(bench.did("bootc switch") == 1, "staged again");
            // The API server keeps whole seconds: the wish must be later than the attempt.
            bench.retry().await?;
            bench.rebooted(2).await
        })
        .await?;
    let status = bench.agent(bench.says("Idle Healthy")).await?;
    ensure!(status.booted.is_some_and(|it| it.image == B));
    Ok(())
}

/// The host rebooted, but the update was lost on its way down: staged again, and not booted without a
/// new approval.
async fn lost_update(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "lost-update").await?;
    bench.host.set("state/lose-update", "");
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.rebooted(1).await
        })
        .await?;
    bench
        .agent(async {
            bench.host.set("state/slow", "2");
            bench.says("Staging Healthy").await?;
            let message = bench.message("Idle").await?;
            ensure!(message.contains("without applying the update"), "{message}");
            bench.says("Staged Healthy").await?;
            sleep(Duration::from_secs(1)).await;
            ensure!(bench.host.boots() == 1, "rebooted by a void approval");
            bench.approve().await?;
            bench.rebooted(2).await
        })
        .await?;
    bench.agent(bench.says("Idle Healthy")).await?;
    Ok(())
}

/// The host's own words are shown, and it is tried again.
async fn refused_reboot(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "refused-reboot").await?;
    let words = "Call to Reboot failed: Operation denied due to active block inhibitor";
    bench.host.set("state/refuse-reboot", words);
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.says("Idle Error").await?;
            let message = bench.message("Degraded").await?;
            ensure!(message.contains(words), "{message}");
            ensure!(message.contains("try 2 in"), "{message}");
            bench.host.remove("state/refuse-reboot");
            bench.rebooted(1).await
        })
        .await?;
    bench.agent(bench.says("Idle Healthy")).await?;
    Ok(())
}

/// An agent that dies between its report and the reboot is followed by one that goes on.
async fn killed_before_the_reboot(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "killed-before").await?;
    bench.host.set("state/hang-upgrade", "");
    bench.host.set("state/one-step", "");
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.says("Rebooting Healthy").await?;
            Ok(())
        })
        .await?;
    bench.host.remove("state/hang-upgrade");
    bench.host.clear_units();
    bench.agent(bench.rebooted(1)).await?;
    bench.agent(bench.says("Idle Healthy")).await?;
    ensure!(bench.host.boots() == 1);
    Ok(())
}

/// Nothing is written while nothing happens, however often the host is looked at; and nothing is
/// run there but that look.
async fn steady(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "steady").await?;
    let second = Duration::from_secs(1);
    bench
        .agent_that_polls(second, async {
            bench.says("Idle Healthy").await?;
            // What it still has to look at after its start.
            sleep(second).await;
            let before = bench.node().await?.metadata.resource_version;
            let commands = bench.host.commands().len();
            sleep(4 * second).await;
            let after = bench.node().await?.metadata.resource_version;
            ensure!(before == after, "written while steady");
            let commands = bench.host.commands().split_off(commands);
            let looks = commands.iter().filter(|it| it.starts_with("bootc status "));
            let looks = looks.count();
            ensure!(
                looks == commands.len() && (2..=5).contains(&looks),
                "run in four polls: {commands:?}"
            );
            Ok(())
        })
        .await?;
    // Nor by the next agent in the same state, which runs nothing at all without a poll.
    let before = bench.node().await?.metadata.resource_version;
    bench
        .agent(async {
            sleep(2 * second).await;
            let commands = bench.host.commands();
            sleep(3 * second).await;
            ensure!(before == bench.node().await?.metadata.resource_version);
            ensure!(commands == bench.host.commands(), "run without a reason");
            Ok(())
        })
        .await
}
