//! A pool as the sum of its nodes: each shows a small [`Tally`], and the sum is corrected by
//! subtracting the old and adding the new, so the work per event does not grow with the nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{names::NodeName, node::State, time::Timestamp, view::Amount};

/// So many unhealthy slot holders halt a pool.
pub const HALT_AT: usize = 2;

/// Where a node stands in its pool; each is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Runs the target and holds no slot.
    Updated,
    /// No report yet, or not yet told to stage.
    Pending,
    /// Pulls and deploys.
    Staging,
    /// Waits for a slot.
    Staged,
    /// Cordoned, being drained.
    Draining,
    /// Approved.
    Rebooting,
    /// Has to show that it is well.
    Verifying,
    /// Something is wrong; wins over all others.
    Degraded,
    /// Let go: not of the pool any more, but it may still hold a slot.
    Leaving,
}

impl Bucket {
    /// All, with their names, in the order of a rollout.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Pending, "pending"),
        (Self::Staging, "staging"),
        (Self::Staged, "staged"),
        (Self::Draining, "draining"),
        (Self::Rebooting, "rebooting"),
        (Self::Verifying, "verifying"),
        (Self::Degraded, "degraded"),
        (Self::Updated, "updated"),
        (Self::Leaving, "leaving"),
    ];

    /// Is it a part of what the message of `UpToDate=False` tells of those still to be updated?
    #[must_use]
    pub fn is_to_do(self) -> bool {
        !matches!(self, Self::Updated | Self::Leaving)
    }

    /// Where a node in this state stands, if nothing else is to be said of it.
    #[must_use]
    pub fn of(state: State) -> Self {
        match state {
            State::Idle => Self::Pending,
            State::Staging => Self::Staging,
            State::Staged => Self::Staged,
            State::Cordoned | State::Draining => Self::Draining,
            State::Rebooting => Self::Rebooting,
            State::Verifying => Self::Verifying,
            State::Leaving => Self::Leaving,
        }
    }
}

/// What a node shows to its pool.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Where it stands.
    pub bucket: Bucket,
    /// Since when.
    pub since: Timestamp,
    /// What it waits for, in one word.
    pub waits: Option<&'static str>,
    /// It holds a slot, is about to, or may.
    pub holds: bool,
    /// It holds a slot and is not well; why, in one word.
    pub unhealthy: Option<&'static str>,
    /// It could take a slot.
    pub candidate: bool,
    /// It waits for room to stage.
    pub wants_room: bool,
    /// It takes room for staging.
    pub stages: bool,
    /// Not Ready, or cordoned by others, and not by holding a slot.
    pub unavailable: bool,
    /// Its `BootcNode` is the pool's.
    pub owned: bool,
    /// What is wrong with it, for people.
    pub problem: Option<String>,
    /// What its drain waits for, as its condition Waiting says it.
    pub drain_waits: Option<String>,
    /// The other pools that claim it.
    pub rivals: BTreeSet<crate::PoolName>,
}

/// The sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    tallies: BTreeMap<NodeName, Tally>,
    buckets: BTreeMap<Bucket, usize>,
    /// Since when nodes stand there, and how many since then.
    ages: BTreeMap<(Bucket, Timestamp), usize>,
    waits: BTreeMap<&'static str, usize>,
    /// Slot holders.
    pub holders: BTreeSet<NodeName>,
    /// Unhealthy slot holders.
    pub unhealthy: BTreeMap<NodeName, &'static str>,
    /// Who could take a slot, in name order.
    pub candidates: BTreeSet<NodeName>,
    /// Who waits for room to stage, in name order.
    pub waiting_for_room: BTreeSet<NodeName>,
    /// Nodes with a problem.
    pub problems: BTreeMap<NodeName, String>,
    /// Nodes whose drain waits, and what for.
    pub drain_waits: BTreeMap<NodeName, String>,
    /// Nodes that other pools claim too.
    pub contested: BTreeMap<NodeName, BTreeSet<crate::PoolName>>,
    /// Nodes that stage.
    pub staging: usize,
    /// Nodes that are down for other reasons.
    pub unavailable: usize,
    /// Nodes whose `BootcNode` is the pool's.
    pub owned: usize,
}

