//! `status`, `history`, `timeline`, completion: what they show, to whom, and of what.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, digest},
    wait,
};
use crd::{BootcNode, names};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::process::Command;

use crate::run::{As, Stage};

type Shared = Arc<Stage>;

pub(crate) fn trials(suite: &Arc<Suite>, stage: &Shared) -> Vec<Trial> {
    macro_rules! trial {
        ($name:ident) => {{
            let stage = Arc::clone(stage);
            suite.trial(concat!("looks::", stringify!($name)), move |suite| {
                $name(suite, stage)
            })
        }};
    }
    vec![
        trial!(a_rollout_is_shown_in_every_form_while_it_runs_and_after),
        trial!(reading_needs_read_rights_alone_and_their_lack_is_told),
        trial!(strange_objects_are_shown_as_far_as_they_can_be),
        trial!(a_watch_ends_with_the_rollout),
        trial!(kubectl_finds_and_completes_it),
    ]
}

async fn a_rollout_is_shown_in_every_form_while_it_runs_and_after(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "looks", 2, json!({})).await?;
    let ended = stage.bootc(As::Viewer, "status looks").await?;
    ended.is(
        0,
        &["POOL ", "2/2", "AllUpdated", "NODE ", "looks-1", "Idle"],
    )?;
    ensure!(!ended.out.contains('\x1b'), "no terminal, no colours");
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    let status = stage
        .bootc(As::Viewer, "status looks -o json")
        .await?
        .json()?;
    ensure!(status["pools"][0]["targetDigest"] == digest(B), "{status}");
    ensure!(
        status["nodes"][1]["booted"]["digest"] == digest(B),
        "{status}"
    );
    ensure!(status["nodes"][0]["waiting"].is_null(), "{status}");
    let yaml = stage.bootc(As::Viewer, "status looks -o yaml").await?;
    yaml.is(0, &["pools:\n", "upToDate: true", "state: Idle"])?;
    let wide = stage
        .bootc(As::Viewer, "status looks -o wide --no-headers")
        .await?;
    wide.is(0, &[&digest(B), "True"])?;
    ensure!(!wide.out.contains("READY"), "{}", wide.out);

    // Events are written at a pace.
    let texts = ["Rebooting", "rebooting into image", "rollback is"];
    stage.until("history looks-1", 0, &texts).await?;
    wait::until("the way of the pool is told", || async {
        let history = stage.bootc(As::Viewer, "history looks -o json").await?;
        let history = history.json()?;
        let entries = history.as_array().context("no list")?;
        let has = |object: &str, reason: &str| {
            let mut all = entries.iter();
            all.any(|it| it["object"] == object && it["reason"] == reason)
        };
        let whole = has("pool/looks", "RolloutCompleted") && has("node/looks-2", "Draining");
        ensure!(whole, "{history}");
        Ok(())
    })
    .await?;

    let drawn = stage.bootc(As::Viewer, "timeline looks").await?;
    drawn.is(
        0,
        &["pool looks to registry.test/os@", "looks-1 ", "R Rebooting"],
    )?;
    let chart = stage
        .bootc(As::Viewer, "timeline looks -o json")
        .await?
        .json()?;
    let states: Vec<_> = chart["nodes"][0]["phases"]
        .as_array()
        .context("no phases")?
        .iter()
        .filter_map(|phase| phase["state"].as_str())
        .collect();
    let wanted = [
        "Staging",
        "Staged",
        "Cordoned",
        "Draining",
        "Rebooting",
        "Verifying",
    ];
    ensure!(states == wanted, "{chart}");
    let svg = stage.bootc(As::Viewer, "timeline looks -o svg").await?;
    svg.is(0, &["<svg ", "looks-2", "</svg>"])?;
    let svg = stage.bootc(As::Viewer, "status looks -o svg").await?;
    svg.is(0, &["<svg ", "AllUpdated", "</svg>"])?;
    let journal = stage.journal();
    let line = format!("timeline looks --journal {} -o json", journal.display());
    let told = stage.bootc(As::Nobody, &line).await?.json()?;
    let count = |chart: &serde_json::Value| chart["nodes"][1]["phases"].as_array().map(Vec::len);
    ensure!(count(&told) == Some(6), "{told}");
    fleet.finish().await
}

