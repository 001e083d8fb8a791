//! Hops in, spans out.

use fsm::{input::BlockedPod, view::StepView};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ROOT: u64 = 0xb7ad_6b71_6920_3331;

fn image() -> Image {
    Image::new("registry.test/os@sha256:1").unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + seconds * 1000)
}

fn step(name: &str, start: i64, end: i64) -> StepView {
    StepView {
        name: name.to_owned(),
        start: at(start),
        end: Some(at(end)),
    }
}

/// A node on its way, one hop after the other.
struct Way {
    tracks: Tracks,
    state: State,
    since: Timestamp,
    steps: Vec<StepView>,
    began: i64,
    attempt: u32,
    /// Its hops have been told before.
    again: bool,
}

impl Way {
    fn new(began: i64) -> Self {
        Self {
            tracks: Tracks::default(),
            state: State::Idle,
            since: at(-1000),
            steps: Vec::new(),
            began,
            attempt: 1,
            again: false,
        }
    }

    fn record(&self) -> Record {
        Record {
            state: self.state,
            since: self.since,
            attempt: self.attempt,
            node_uid: "n1".into(),
            image: Some(image()),
            traceparent: Some(PARENT.to_owned()),
            began: at(self.began),
            ..Record::default()
        }
    }

    /// Goes to a state at a time; told a second later.
    fn go(&mut self, to: State, seconds: i64, cause: &str) -> Vec<Span> {
        let hop = Hop {
            from: self.state,
            since: self.since,
            to,
            at: at(seconds),
            cause: cause.to_owned(),
        };
        (self.state, self.since) = (to, at(seconds));
        let record = self.record();
        let trace = record
            .trace()
            .filter(|_| hop.from != State::Idle || self.began < seconds);
        self.tracks.hop(&Told {
            node: &"w1".into(),
            pool: Some(&"p".into()),
            hop: &hop,
            record: &record,
            trace: trace.as_ref(),
            again: self.again,
            steps: &self.steps,
            now: at(seconds + 1),
        })
    }
}

fn names(spans: &[Span]) -> Vec<&'static str> {
    spans.iter().map(|span| span.name).collect()
}

fn text<'a>(span: &'a Span, name: &str) -> &'a str {
    let found = span.attributes.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, Value::Text(text))) => text,
        _ => "",
    }
}

fn whole() -> Vec<Span> {
    let mut way = Way::new(0);
    let mut all = way.go(State::Staging, 0, "Retargeted");
    way.steps = vec![step("Staging", 1, 40)];
    all.extend(way.go(State::Staged, 42, "Staged"));
    all.extend(way.go(State::Cordoned, 100, "Granted"));
    all.extend(way.go(State::Draining, 101, "CordonSeen"));
    let pods = |names: &[(&str, Option<&str>)]| -> Vec<BlockedPod> {
        let pod = |(name, why): &(&str, Option<&str>)| BlockedPod {
            pod: (*name).to_owned(),
            why: why.map(str::to_owned),
        };
        names.iter().map(pod).collect()
    };
    let record = way.record();
    let (tracks, node) = (&mut way.tracks, "w1".into());
    let two = pods(&[("ns/a", Some("budget")), ("ns/b", None)]);
    all.extend(tracks.pods(&node, &record, &two, at(102)));
    all.extend(tracks.pods(&node, &record, &pods(&[("ns/a", None)]), at(110)));
    all.extend(way.go(State::Rebooting, 130, "Drained"));
    way.steps.extend([
        step("Unlocking", 131, 132),
        step("Stopping", 132, 140),
        step("Booting", 140, 170),
        step("Returning", 170, 172),
    ]);
    all.extend(way.go(State::Verifying, 175, "Booted"));
    all.extend(way.go(State::Idle, 180, "Proven"));
    all
}

