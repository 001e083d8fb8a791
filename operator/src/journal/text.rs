//! Commands as a line for people.

use fsm::{
    Command, NodeName, PoolName, Timestamp,
    command::{About, Effect, NodeWrite, PoolWrite},
};
use k8s_openapi::jiff;

/// A moment, to the millisecond.
pub(super) fn time(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => at.0.to_string(),
    }
}

/// The pool and the node that it is about.
pub(super) fn of(command: &Command) -> (Option<&str>, Option<&str>) {
    let (pool, node): (Option<&PoolName>, Option<&NodeName>) = match command {
        Command::Decide(decision) => (decision.pool.as_ref(), Some(&decision.node)),
        Command::Pool { pool, .. } | Command::Resolve { pool, .. } => (Some(pool), None),
        Command::Waiting { node, .. } => (None, Some(node)),
        Command::Hop { node, pool, .. } => (pool.as_ref(), Some(node)),
        Command::Notice(notice) => match &notice.about {
            About::Pool(pool) => (Some(pool), None),
            About::Node(node, pool) => (pool.as_ref(), Some(node)),
        },
        Command::WakeAt(_) => (None, None),
    };
    (pool.map(PoolName::as_str), node.map(NodeName::as_str))
}

/// What is asked for.
pub(super) fn what(command: &Command) -> String {
    match command {
        Command::Decide(decision) => {
            let effects: Vec<_> = decision.effects.iter().map(effect).collect();
            format!("decide #{}: {}", decision.id, effects.join(", "))
        }
        Command::Pool { write, what, .. } => format!("pool #{write}: {}", pool_write(what)),
        Command::Waiting { waiting, .. } if waiting.waiting => {
            format!("waiting {}: {}", waiting.reason, waiting.message)
        }
        Command::Waiting { .. } => "waiting for nothing".to_owned(),
        Command::Resolve { reference, .. } => format!("resolve {reference}"),
        Command::Hop { hop, .. } => format!("hop {} -> {} ({})", hop.from, hop.to, hop.cause),
        Command::Notice(notice) => {
            let kind = if notice.warning { "warning" } else { "event" };
            format!("{kind} {}: {}", notice.reason, notice.note)
        }
        Command::WakeAt(Some(at)) => format!("wake at {}", time(*at)),
        Command::WakeAt(None) => "no timer".to_owned(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::CancelDrain => "cancel the drain".to_owned(),
        Effect::Uncordon => "uncordon".to_owned(),
        Effect::ForgetCordon => "forget the cordon".to_owned(),
        Effect::Unlabel => "unlabel".to_owned(),
        Effect::Delete => "delete the BootcNode".to_owned(),
        Effect::Create { write, .. } => format!("create ({})", node_write(write)),
        Effect::Commit(write) => format!("commit ({})", node_write(write)),
        Effect::Label => "label".to_owned(),
        Effect::Cordon { by } => format!("cordon by {by}"),
        Effect::StartDrain { attempt } => format!("start drain {attempt}"),
    }
}

fn node_write(write: &NodeWrite) -> String {
    let image = write.spec.image.as_ref();
    format!(
        "{}, image {}{}{}",
        write.record.state,
        image.map_or("none", fsm::Image::short),
        if write.spec.booted { ", booted" } else { "" },
        if write.in_reboot_slot {
            ", in a slot"
        } else {
            ""
        },
    )
}

fn pool_write(write: &PoolWrite) -> String {
    match write {
        PoolWrite::AddFinalizer => "add the finalizer".to_owned(),
        PoolWrite::RemoveFinalizer => "remove the finalizer".to_owned(),
        PoolWrite::Status(status) => {
            let shown = [
                ("UpToDate", &status.up_to_date),
                ("Degraded", &status.is_degraded),
            ];
            let conditions = shown.iter().filter_map(|(name, condition)| {
                let condition = condition.as_ref()?;
                Some(format!("{name}={} {}", condition.reason, condition.message))
            });
            let conditions: Vec<_> = conditions.collect();
            format!("status {}", conditions.join("; ").trim_end())
        }
    }
}