impl Sum {
    /// Replaces what a node shows; `None`: it shows nothing any more. Says whether that changed
    /// anything.
    pub fn put(&mut self, name: &NodeName, tally: Option<Tally>) -> bool {
        if self.tallies.get(name) == tally.as_ref() {
            return false;
        }
        if let Some(old) = self.tallies.remove(name) {
            self.subtract(name, &old);
        }
        if let Some(new) = tally {
            self.add(name, &new);
            self.tallies.insert(name.clone(), new);
        }
        true
    }

    fn subtract(&mut self, name: &NodeName, tally: &Tally) {
        take(&mut self.buckets, &tally.bucket);
        take(&mut self.ages, &(tally.bucket, tally.since));
        if let Some(waits) = tally.waits {
            take(&mut self.waits, &waits);
        }
        self.holders.remove(name);
        self.unhealthy.remove(name);
        self.candidates.remove(name);
        self.waiting_for_room.remove(name);
        self.problems.remove(name);
        self.drain_waits.remove(name);
        self.contested.remove(name);
        self.staging -= usize::from(tally.stages);
        self.unavailable -= usize::from(tally.unavailable);
        self.owned -= usize::from(tally.owned);
    }

    fn add(&mut self, name: &NodeName, tally: &Tally) {
        *self.buckets.entry(tally.bucket).or_default() += 1;
        *self.ages.entry((tally.bucket, tally.since)).or_default() += 1;
        if let Some(waits) = tally.waits {
            *self.waits.entry(waits).or_default() += 1;
        }
        let mark = |is: bool, set: &mut BTreeSet<NodeName>| {
            if is {
                set.insert(name.clone());
            }
        };
        mark(tally.holds, &mut self.holders);
        mark(tally.candidate, &mut self.candidates);
        mark(tally.wants_room, &mut self.waiting_for_room);
        if let Some(why) = tally.unhealthy {
            self.unhealthy.insert(name.clone(), why);
        }
        if let Some(problem) = &tally.problem {
            self.problems.insert(name.clone(), problem.clone());
        }
        if let Some(waits) = &tally.drain_waits {
            self.drain_waits.insert(name.clone(), waits.clone());
        }
        if !tally.rivals.is_empty() {
            self.contested.insert(name.clone(), tally.rivals.clone());
        }
        self.staging += usize::from(tally.stages);
        self.unavailable += usize::from(tally.unavailable);
        self.owned += usize::from(tally.owned);
    }

    /// All nodes that show something.
    pub fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.tallies.keys()
    }

    /// No node shows anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// What a node shows.
    #[must_use]
    pub fn get(&self, name: &NodeName) -> Option<&Tally> {
        self.tallies.get(name)
    }

    /// How many nodes stand there.
    #[must_use]
    pub fn count(&self, bucket: Bucket) -> usize {
        self.buckets.get(&bucket).copied().unwrap_or_default()
    }

    /// Since when the node that has been there longest stands there.
    #[must_use]
    pub fn oldest(&self, bucket: Bucket) -> Option<Timestamp> {
        let ever = (bucket, Timestamp(i64::MIN))..=(bucket, Timestamp(i64::MAX));
        let ((_, since), _) = self.ages.range(ever).next()?;
        Some(*since)
    }

    /// How many nodes wait for what.
    pub fn waiting(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.waits.iter().map(|(on, count)| (*on, *count))
    }

    /// Nodes of the pool: all but those that are let go.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.tallies.len() - self.count(Bucket::Leaving)
    }

    /// Nodes on their way, from staging to verifying.
    #[must_use]
    pub fn updating(&self) -> usize {
        use Bucket as B;
        [
            B::Staging,
            B::Staged,
            B::Draining,
            B::Rebooting,
            B::Verifying,
        ]
        .into_iter()
        .map(|bucket| self.count(bucket))
        .sum()
    }

    /// Nothing new is started: too many slot holders are not well.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.unhealthy.len() >= HALT_AT
    }

    /// Would one more unhealthy slot holder halt it, namely this one?
    #[must_use]
    pub fn halted_beside(&self, node: &NodeName) -> bool {
        let others = self.unhealthy.len() - usize::from(self.unhealthy.contains_key(node));
        others + 1 >= HALT_AT
    }

    /// How many slots there are: `max`, less the nodes that are down anyway, but for that reason
    /// never less than one.
    #[must_use]
    pub fn slots(&self, max: Amount) -> usize {
        match max.of(self.nodes()) {
            0 => 0,
            max => max.saturating_sub(self.unavailable).max(1),
        }
    }

    /// How many of them are free.
    #[must_use]
    pub fn free_slots(&self, max: Amount) -> usize {
        if self.halted() {
            return 0;
        }
        self.slots(max).saturating_sub(self.holders.len())
    }

    /// How many more nodes may stage.
    #[must_use]
    pub fn free_room(&self, max: Option<Amount>) -> usize {
        max.map_or(usize::MAX, |max| {
            max.of(self.nodes()).saturating_sub(self.staging)
        })
    }

    /// The same sum, counted anew from what every node shows.
    #[must_use]
    pub fn recount(&self) -> Self {
        let mut sum = Self::default();
        for (name, tally) in &self.tallies {
            sum.put(name, Some(tally.clone()));
        }
        sum
    }
}