#[test]
fn an_update_is_one_tree_without_gaps() {
    let spans = whole();
    let root = spans.last().unwrap();
    assert_eq!((root.name, root.id, root.parent), ("rollout", ROOT, 0));
    assert_eq!((root.start, root.end), (at(0), at(181)));
    assert_eq!(text(root, "bootc.outcome"), "updated");
    assert_eq!(text(root, "k8s.node.uid"), "n1");
    assert_eq!(text(root, "oci.manifest.digest"), "sha256:1");
    assert_eq!(text(root, "container.image.name"), "registry.test/os");
    let mut phases: Vec<&Span> = spans.iter().filter(|span| span.parent == ROOT).collect();
    phases.sort_by_key(|span| span.start);
    let known: Vec<_> = phases.iter().map(|span| span.name).collect();
    let wanted = [
        "stage",
        "wait-for-slot",
        "cordon",
        "drain",
        "reboot",
        "verify",
        "uncordon",
    ];
    assert_eq!(known, wanted);
    let mut until = root.start;
    for phase in &phases {
        assert_eq!(phase.start, until, "a gap before {}", phase.name);
        until = phase.end;
        assert_eq!(text(phase, "k8s.node.name"), "w1");
    }
    assert_eq!(until, root.end);
    let ids: std::collections::BTreeSet<u64> = spans.iter().map(|span| span.id).collect();
    assert_eq!(ids.len(), spans.len(), "each span has an id of its own");
    assert!(
        spans
            .iter()
            .all(|span| span.parent == 0 || ids.contains(&span.parent))
    );
}

#[test]
fn the_agents_word_on_when_things_ended_counts() {
    let spans = whole();
    let span = |name| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!((span("stage").end, span("pull").end), (at(40), at(40)));
    assert_eq!(span("wait-for-slot").start, at(40));
    assert_eq!(span("reboot").end, at(172));
    let reboot = span("reboot").id;
    let parts = spans.iter().filter(|span| span.parent == reboot);
    let parts: Vec<_> = parts.map(|span| span.name).collect();
    assert_eq!(parts, ["unlock", "down", "boot", "agent-back"]);
}

#[test]
fn a_pod_is_waited_for_until_it_is_gone_and_told_with_its_reason() {
    let spans = whole();
    let drain = spans.iter().find(|span| span.name == "drain").unwrap();
    let pods: Vec<&Span> = spans
        .iter()
        .filter(|it| it.name == "wait-for-pod")
        .collect();
    let short = |span: &&Span| {
        (
            text(span, "k8s.pod.name").to_owned(),
            text(span, "bootc.pod.waits_for").to_owned(),
            span.start,
            span.end,
        )
    };
    assert!(pods.iter().all(|pod| pod.parent == drain.id));
    let told: Vec<_> = pods.iter().map(short).collect();
    assert_eq!(
        told[0],
        ("b".into(), "shutting down".into(), at(102), at(110))
    );
    assert_eq!(told[1], ("a".into(), "budget".into(), at(102), at(130)));
}

#[test]
fn a_process_that_starts_anew_repeats_the_same_spans() {
    let mut way = Way::new(0);
    way.go(State::Staging, 0, "Retargeted");
    let first = way.go(State::Staged, 42, "Staged");
    // The other process knows nothing of the way so far.
    let mut other = Way::new(0);
    (other.state, other.since) = (State::Staging, at(0));
    assert_eq!(other.go(State::Staged, 42, "Staged"), first);
    // It saw later that the image was staged: the same span all the same.
    let mut late = Way::new(0);
    (late.state, late.since) = (State::Staging, at(0));
    let again = late.go(State::Staged, 60, "Staged");
    assert_eq!((again[0].id, again[0].parent), (first[0].id, ROOT));
}

#[test]
fn a_process_that_starts_anew_in_a_drain_goes_on_with_its_span() {
    let drain = |way: &mut Way, pods: &[&str], seconds| {
        let blocked = |pod: &&str| BlockedPod {
            pod: format!("ns/{pod}"),
            why: None,
        };
        let (pods, record): (Vec<_>, _) = (pods.iter().map(blocked).collect(), way.record());
        way.tracks.pods(&"w1".into(), &record, &pods, at(seconds))
    };
    let mut way = Way::new(0);
    (way.state, way.since) = (State::Staged, at(50));
    way.go(State::Cordoned, 100, "Granted");
    let cordon = way.go(State::Draining, 101, "CordonSeen");
    drain(&mut way, &["a", "b"], 102);
    let gone = drain(&mut way, &["a"], 110);
    // What is kept is that it was cordoned; the other process finds it so.
    let mut other = Way::new(0);
    (other.state, other.since) = (State::Cordoned, at(100));
    let again = other.go(State::Draining, 150, "CordonSeen");
    assert_eq!(again[0].id, cordon[0].id);
    drain(&mut other, &["a"], 151);
    let ended = other.go(State::Rebooting, 160, "Drained");
    let whole = ended.iter().find(|span| span.name == "drain").unwrap();
    assert_eq!(whole.id, gone[0].parent, "a pod's span hangs in the air");
    assert_eq!((whole.start, whole.end), (at(100), at(160)));
    // A third one is told of all of it again.
    let mut third = Way::new(0);
    (third.state, third.since, third.again) = (State::Cordoned, at(100), true);
    third.go(State::Draining, 150, "CordonSeen");
    let told = third.go(State::Rebooting, 160, "Drained");
    let told = told.iter().find(|span| span.name == "drain").unwrap();
    assert_eq!((told.id, told.start), (whole.id, whole.start));
    // A later drain is another span.
    let mut later = Way::new(0);
    (later.state, later.since) = (State::Draining, at(100));
    later.attempt = 2;
    let lost = later.go(State::Cordoned, 120, "CordonLost");
    assert_eq!(lost[0].id, whole.id, "the first of two drains");
    later.go(State::Draining, 121, "CordonSeen");
    let second = later.go(State::Rebooting, 130, "Drained");
    assert_ne!(second[0].id, whole.id);
    assert_eq!(second[0].start, at(121));
}

