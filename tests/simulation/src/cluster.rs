//! What operators and agents share: the API server, the hosts, the true time, and what goes wrong
//! between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fsm::{
    NodeName, Timestamp,
    command::{Notice, PoolWrite},
    input::Outcome,
    node::Hop,
};

use crate::{
    api::{Request, Server, Target, What},
    guard::Guard,
    host::Host,
    marks::{Mark, Marks},
};

/// Refusals of one object's writes in a minute: those of a decision and of the condition Waiting, each
/// after 1, 2, 4 … seconds, and once more for each thing that changes meanwhile.
const MOST_REFUSALS: u32 = 25;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is done and answered.
    #[default]
    Do,
    /// The API server refuses it.
    Refuse,
    /// It is done and the answer is lost.
    Lose,
    /// It is lost.
    Drop,
    /// Its sender gives up, and it is done later.
    Late,
}

/// Everything but the programs.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    pub(crate) server: Server,
    pub(crate) hosts: BTreeMap<NodeName, Host>,
    /// What happens to the next writes of the operator.
    pub(crate) fates: VecDeque<Sent>,
    /// The same of the agents' requests.
    pub(crate) agent_fates: VecDeque<Sent>,
    /// Writes to these nodes' objects are refused.
    pub(crate) refused: BTreeSet<NodeName>,
    /// Requests whose senders have given up.
    pub(crate) late: Vec<Request>,
    /// Milliseconds that the operator's wall clock is ahead.
    pub(crate) operator_clock: i64,
    /// What tags lead to now and ever did.
    pub(crate) registry: BTreeMap<String, Vec<String>>,
    pub(crate) registry_down: bool,
    /// Content of all pull secrets.
    pub(crate) secret: u32,
    /// By object: since when writes to it were refused, and how often.
    pub(crate) refusals: BTreeMap<Target, (Timestamp, u32)>,
    pub(crate) guard: Guard,
    pub(crate) marks: Marks,
    /// What happened, where somebody wants to read it.
    pub(crate) log: Option<Vec<String>>,
}