/// Counts one less.
fn take<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random and are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((self.0 >> 33) as usize) % n
        }

        fn coin(&mut self) -> bool {
            self.below(2) == 1
        }

        fn tally(&mut self) -> Tally {
            let rivals = if self.coin() {
                ["q".into()].into()
            } else {
                BTreeSet::new()
            };
            Tally {
                bucket: Bucket::ALL[self.below(Bucket::ALL.len())].0,
                since: Timestamp(i64::try_from(self.below(5)).unwrap()),
                waits: self.coin().then_some("RebootSlot"),
                holds: self.coin(),
                unhealthy: self.coin().then_some("NotReady"),
                candidate: self.coin(),
                wants_room: self.coin(),
                stages: self.coin(),
                unavailable: self.coin(),
                owned: self.coin(),
                problem: self.coin().then(|| "broken".to_owned()),
                drain_waits: self.coin().then(|| "waiting for pod a/b".to_owned()),
                rivals,
            }
        }
    }

    #[test]
    fn the_sum_kept_is_the_sum_counted_anew() {
        for seed in 0..500 {
            let mut numbers = Numbers(seed);
            let mut sum = Sum::default();
            for _ in 0..60 {
                let name = NodeName::from(format!("w{}", numbers.below(8)));
                let tally = (numbers.below(4) > 0).then(|| numbers.tally());
                sum.put(&name, tally);
                assert_eq!(sum, sum.recount());
            }
            for n in 0..8 {
                sum.put(&NodeName::from(format!("w{n}")), None);
            }
            assert_eq!(sum, Sum::default());
        }
    }

    #[test]
    fn the_oldest_of_a_bucket_is_known_and_forgotten() {
        let mut sum = Sum::default();
        let tally = |bucket, since| Tally {
            bucket,
            since: Timestamp(since),
            ..Numbers(1).tally()
        };
        let mut put = |name: &str, tally| {
            sum.put(&NodeName::from(name), tally);
            Bucket::ALL.map(|(bucket, _)| sum.oldest(bucket).map(|at| at.0))
        };
        put("w1", Some(tally(Bucket::Staged, 5)));
        put("w2", Some(tally(Bucket::Staged, 3)));
        let all = put("w3", Some(tally(Bucket::Pending, 9)));
        assert_eq!(all[..4], [Some(9), None, Some(3), None]);
        assert_eq!(put("w2", None)[2], Some(5));
        assert_eq!(put("w1", Some(tally(Bucket::Staged, 7)))[2], Some(7));
    }

    #[test]
    fn slots_are_fewer_by_what_is_down_anyway_and_never_none_for_that() {
        let sum = |nodes: usize, down: usize| Sum {
            unavailable: down,
            tallies: (0..nodes)
                .map(|n| (NodeName::from(format!("w{n}")), Numbers(1).tally()))
                .collect(),
            ..Sum::default()
        };
        assert_eq!(sum(10, 0).slots(Amount::Count(3)), 3);
        assert_eq!(sum(10, 2).slots(Amount::Count(3)), 1);
        assert_eq!(sum(10, 9).slots(Amount::Count(3)), 1);
        assert_eq!(sum(10, 0).slots(Amount::Percent(25)), 3, "rounded up");
        assert_eq!(sum(10, 0).slots(Amount::Count(0)), 0);
        assert_eq!(sum(10, 0).slots(Amount::Percent(0)), 0);
    }
}