#[test]
fn what_goes_wrong_is_the_status_of_its_phase() {
    let mut way = Way::new(0);
    way.go(State::Staging, 0, "Retargeted");
    way.go(State::Staged, 1, "Staged");
    way.go(State::Cordoned, 2, "Granted");
    way.go(State::Draining, 3, "CordonSeen");
    let late = way.go(State::Staged, 63, "DrainLate");
    assert_eq!(names(&late), ["drain"]);
    assert!(
        late[0]
            .error
            .as_deref()
            .is_some_and(|it| it.contains("drainTimeoutSeconds"))
    );
    let waited = way.go(State::Cordoned, 400, "Granted");
    assert_eq!(names(&waited), ["wait-for-slot"]);
    assert_eq!(waited[0].start, at(63), "not since the image was staged");
    assert_eq!(waited[0].error, None);
}

#[test]
fn an_update_that_another_replaces_ends_with_what_was_wrong() {
    let mut way = Way::new(0);
    way.go(State::Staging, 0, "Retargeted");
    let notice = Notice {
        about: fsm::command::About::Node("w1".into(), None),
        warning: true,
        reason: "Degraded".into(),
        action: "Wait".into(),
        note: "no such image".into(),
    };
    way.tracks.notice(&"w1".into(), &notice, at(5));
    let spans = way.go(State::Staging, 10, "Retargeted");
    assert_eq!(names(&spans), ["stage", "rollout"]);
    assert_eq!(text(&spans[1], "bootc.outcome"), "superseded");
    for span in &spans {
        assert_eq!(
            span.error.as_deref(),
            Some("no such image"),
            "{}",
            span.name
        );
    }
    assert_eq!(spans[0].marks.len(), 1);
    assert_eq!(spans[0].marks[0].name, "Degraded");
}

#[test]
fn a_wait_is_marked_in_its_phase_and_marks_are_bounded() {
    let mut way = Way::new(0);
    way.go(State::Staging, 0, "Retargeted");
    way.go(State::Staged, 1, "Staged");
    let waiting = Waiting {
        waiting: true,
        reason: "RebootSlot".into(),
        message: "waiting for a slot".into(),
        since: at(1),
    };
    for n in 0..100 {
        way.tracks.waiting(&"w1".into(), &waiting, at(n));
    }
    let spans = way.go(State::Cordoned, 200, "Granted");
    assert_eq!(spans[0].marks.len(), MARKS);
    let reason = ("bootc.waiting.reason", Value::from("RebootSlot"));
    assert_eq!(spans[0].marks[0].attributes[0], reason);
}

#[test]
fn the_wait_for_room_to_stage_is_a_part_of_the_update() {
    let mut way = Way::new(0);
    let spans = way.go(State::Staging, 90, "Retargeted");
    assert_eq!(names(&spans), ["wait-for-room"]);
    assert_eq!((spans[0].start, spans[0].end), (at(0), at(90)));
}

#[test]
fn steps_of_another_update_are_left_alone() {
    let mut way = Way::new(0);
    way.go(State::Staging, 0, "Retargeted");
    way.steps = vec![step("Staging", -5000, -4000)];
    let spans = way.go(State::Staged, 42, "Staged");
    assert_eq!(names(&spans), ["stage"]);
    assert_eq!(spans[0].end, at(42));
}
