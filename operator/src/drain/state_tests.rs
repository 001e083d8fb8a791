use super::*;
use crate::drain::{
    cause::Cause,
    pod::tests::{CORDONED, pod},
};
use kube::core::Status;
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn state(now: Instant) -> State {
    State::new(Board::new(CORDONED.parse().unwrap(), None), now)
}

fn view(name: &str) -> PodView {
    let metadata = json!({"namespace": "shop", "name": name, "uid": format!("uid-{name}")});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

fn list(state: &mut State, names: &[&str], now: Instant) {
    state.seen(Ok(Event::Init), now);
    for name in names {
        state.seen(Ok(Event::InitApply(view(name))), now);
    }
    state.seen(Ok(Event::InitDone), now);
}

fn forbidden() -> kube::Error {
    kube::Error::Api(
        Status::failure("pods is forbidden", "Forbidden")
            .with_code(403)
            .boxed(),
    )
}

#[test]
fn nothing_is_evicted_or_done_before_the_list_is_complete() {
    let now = Instant::now();
    let mut state = state(now);
    state.seen(Ok(Event::Init), now);
    state.seen(Ok(Event::InitApply(view("a"))), now);
    assert!(state.due(8).is_empty());
    assert!(!state.wants_last_list());
    assert_eq!(state.news(), None);
    state.seen(Ok(Event::InitDone), now);
    assert_eq!(state.due(8).len(), 1);
}

#[test]
fn done_is_only_what_the_last_list_says() {
    let now = Instant::now();
    let mut state = state(now);
    list(&mut state, &["a"], now);
    state.due(8);
    assert!(!state.wants_last_list());
    state.seen(Ok(Event::Delete(view("a"))), now);
    assert!(state.wants_last_list());
    assert!(!state.is_done());
    state.listed_again(Ok(vec![pod("b", json!({}))]), now);
    assert!(!state.is_done());
    assert_eq!(
        state.due(8).len(),
        1,
        "a pod that the watch did not show is evicted too"
    );
    state.seen(Ok(Event::Delete(view("b"))), now);
    state.listed_again(Ok(vec![]), now);
    assert!(state.is_done());
}

#[test]
fn a_last_list_that_fails_is_said_and_tried_again() {
    let now = Instant::now();
    let mut state = state(now);
    list(&mut state, &[], now);
    assert!(state.wants_last_list());
    state.listed_again(Err("no route".to_owned()), now);
    assert!(!state.is_done() && !state.wants_last_list());
    assert_eq!(state.news().unwrap().trouble.as_deref(), Some("no route"));
    let again = state.wake().unwrap();
    assert_eq!(again, now + LIST_AGAIN);
    state.tick(again);
    assert!(state.wants_last_list());
    state.listed_again(Ok(vec![]), again);
    assert!(state.is_done());
}

#[test]
fn a_list_that_hangs_is_begun_anew() {
    let now = Instant::now();
    let mut state = state(now);
    assert!(!state.wants_new_watch());
    assert_eq!(state.wake(), Some(now + LISTING));
    state.tick(now + LISTING);
    assert!(state.wants_new_watch());
    assert!(!state.wants_new_watch(), "once");
    list(&mut state, &["a"], now + LISTING);
    state.tick(now + 10 * LISTING);
    assert!(!state.wants_new_watch(), "a watch at work is kept");
}

#[test]
fn a_watch_that_may_not_begin_is_said_and_begun_anew() {
    let now = Instant::now();
    let mut state = state(now);
    state.seen(Err(watcher::Error::InitialListFailed(forbidden())), now);
    let said = state.news().unwrap();
    assert_eq!(said.left, None);
    assert!(said.trouble.unwrap().contains("pods is forbidden"));
    list(&mut state, &["a"], now + SECOND);
    assert_eq!(
        state.news().unwrap(),
        Waits {
            left: Some(1),
            ..Waits::default()
        }
    );
    state.seen(
        Err(watcher::Error::WatchStartFailed(forbidden())),
        now + SECOND,
    );
    state.tick(now + SECOND + REFUSED);
    assert!(state.news().unwrap().trouble.is_some());
    assert!(state.wants_new_watch());
}

#[test]
fn a_watch_that_breaks_off_is_not_worth_a_word() {
    let now = Instant::now();
    let mut state = state(now);
    list(&mut state, &["a"], now);
    state.news();
    state.seen(
        Err(watcher::Error::WatchError(
            Status::failure("gone", "Expired").boxed(),
        )),
        now,
    );
    state.tick(now + 5 * SECOND);
    assert_eq!(state.news(), None);
}

#[test]
fn news_is_said_once_and_at_most_once_a_second() {
    let now = Instant::now();
    let mut state = state(now);
    list(&mut state, &["a", "b"], now);
    assert_eq!(state.news().unwrap().left, Some(2));
    assert_eq!(state.news(), None);
    state.due(8);
    state.answered(&"uid-a".into(), Answer::refused(Cause::Busy), now);
    assert_eq!(state.news(), None, "too early");
    assert_eq!(state.wake(), Some(now + SECOND));
    state.tick(now + SECOND);
    assert_eq!(state.news().unwrap().pods.len(), 1);
    state.tick(now + 2 * SECOND);
    assert_eq!(state.news(), None, "no news");
}