async fn reading_needs_read_rights_alone_and_their_lack_is_told(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "rights", 1, json!({})).await?;
    for line in [
        "pause rights",
        "resume rights",
        "retry rights-1",
        "set-image rights r.io/os:1",
    ] {
        let ended = stage.bootc(As::Viewer, line).await?;
        ensure!(
            ended.code == Some(1) && ended.err.contains("forbidden"),
            "{line}: {ended:?}"
        );
    }
    for line in ["status", "why rights", "history", "timeline rights"] {
        let ended = stage.bootc(As::Nobody, line).await?;
        ensure!(ended.code == Some(1), "{line}: {ended:?}");
        ensure!(
            ended.err.starts_with("error: cannot list BootcNodePools: "),
            "{line}: {ended:?}"
        );
    }
    for line in [
        "status absent",
        "why absent",
        "timeline absent",
        "pause absent",
    ] {
        let ended = stage.bootc(As::Editor, line).await?;
        ensure!(
            ended.code == Some(1) && ended.err.contains("absent"),
            "{line}: {ended:?}"
        );
    }
    let wrong = stage.bootc(As::Viewer, "status --context=absent").await?;
    ensure!(
        wrong.code == Some(1) && wrong.err.contains("--context"),
        "{wrong:?}"
    );
    let usage = stage.bootc(As::Viewer, "status --absent").await?;
    ensure!(usage.code == Some(1), "2 is for rollouts: {usage:?}");
    fleet.finish().await
}

/// A record that cannot be read, and a status of another shape, are another version's; the rest is
/// there.
async fn strange_objects_are_shown_as_far_as_they_can_be(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "strange", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.mute = true);
    let strange = json!({
        "metadata": { "annotations": { names::ANNOTATION_ROLLOUT: "{\"state\":\"Flying\"" } },
    });
    let api = Api::<BootcNode>::all(suite.breaker.clone());
    let patch = Patch::Merge(strange);
    api.patch("strange-1", &PatchParams::default(), &patch)
        .await?;
    for line in [
        "status strange -o wide",
        "why strange-1",
        "why strange",
        "history strange",
        "status strange -o json",
    ] {
        let ended = stage.bootc(As::Viewer, line).await?;
        ensure!(
            ended.code.is_some_and(|code| code != 1),
            "{line}: {ended:?}"
        );
        ensure!(
            ended.out.contains("strange-1") || line == "why strange",
            "{line}: {ended:?}"
        );
    }
    fleet.plan(1, |plan| plan.mute = false);
    fleet.until_updated('a').await?;
    fleet.finish().await
}

async fn a_watch_ends_with_the_rollout(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let fleet = Fleet::settled(&suite, "followed", 2, json!({ "paused": true })).await?;
    fleet.want(B).await?;
    let follows = stage.bootc(As::Viewer, "status followed --watch --until-updated");
    let goes = async {
        fleet.until_states(&["Staged", "Staged"]).await?;
        fleet.pause(false).await?;
        fleet.until_updated(B).await
    };
    let (followed, gone) = tokio::join!(follows, goes);
    gone?;
    let followed = followed?;
    followed.is(0, &["pool followed: 0/2", "node followed-1", "AllUpdated"])?;
    let lines: Vec<_> = followed.out.lines().collect();
    ensure!(
        lines.iter().all(|line| line.starts_with('[')),
        "{}",
        followed.out
    );
    ensure!(
        lines.windows(2).all(|two| two[0] != two[1]),
        "only changes: {}",
        followed.out
    );

    // Whoever reads one line and goes leaves no trace.
    let mut shell = Command::new("sh");
    let line = format!(
        "{} status followed -o json | head -n 1",
        stage.bin().join("kubectl-bootc").display()
    );
    shell.args(["-c", &line]);
    let ended = stage.finish(shell, As::Viewer, "a pipe").await?;
    ensure!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
    fleet.finish().await
}

/// As kubectl does it: by the program's name on the PATH, and its completion by another one.
async fn kubectl_finds_and_completes_it(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let fleet = Fleet::settled(&suite, "completed", 1, json!({})).await?;
    let kubectl = bed::paths::bin()?.join("kubectl");
    let path = format!("{}:/usr/bin:/bin", stage.bin().display());
    let mut command = Command::new(&kubectl);
    command
        .args(["bootc", "status", "completed"])
        .env("PATH", &path);
    let ended = stage.finish(command, As::Viewer, "kubectl bootc").await?;
    ended.is(0, &["completed-1"])?;

    for shell in ["bash", "zsh", "fish"] {
        let script = stage
            .bootc(As::Nobody, &format!("completion {shell}"))
            .await?;
        script.is(0, &["set-image"])?;
    }
    let folder = tempfile::tempdir()?;
    let helper = folder.path().join("kubectl_complete-bootc");
    let text = stage.bootc(As::Nobody, "completion kubectl").await?;
    tokio::fs::write(&helper, text.out).await?;
    let mut chmod = Command::new("chmod");
    chmod.arg("+x").arg(&helper);
    ensure!(chmod.status().await?.success());
    let mut command = Command::new(&kubectl);
    command.args(["__complete", "bootc", "why", "comp"]);
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    let ended = stage
        .finish(command, As::Viewer, "kubectl __complete")
        .await?;
    ended.is(0, &["completed\n", "completed-1\n"])?;
    fleet.finish().await
}
