//! What the deciding task tells of nodes on their way, as spans; nothing where none are wanted.

use fsm::{
    NodeName, PoolName, Record,
    command::{About, Notice},
    input::{BlockedPod, DrainReport},
    node::{Hop, Trace},
    view::Waiting,
};

use super::Shell;
use crate::report::trace::{Spans, Told, Tracks};

/// Makes spans and sends them off.
#[derive(Debug)]
pub(super) struct Traces {
    tracks: Tracks,
    spans: Spans,
}

impl Traces {
    pub(super) fn new(spans: Spans) -> Self {
        Self {
            tracks: Tracks::default(),
            spans,
        }
    }
}

impl Shell {
    /// A hop is certain now.
    pub(super) fn trace_hop(
        &mut self,
        node: &NodeName,
        pool: Option<&PoolName>,
        (hop, record): (&Hop, &Record),
        trace: Option<&Trace>,
        again: bool,
    ) {
        let now = self.clock.now();
        if let Some(Traces { tracks, spans }) = &mut self.traces {
            let told = Told {
                node,
                pool,
                hop,
                record,
                trace,
                again,
                steps: self.index.steps(node),
                now,
            };
            spans.send(tracks.hop(&told));
        }
    }

    /// A drain says what it waits for.
    pub(super) fn trace_drain(&mut self, node: &NodeName, attempt: u32, report: &DrainReport) {
        let now = self.clock.now();
        let pods: &[BlockedPod] = match report {
            DrainReport::Pods(pods) => pods,
            DrainReport::Done => &[],
        };
        let record = self.rollout.record(node);
        let record = record.filter(|record| record.attempt == attempt);
        if let (Some(Traces { tracks, spans }), Some(record)) = (&mut self.traces, record) {
            spans.send(tracks.pods(node, record, pods, now));
        }
    }

    /// People are told of something.
    pub(super) fn trace_notice(&mut self, notice: &Notice) {
        let now = self.clock.now();
        if let (Some(traces), About::Node(node, _)) = (&mut self.traces, &notice.about) {
            traces.tracks.notice(node, notice, now);
        }
    }

    /// A node is shown to wait.
    pub(super) fn trace_waiting(&mut self, node: &NodeName, waiting: &Waiting) {
        let now = self.clock.now();
        if let Some(traces) = &mut self.traces {
            traces.tracks.waiting(node, waiting, now);
        }
    }
}
