use super::*;
use crate::drain::pod::tests::{CORDONED, pod};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

fn board() -> Board {
    Board::new(CORDONED.parse().unwrap(), None)
}

fn listed(pods: Vec<Pod>, now: Instant) -> Board {
    let mut board = board();
    board.replace(pods, now);
    board
}

fn names(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|target| &*target.name.name).collect()
}

fn uid(name: &str) -> Uid {
    format!("uid-{name}").into()
}

fn refused() -> Answer {
    Answer::refused(Cause::Busy)
}

fn stopping(grace: i64) -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-01T12:01:00Z",
                        "deletionGracePeriodSeconds": grace}})
}

fn came_back() -> Value {
    json!({"metadata": {"creationTimestamp": "2026-01-01T12:00:01Z"},
           "spec": {"tolerations": [{"operator": "Exists"}]}})
}

#[test]
fn a_pod_that_nothing_blocks_is_asked_for_once() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({}))], now);
    assert_eq!(names(&board.due(now, 8)), ["a"]);
    assert!(
        board.due(now + SECOND, 8).is_empty(),
        "the answer is awaited"
    );
    board.answered(&uid("a"), Answer::Accepted, now);
    board.apply(pod("a", stopping(600)), now);
    assert!(
        board.due(now + 500 * SECOND, 8).is_empty(),
        "it is stopping"
    );
    assert_eq!(board.left(), 1);
    board.gone(&uid("a"));
    assert_eq!(board.left(), 0);
}

#[test]
fn a_pod_of_a_silent_node_is_left_alone_until_its_kubelet_speaks_or_a_minute_is_over() {
    let now = Instant::now();
    let status = |ready| {
        json!({"status": {"conditions": [
            {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": "True"}]}})
    };
    let silenced = || pod("a", status("False"));
    let mut board = listed(vec![silenced(), pod("b", status("True"))], now);
    assert_eq!(names(&board.due(now, 8)), ["b"]);
    assert!(board.waits(now)[0].to_string().contains("was silent"));
    assert_eq!(board.wake(now), Some(now + SILENCE));

    board.apply(silenced(), now + 50 * SECOND);
    assert!(
        board.due(now + 59 * SECOND, 8).is_empty(),
        "it still is silent"
    );
    assert_eq!(names(&board.due(now + SILENCE, 8)), ["a"]);

    let mut board = listed(vec![silenced()], now);
    board.apply(pod("a", status("True")), now + SECOND);
    assert_eq!(names(&board.due(now + SECOND, 8)), ["a"]);
    // Refused by its budget, it falls silent: both waits must be over.
    board.answered(&uid("a"), refused(), now + SECOND);
    board.apply(silenced(), now + 2 * SECOND);
    assert!(board.due(now + 30 * SECOND, 8).is_empty());
    assert_eq!(
        board.wake(now + 2 * SECOND),
        Some(now + 2 * SECOND + SILENCE)
    );
}

#[test]
fn pods_that_are_left_alone_are_not_waited_for() {
    let now = Instant::now();
    let finished = json!({"status": {"phase": "Succeeded"}});
    let mut board = listed(vec![pod("a", finished.clone()), pod("b", json!({}))], now);
    assert_eq!(board.left(), 1);
    board.apply(pod("b", finished), now);
    assert_eq!(board.left(), 0, "a pod that finishes need not go");
    assert!(board.due(now, 8).is_empty());
}

#[test]
fn a_stopping_pod_is_waited_for_but_not_evicted() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", stopping(30))], now);
    assert!(board.due(now, 8).is_empty());
    assert_eq!(
        board.waits(now)[0].to_string(),
        "waiting for pod shop/a: stopping (has 30 s)"
    );
    assert_eq!(
        board.wake(now),
        Some(now + 40 * SECOND),
        "to say that it is overdue"
    );
    let late = now + 40 * SECOND;
    assert!(matches!(
        board.waits(late)[0].cause,
        Cause::Terminating { overdue: true, .. }
    ));
    assert_eq!(board.wake(late), None);
}

#[test]
fn a_refused_eviction_is_retried_for_ever_with_growing_waits() {
    let start = Instant::now();
    let mut now = start;
    let mut board = listed(vec![pod("a", json!({}))], now);
    let mut waits = Vec::new();
    for _ in 0..40 {
        assert_eq!(names(&board.due(now, 8)), ["a"]);
        board.answered(&uid("a"), refused(), now);
        assert!(board.due(now, 8).is_empty(), "not at once");
        assert_eq!(board.waits(now)[0].cause, Cause::Busy);
        let again = board.wake(now).unwrap();
        waits.push(again - now);
        now = again;
    }
    assert!((SECOND..2 * SECOND).contains(&waits[0]), "{waits:?}");
    assert!(waits[0] < waits[2] && waits[2] < waits[5], "{waits:?}");
    let longest = waits.iter().max().unwrap();
    assert!(*longest <= 2 * BACKOFF.1, "{waits:?}");
    let distinct: std::collections::BTreeSet<_> = waits[20..].iter().collect();
    assert!(
        distinct.len() > 1,
        "jitter keeps blocked pods from asking in step: {waits:?}"
    );
}

/// Else it would come and go in what is told of the drain.
#[test]
fn a_pod_that_is_asked_for_again_is_waited_for_all_the_time() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({}))], now);
    board.due(now, 8);
    assert!(board.waits(now).is_empty(), "nothing is known yet");
    board.answered(&uid("a"), refused(), now);
    let later = now + 120 * SECOND;
    assert_eq!(names(&board.due(later, 8)), ["a"]);
    assert_eq!(board.waits(later)[0].cause, Cause::Busy);
    board.answered(&uid("a"), Answer::Accepted, later);
    assert!(board.waits(later).is_empty(), "it has its time to go");
    let ignored = later + 120 * SECOND;
    assert_eq!(names(&board.due(ignored, 8)), ["a"]);
    assert_eq!(board.waits(ignored)[0].cause, Cause::Ignored);
}