impl Cluster {
    /// For the log, if there is one.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("[{:9.1}] {}", seconds(self.now), text()));
        }
    }

    /// A write of an operator.
    pub(crate) fn send(&mut self, request: &Request) -> Outcome {
        let refused = match &request.target {
            Target::Node(name) | Target::BootcNode(name) => self.refused.contains(name),
            Target::Pool(_) => false,
        };
        let fate = if refused {
            Sent::Refuse
        } else {
            self.fates.pop_front().unwrap_or_default()
        };
        let outcome = match fate {
            _ if fate == Sent::Refuse && self.is_hammered(&request.target) => {
                self.guard
                    .fail(|| format!("(11) {:?} is written to without a pause", request.target));
                Outcome::Refused("enough".into())
            }
            Sent::Do => self.write(request),
            Sent::Refuse => {
                self.marks.hit(Mark::WriteRefused);
                Outcome::Refused("a webhook says no".into())
            }
            Sent::Lose => {
                if self.write(request) == Outcome::Ok {
                    self.marks.hit(Mark::AnswerLost);
                }
                Outcome::Failed("timeout".into())
            }
            Sent::Drop => {
                self.marks.hit(Mark::WriteLost);
                Outcome::Failed("timeout".into())
            }
            Sent::Late => {
                self.late.push(request.clone());
                Outcome::Failed("timeout".into())
            }
        };
        self.say(|| {
            format!(
                "  {:?} {} {fate:?}: {outcome:?}",
                request.target,
                crate::words::what(&request.what)
            )
        });
        outcome
    }

    /// Was it refused more often within a minute than any back-off would have it?
    fn is_hammered(&mut self, target: &Target) -> bool {
        let now = self.now;
        let (since, times) = self.refusals.entry(target.clone()).or_insert((now, 0));
        if now.since(*since) > 60_000 {
            (*since, *times) = (now, 0);
        }
        *times += 1;
        *times > MOST_REFUSALS
    }

    fn write(&mut self, request: &Request) -> Outcome {
        if let What::Pool(PoolWrite::Status(status)) = &request.what
            && status
                .is_degraded
                .as_ref()
                .is_some_and(|it| it.reason == "RolloutHalted")
        {
            self.marks.hit(Mark::Halted);
        }
        let before = match &request.target {
            Target::BootcNode(name) => self.server.bootc.get(name).map(|it| it.view.clone()),
            _ => None,
        };
        let outcome = self.server.write(request);
        match outcome {
            Outcome::Ok => {
                let Self {
                    guard,
                    server,
                    hosts,
                    marks,
                    ..
                } = self;
                guard.written(request, before.as_ref(), server, hosts, marks);
            }
            Outcome::Conflict => self.marks.hit(Mark::Conflict),
            _ => self.marks.hit(Mark::Gone),
        }
        if request.by.old {
            self.marks.hit(match outcome {
                Outcome::Ok => Mark::OldLeaderWrote,
                _ => Mark::OldLeaderStale,
            });
        }
        outcome
    }

    /// A request arrives whose sender has given up.
    pub(crate) fn arrive_late(&mut self, at: usize) {
        if at >= self.late.len() {
            return;
        }
        let request = self.late.remove(at);
        self.guard.foreign = true;
        let outcome = self.write(&request);
        self.say(|| {
            format!(
                "late: {:?} {}: {outcome:?}",
                request.target,
                crate::words::what(&request.what)
            )
        });
        self.marks.hit(match outcome {
            Outcome::Ok => Mark::LateWriteDone,
            _ => Mark::LateWriteStale,
        });
    }

    /// The host was in that image and is back. It counts where we sent it there, and that is noted in an
    /// object that stays.
    pub(crate) fn fell_back(&mut self, name: &NodeName, digest: &str) {
        let stored = self.server.bootc.get(name);
        let stays = stored.filter(|it| !it.view.deleting);
        let status = stays.and_then(|it| it.status.as_ref());
        let attempt = status.and_then(|it| it.report.attempt.as_ref());
        if attempt.is_some_and(|it| it.digest == digest) {
            self.guard.fell_back(name, digest);
        }
    }

    /// What happens to an agent's next request.
    pub(crate) fn agent_fate(&mut self) -> Sent {
        let fate = self.agent_fates.pop_front().unwrap_or_default();
        if fate != Sent::Do {
            self.marks.hit(Mark::AgentRequestFailed);
        }
        fate
    }

    pub(crate) fn ask_registry(&mut self, reference: &str) -> Result<String, String> {
        if self.registry_down {
            self.marks.hit(Mark::TagFailed);
            return Err("connection refused".into());
        }
        let digests = self.registry.get(reference);
        let newest = digests.and_then(|all| all.last()).cloned();
        newest.ok_or_else(|| "manifest unknown".into())
    }

    /// A tag leads to another image from now on.
    pub(crate) fn move_tag(&mut self, reference: &str, digest: &str) {
        let digests = self.registry.entry(reference.to_owned()).or_default();
        if digests.last().is_some_and(|last| last != digest) {
            self.marks.hit(Mark::TagMoved);
        }
        digests.push(digest.to_owned());
    }

    pub(crate) fn hop(&mut self, node: &NodeName, hop: &Hop) {
        self.say(|| format!("  {node}: {} -> {} ({})", hop.from, hop.to, hop.cause));
        match hop.cause.as_str() {
            "DrainLate" => self.marks.hit(Mark::DrainTimedOut),
            "Dead" => self.marks.hit(Mark::DeadNode),
            _ => {}
        }
    }

    pub(crate) fn notice(&mut self, notice: &Notice) {
        self.say(|| format!("  {:?} {}: {}", notice.about, notice.reason, notice.note));
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(at: Timestamp) -> f64 {
    (at.0 - crate::world::START.0) as f64 / 1000.0
}
