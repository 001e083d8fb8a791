//! `--progress-fd`: JSON lines for whoever draws a progress bar.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::sysroot::Deployment;

/// Steps of `staging`, each with the id and words that bootc gives it.
const STAGING: [(&str, &str, &str); 4] = [
    ("merging", "fetching", "Merging Image"),
    ("deploying", "deploying", "Deploying Image"),
    ("bound_images", "bound_images", "Pulling Bound Images"),
    ("cleanup", "cleanup", "Removing old images"),
];

/// Where progress goes; nowhere, without a descriptor.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    out: Option<File>,
    started: bool,
    last: Option<Instant>,
}

/// One layer's share of a pull.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) digest: &'a str,
    pub(crate) bytes: u64,
    pub(crate) total: u64,
}

/// A whole pull so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pull<'a> {
    pub(crate) image: &'a str,
    pub(crate) bytes: u64,
    pub(crate) bytes_cached: u64,
    pub(crate) bytes_total: u64,
    pub(crate) steps: usize,
    pub(crate) steps_cached: usize,
    pub(crate) steps_total: usize,
}

impl Progress {
    /// The pipe that the caller left open as descriptor `fd`.
    pub(crate) fn to(fd: u32) -> Result<Self> {
        ensure!(fd >= 3, "Cannot use fd < 3 for progress JSON");
        let path = format!("/proc/self/fd/{fd}");
        if !fs::metadata(&path)?.file_type().is_fifo() {
            bail!("progress fd {fd} is not a pipe");
        }
        Ok(Self {
            out: Some(File::options().write(true).open(path)?),
            ..Self::default()
        })
    }

    /// Bytes of one layer, at most five times a second.
    pub(crate) fn pulling(&mut self, pull: Pull<'_>, layer: Layer<'_>) {
        let due = self
            .last
            .is_none_or(|t| t.elapsed() >= Duration::from_millis(200));
        if !due && layer.bytes < layer.total {
            return;
        }
        self.last = Some(Instant::now());
        let id: String = layer
            .digest
            .trim_start_matches("sha256:")
            .chars()
            .take(21)
            .collect();
        self.send(&json!({
            "bytes": pull.bytes, "bytesCached": pull.bytes_cached, "bytesTotal": pull.bytes_total,
            "description": format!("Pulling Image: {}", pull.image), "id": pull.image,
            "steps": pull.steps, "stepsCached": pull.steps_cached, "stepsTotal": pull.steps_total,
            "subtasks": [{
                "bytes": layer.bytes, "bytesCached": 0, "bytesTotal": layer.total,
                "description": format!("layer: {id}"), "id": id, "subtask": "layer",
            }],
            "task": "pulling", "type": "ProgressBytes",
        }));
    }

    pub(crate) fn importing(&mut self, image: &str, done: bool) {
        let task = json!({"completed": done, "description": "Importing Image", "id": "importing", "subtask": "importing"});
        self.steps(
            "importing",
            "Importing Image",
            image,
            usize::from(done),
            1,
            &[task],
        );
    }

    /// Step `step` (0 to 3) of `staging` begins; 4: all is done.
    pub(crate) fn staging(&mut self, deployment: &Deployment, step: usize) {
        let mut tasks: Vec<_> = STAGING
            .iter()
            .take(step + 1)
            .enumerate()
            .map(|(i, (subtask, id, description))| {
                json!({"completed": i < step, "description": description, "id": id, "subtask": subtask})
            })
            .collect();
        // bootc lists the last one twice, and counts its deploying and its bound images as one step.
        if step == STAGING.len() {
            tasks.extend(tasks.last().cloned());
        }
        let done = [0, 1, 1, 2, 3].get(step).copied().unwrap_or(3);
        self.steps(
            "staging",
            "Deploying Image",
            &deployment.image.digest,
            done,
            3,
            &tasks,
        );
    }

    fn steps(
        &mut self,
        task: &str,
        description: &str,
        image: &str,
        done: usize,
        total: usize,
        subtasks: &[Value],
    ) {
        self.send(&json!({
            "description": description, "id": image, "steps": done, "stepsCached": 0, "stepsTotal": total,
            "subtasks": subtasks, "task": task, "type": "ProgressSteps",
        }));
    }

    fn send(&mut self, event: &Value) {
        let Some(out) = &mut self.out else { return };
        let start = if self.started {
            ""
        } else {
            "{\"type\":\"Start\",\"version\":\"0.1.0\"}\n"
        };
        self.started = true;
        if let Err(e) = writeln!(out, "{start}{event}") {
            eprintln!("Failed to write to jsonl: {e}");
            self.out = None;
        }
    }
}
