//! Who may act: one replica at a time, by a Lease in the operator's namespace.
//!
//! Written by hand since a Lease is only safe when its holder also stops by itself: every renewal
//! names the resourceVersion it was decided on, and [`Fence`] closes by this process's own
//! monotonic clock before the Lease could be anybody else's, whatever the API server answers.
//! When the Lease is lost the process ends; nothing is worth going on half-fenced.

mod step;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crd::names::FIELD_MANAGER_OPERATOR;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::{debug, info, warn};

use step::{Memory, Move, Reading};

/// The Lease's name; its namespace is the one the operator runs in.
const NAME: &str = crd::names::LEASE;

/// How long others wait for a silent holder. With [`LOOK`] it bounds the take-over after a kill.
const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a holder may act: well before others may.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a holder renews.
const RENEW: Duration = Duration::from_secs(3);
/// How often a candidate looks: bounds the take-over after a clean stop.
const LOOK: Duration = Duration::from_secs(1);
/// The deadline of one request: several fit before [`DEADLINE`].
const REQUEST: Duration = Duration::from_secs(3);

/// Whether this process may act at this moment. Writes are fenced by resourceVersions as well;
/// evictions have none, so each must ask here right before it is sent.
#[derive(Clone, Debug)]
pub struct Fence {
    start: Instant,
    /// Milliseconds after `start` until which acting is allowed.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// For an operator that runs without leader election.
    #[must_use]
    pub fn open() -> Self {
        Self::new(u64::MAX)
    }

    fn closed() -> Self {
        Self::new(0)
    }

    fn new(until: u64) -> Self {
        Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(until)),
        }
    }

    /// Whether a request may be sent now.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.left() > Duration::ZERO
    }

    fn left(&self) -> Duration {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        until.saturating_sub(self.start.elapsed())
    }

    fn set(&self, until: Duration) {
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::Release);
    }
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    me: String,
    memory: Memory,
    fence: Fence,
    /// How often the Lease went from one holder to another, as it says itself.
    transitions: i32,
    /// When this holder got it.
    acquired: Option<Timestamp>,
}

impl Elector {
    /// A candidate `me` (which no other process may use) for the Lease in the client's namespace.
    #[must_use]
    pub fn new(client: Client, me: String) -> Self {
        Self {
            api: Api::default_namespaced(client),
            me,
            memory: Memory::default(),
            fence: Fence::closed(),
            transitions: 0,
            acquired: None,
        }
    }

    /// The fence that opens once the Lease is held.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Returns once the Lease is ours. Fails only when waiting could not help.
    pub async fn acquire(&mut self) -> anyhow::Result<()> {
        info!(lease = NAME, me = %self.me, "waiting for the Lease");
        loop {
            match self.attempt().await {
                Ok(Move::Wait) => {}
                Ok(_) => break,
                Err(error) if is_hopeless(&error) => return Err(hint(error)),
                Err(error) => warn!(lease = NAME, %error, "cannot get the Lease, trying again"),
            }
            sleep(LOOK).await;
        }
        info!(lease = NAME, me = %self.me, "holding the Lease");
        Ok(())
    }