#[test]
fn back_off_is_a_pods_own() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({})), pod("b", json!({}))], now);
    assert_eq!(names(&board.due(now, 8)), ["a", "b"]);
    board.answered(&uid("a"), refused(), now);
    board.answered(&uid("b"), Answer::Accepted, now);
    assert_eq!(names(&board.due(now + 2 * SECOND, 8)), ["a"]);
}

#[test]
fn the_servers_own_wait_is_honoured() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({}))], now);
    board.due(now, 8);
    let wait = 45 * SECOND;
    board.answered(
        &uid("a"),
        Answer::Refused {
            cause: Cause::Busy,
            wait,
        },
        now,
    );
    assert_eq!(board.wake(now), Some(now + wait));
}

#[test]
fn an_eviction_without_effect_is_named_and_repeated() {
    let now = Instant::now();
    for answer in [Answer::Accepted, Answer::Gone] {
        let mut board = listed(vec![pod("a", json!({}))], now);
        board.due(now, 8);
        board.answered(&uid("a"), answer, now);
        assert!(board.waits(now).is_empty());
        let again = board.wake(now).unwrap();
        assert_eq!(again, now + REPEAT);
        assert_eq!(board.waits(again)[0].cause, Cause::Ignored);
        assert_eq!(names(&board.due(again, 8)), ["a"]);
    }
}

#[test]
fn a_later_pod_of_the_same_name_is_another_pod() {
    let now = Instant::now();
    let mut board = listed(vec![pod("db-0", json!({}))], now);
    board.due(now, 8);
    board.answered(&uid("db-0"), refused(), now);
    let mut next = pod("db-0", json!({}));
    next.uid = uid("second");
    board.apply(next, now);
    board.gone(&uid("db-0"));
    assert_eq!(board.left(), 1);
    let target = &board.due(now, 8)[0];
    assert_eq!(
        target.uid,
        uid("second"),
        "asked for at once, by its own UID"
    );
    board.answered(&uid("db-0"), Answer::Accepted, now);
    assert_eq!(
        board.left(),
        1,
        "an answer to the old one says nothing of it"
    );
}

#[test]
fn only_so_many_are_asked_for_at_once() {
    let now = Instant::now();
    let pods = ["a", "b", "c"].map(|name| pod(name, json!({}))).to_vec();
    let mut board = listed(pods, now);
    assert_eq!(names(&board.due(now, 2)), ["a", "b"]);
    assert!(board.due(now, 0).is_empty());
    assert_eq!(names(&board.due(now, 2)), ["c"]);
}

#[test]
fn a_list_replaces_what_is_known() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({})), pod("b", json!({}))], now);
    board.due(now, 8);
    board.answered(&uid("a"), refused(), now);
    board.replace(vec![pod("a", json!({})), pod("c", json!({}))], now);
    assert_eq!(board.left(), 2);
    assert_eq!(names(&board.due(now, 8)), ["c"], "the back-off of a stays");
}