    /// Renews the Lease until it is lost, and says how; never returns while it is held.
    pub async fn hold(&mut self) -> anyhow::Error {
        let mut renewals = interval_at(Instant::now() + RENEW, RENEW);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The deadline goes before everything, an attempt under way included.
            let left = self.fence.left();
            let renewal = async {
                renewals.tick().await;
                self.attempt().await
            };
            match timeout(left, renewal).await {
                Err(_) => {
                    return anyhow::anyhow!(
                        "the Lease {NAME} could not be renewed for {DEADLINE:?}"
                    );
                }
                Ok(Ok(Move::Wait)) => {
                    self.fence.set(Duration::ZERO);
                    return anyhow::anyhow!("another replica holds the Lease {NAME}");
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    warn!(lease = NAME, %error, "cannot renew the Lease, trying again");
                    renewals.reset_after(LOOK);
                }
            }
        }
    }

    /// Gives the Lease back so that another replica need not wait for it to run out. Everything
    /// that acts must have stopped before. One that was lost is left alone.
    pub async fn release(self) {
        let held = self.fence.may_act() && self.memory.is_held_by(&self.me);
        self.fence.set(Duration::ZERO);
        if !held {
            return;
        }
        match self.write(self.lease(None)).await {
            Ok(_) => info!(lease = NAME, "released the Lease"),
            Err(error) => debug!(lease = NAME, %error, "could not release the Lease, it runs out"),
        }
    }

    /// Reads the Lease, decides and writes; `Move::Wait` means that it is somebody else's.
    async fn attempt(&mut self) -> Result<Move, Error> {
        // A holder knows the newest version from its own last write, and a 409 corrects it.
        if self.fence.left() == Duration::ZERO || self.memory.version().is_none() {
            self.read().await?;
        }
        if let Some(next) = self.claim().await? {
            return Ok(next);
        }
        self.read().await?;
        match self.after_conflict() {
            // What was lost is the answer to our own last renewal: time runs, so not at the next one.
            Move::Renew => Ok(self.claim().await?.unwrap_or(Move::Wait)),
            next => Ok(next),
        }
    }

    /// Decides on the Lease as it was last seen, and writes; `None` if it is another one by now.
    async fn claim(&mut self) -> Result<Option<Move>, Error> {
        let next = self.memory.step(&self.me, self.fence.start.elapsed());
        match next {
            Move::Wait => return Ok(Some(next)),
            Move::Create => self.transitions = 0,
            Move::Take => self.transitions = self.transitions.saturating_add(1),
            Move::Renew => {}
        }
        if next != Move::Renew || self.acquired.is_none() {
            self.acquired = Some(Timestamp::now());
        }
        // The time before the request: the Lease may have been renewed the moment it was sent.
        let sent = self.fence.start.elapsed();
        match self.write(self.lease(Some(self.me.clone()))).await {
            Ok(lease) => {
                self.see(Some(&lease));
                self.fence.set(sent + DEADLINE);
                Ok(Some(next))
            }
            Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// After a lost race the Lease is somebody else's, unless the write that was lost was our own
    /// earlier one whose answer never came.
    fn after_conflict(&self) -> Move {
        match self.memory.step(&self.me, self.fence.start.elapsed()) {
            Move::Renew if self.fence.may_act() => Move::Renew,
            _ => Move::Wait,
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let lease = deadline(self.api.get_opt(NAME)).await?;
        self.see(lease.as_ref());
        Ok(())
    }

    async fn write(&self, lease: Lease) -> Result<Lease, Error> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER_OPERATOR.to_owned()),
            ..PostParams::default()
        };
        if lease.metadata.resource_version.is_some() {
            deadline(self.api.replace(NAME, &params, &lease)).await
        } else {
            deadline(self.api.create(&params, &lease)).await
        }
    }

    fn see(&mut self, lease: Option<&Lease>) {
        if let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) {
            self.transitions = spec.lease_transitions.unwrap_or(0);
        }
        self.memory
            .see(lease.map(reading), self.fence.start.elapsed());
    }

    fn lease(&self, holder: Option<String>) -> Lease {
        let duration = if holder.is_some() { DURATION } else { LOOK };
        let mut lease = Lease::default();
        lease.metadata.name = Some(NAME.to_owned());
        lease.metadata.resource_version = self.memory.version().map(str::to_owned);
        lease.spec = Some(LeaseSpec {
            // Other clients of the API know a released Lease by its empty holder.
            holder_identity: Some(holder.unwrap_or_default()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            lease_transitions: Some(self.transitions),
            acquire_time: self.acquired.map(MicroTime),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        });
        lease
    }
}

/// Why a request about the Lease failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer within {REQUEST:?}")]
    Late,
    #[error("{0}")]
    Api(Box<kube::core::Status>),
    #[error(transparent)]
    Other(kube::Error),
}

async fn deadline<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(REQUEST, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Error::Api(status)),
        Ok(Err(error)) => Err(Error::Other(error)),
        Err(_) => Err(Error::Late),
    }
}

fn is_hopeless(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_forbidden() || status.is_not_found())
}

fn hint(error: Error) -> anyhow::Error {
    anyhow::Error::new(error).context(
        "cannot use the Lease; its namespace must exist and the operator's Role must allow \
         get, create and update of leases: kubectl apply -f deploy/install.yaml",
    )
}

fn reading(lease: &Lease) -> Reading {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Reading {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: holder.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(DURATION, Duration::from_secs),
    }
}