#[test]
fn bare_and_empty_dir_pods_are_named_with_their_first_eviction() {
    let now = Instant::now();
    let bare = json!({"metadata": {"ownerReferences": null}});
    let volume = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let mut board = listed(
        vec![pod("a", bare), pod("b", volume), pod("c", json!({}))],
        now,
    );
    let targets = board.due(now, 8);
    let notes: Vec<_> = targets
        .iter()
        .map(|t| t.notable.as_ref().map(|n| n.notes.clone()))
        .collect();
    assert_eq!(
        notes,
        [Some(vec![Note::Bare]), Some(vec![Note::EmptyDir]), None]
    );
    board.answered(&uid("a"), refused(), now);
    let again = board.due(now + 2 * SECOND, 8);
    assert_eq!((names(&again), &again[0].notable), (vec!["a"], &None));
}

#[test]
fn a_pod_that_came_back_is_evicted_once_and_its_replacement_stays() {
    let now = Instant::now();
    let mut board = listed(vec![pod("web-1", json!({}))], now);
    assert_eq!(names(&board.due(now, 8)), ["web-1"]);
    board.gone(&uid("web-1"));
    board.apply(pod("web-2", came_back()), now);
    let targets = board.due(now, 8);
    assert_eq!(names(&targets), ["web-2"]);
    assert_eq!(targets[0].notable.as_ref().unwrap().notes, [Note::CameBack]);
    board.apply(pod("web-3", came_back()), now);
    assert!(board.due(now, 8).is_empty());
    assert_eq!(board.left(), 1, "the evicted one is given its time to stop");
    board.gone(&uid("web-2"));
    assert_eq!(board.left(), 0);
    assert_eq!(board.staying(), [PodName::new("shop", "web-3")]);
    assert!(board.waits(now).is_empty());
}

#[test]
fn each_of_several_replicas_that_came_back_is_evicted_once() {
    let now = Instant::now();
    let mut board = listed(vec![pod("a", json!({})), pod("b", json!({}))], now);
    board.due(now, 8);
    board.replace(vec![], now);
    for name in ["c", "d", "e", "f"] {
        board.apply(pod(name, came_back()), now);
    }
    assert_eq!(names(&board.due(now, 8)), ["c", "d"]);
    assert_eq!(
        board.staying(),
        [PodName::new("shop", "e"), PodName::new("shop", "f")]
    );
}

#[test]
fn a_restarted_operator_evicts_those_that_came_back_once_more() {
    let now = Instant::now();
    let mut board = listed(vec![pod("c", came_back()), pod("d", came_back())], now);
    assert_eq!(names(&board.due(now, 8)), ["c", "d"]);
    board.apply(pod("e", came_back()), now);
    assert_eq!(board.staying(), [PodName::new("shop", "e")]);
}

#[test]
fn the_operators_own_pod_goes_last() {
    let now = Instant::now();
    let mut board = Board::new(CORDONED.parse().unwrap(), Some(PodName::new("shop", "a")));
    board.replace(vec![pod("a", json!({})), pod("b", json!({}))], now);
    assert_eq!(names(&board.due(now, 8)), ["b"]);
    board.apply(pod("b", stopping(30)), now);
    assert!(board.due(now, 8).is_empty());
    board.gone(&uid("b"));
    assert_eq!(names(&board.due(now, 8)), ["a"]);
}

#[test]
fn the_operators_own_pod_stays_once_it_came_back() {
    let now = Instant::now();
    let mut board = Board::new(CORDONED.parse().unwrap(), Some(PodName::new("shop", "a")));
    board.replace(vec![pod("a", came_back())], now);
    assert!(
        board.due(now, 8).is_empty(),
        "or a cluster of one node would never be drained"
    );
    assert_eq!(
        (board.left(), board.staying()),
        (0, vec![PodName::new("shop", "a")])
    );
}

#[test]
fn what_holds_a_drain_up_is_named_first() {
    let now = Instant::now();
    let mut board = listed(
        vec![
            pod("a", stopping(30)),
            pod("b", json!({})),
            pod("c", stopping(0)),
        ],
        now,
    );
    board.due(now, 8);
    board.answered(&uid("b"), refused(), now);
    let order: Vec<_> = board
        .waits(now + 15 * SECOND)
        .into_iter()
        .map(|w| w.pod.name.to_string())
        .collect();
    assert_eq!(order, ["b", "c", "a"], "refused, overdue, stopping");
}
