//! Schedules: drawn from a seed, run, cut down to what makes them fail, run by the thousand.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;

use crate::{
    action::{self, Action, Setup},
    marks::Marks,
    world::World,
};

/// So often a failing schedule is run again to make it shorter.
const SHRINK_RUNS: usize = 3000;
/// After so many failures nothing new is learned.
const ENOUGH: usize = 100;
/// Lines of the log that are shown of a failure.
const LOG_SHOWN: usize = 1500;

/// A schedule.
#[derive(Clone, Debug)]
struct Case {
    setup: Setup,
    actions: Vec<Action>,
}

/// What a run met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Schedules that were run.
    pub schedules: u64,
    /// Steps of anybody in them.
    pub steps: u64,
    /// What struck.
    pub marks: Marks,
    /// By kind of action: how often it was done, and how often there was nothing to do it to.
    pub actions: BTreeMap<String, (u64, u64)>,
}

/// A schedule that broke something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that it is drawn from.
    pub seed: u64,
    /// What does not hold, the schedule cut down, and the end of its log.
    pub text: String,
}

/// How one schedule ended.
#[derive(Debug, Default)]
struct Ended {
    broken: Option<String>,
    tally: Tally,
    log: Vec<String>,
}

fn case(seed: u64) -> Case {
    let mut rng = Rng::with_seed(seed);
    Case {
        setup: Setup::draw(&mut rng),
        actions: action::draw(&mut rng),
    }
}

fn play(case: &Case, verbose: bool) -> Ended {
    let mut world = World::new(&case.setup, verbose);
    let mut tally = Tally {
        schedules: 1,
        ..Tally::default()
    };
    let played = catch_unwind(AssertUnwindSafe(|| {
        for action in &case.actions {
            let done = world.act(action);
            let (all, skipped) = tally.actions.entry(action::name(action)).or_default();
            (*all, *skipped) = (*all + 1, *skipped + u64::from(!done));
            tally.steps += u64::from(std::mem::take(&mut world.steps));
            if world.broken() {
                return;
            }
        }
        world.finish();
        tally.steps += u64::from(world.steps);
    }));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.unwrap_or_else(|| "it panicked".into());
        world.cluster.guard.fail(|| format!("panic: {text}"));
    }
    tally.marks = world.cluster.marks;
    Ended {
        broken: world.cluster.guard.broken,
        tally,
        log: world.cluster.log.unwrap_or_default(),
    }
}

/// Runs the schedule of one seed and tells all of it, whether it fails or not.
#[must_use]
pub fn replay(seed: u64) -> (String, bool) {
    let ended = play(&case(seed), true);
    let end = ended.broken.clone().unwrap_or_else(|| "all is well".into());
    let text = format!("{:#?}\n{}\n{end}", case(seed), ended.log.join("\n"));
    (text, ended.broken.is_none())
}

/// Runs `cases` schedules, from `seed` on, on all processors. `progress` is told now and then how
/// many are through.
///
/// # Errors
/// The kinds of failure, and one failing schedule cut down.
pub fn run(cases: u64, seed: u64, progress: impl Fn(u64) + Sync) -> Result<Tally, Failure> {
    let next = AtomicU64::new(0);
    let failed: Mutex<Failed> = Mutex::default();
    let total = Mutex::new(Tally::default());
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= cases {
                        break;
                    }
                    if n.is_multiple_of(1000) {
                        progress(n);
                    }
                    let seed = seed.wrapping_add(n);
                    let ended = play(&case(seed), false);
                    tally.add(&ended.tally);
                    if let (Some(broken), Ok(mut failed)) = (ended.broken, failed.lock()) {
                        failed.add(&broken, seed);
                        if failed.count > ENOUGH {
                            break;
                        }
                    }
                }
                if let Ok(mut total) = total.lock() {
                    total.add(&tally);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let failed = failed.into_inner().unwrap_or_default();
    if failed.count == 0 {
        return Ok(total.into_inner().unwrap_or_default());
    }
    Err(failed.explain())
}

/// Schedules that broke something, by what they broke.
#[derive(Debug, Default)]
struct Failed {
    count: usize,
    kinds: BTreeMap<String, (usize, u64)>,
}

impl Failed {
    fn add(&mut self, broken: &str, seed: u64) {
        let kind = broken
            .split(|it: char| it.is_ascii_digit() && it > '2')
            .next();
        let kind: String = kind
            .unwrap_or(broken)
            .chars()
            .filter(|it| !it.is_ascii_digit())
            .take(60)
            .collect();
        let (count, first) = self.kinds.entry(kind).or_insert((0, seed));
        (*count, *first) = (*count + 1, (*first).min(seed));
        self.count += 1;
    }

    /// The kinds of failure with a seed each, and the first one of the most frequent kind in full.
    fn explain(&self) -> Failure {
        let mut text = String::new();
        for (kind, (count, seed)) in &self.kinds {
            let _ = writeln!(text, "{count:4} times, first with seed {seed}: {kind}");
        }
        let worst = self.kinds.values().max_by_key(|(count, _)| *count);
        let seed = worst.map_or(0, |(_, seed)| *seed);
        let failure = explain(seed);
        Failure {
            seed,
            text: format!("{text}\n{}", failure.text),
        }
    }
}

fn explain(seed: u64) -> Failure {
    std::panic::set_hook(Box::new(|_| {}));
    let (case, runs) = shrink(case(seed));
    let ended = play(&case, true);
    let _ = std::panic::take_hook();
    let mut text = format!(
        "seed {seed} ({runs} runs to make it short):\n{}\n\n",
        ended.broken.unwrap_or_default()
    );
    let _ = writeln!(text, "{:?}", case.setup);
    for action in &case.actions {
        let _ = writeln!(text, "{action:?}");
    }
    let from = ended.log.len().saturating_sub(LOG_SHOWN);
    for line in ended.log.get(from..).unwrap_or_default() {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\nagain, uncut: cargo run -p simulation -- --replay {seed}"
    );
    Failure { seed, text }
}

/// Takes away what is not needed to fail: whole runs of actions, then steps, then parts of the setup.
fn shrink(mut case: Case) -> (Case, usize) {
    let mut runs = 0;
    let mut again = true;
    while std::mem::take(&mut again) && runs < SHRINK_RUNS {
        for smaller in smaller(&case) {
            runs += 1;
            if play(&smaller, false).broken.is_some() {
                (case, again) = (smaller, true);
                break;
            }
            if runs >= SHRINK_RUNS {
                break;
            }
        }
    }
    (case, runs)
}

/// Smaller schedules, the much smaller ones first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let count = case.actions.len();
    let mut size = count / 2;
    while size > 0 {
        for from in (0..count).step_by(size) {
            let mut actions = case.actions.clone();
            actions.drain(from..(from + size).min(count));
            all.push(Case {
                actions,
                ..case.clone()
            });
        }
        size /= 2;
    }
    for (at, action) in case.actions.iter().enumerate() {
        let Action::Go { seed, steps } = *action else {
            continue;
        };
        for steps in [steps / 2, steps.saturating_sub(1)] {
            let mut actions = case.actions.clone();
            if let Some(place) = actions.get_mut(at).filter(|_| steps > 0) {
                *place = Action::Go { seed, steps };
                all.push(Case {
                    actions,
                    ..case.clone()
                });
            }
        }
    }
    let setup = case.setup;
    let mut setups = vec![
        Setup {
            two_pools: false,
            ..setup
        },
        Setup {
            control_plane: 0,
            ..setup
        },
        Setup {
            able: true,
            ..setup
        },
        Setup {
            soft: false,
            ..setup
        },
        Setup {
            plain: false,
            ..setup
        },
    ];
    if setup.nodes > 1 {
        setups.push(Setup {
            nodes: setup.nodes - 1,
            ..setup
        });
    }
    setups.retain(|it| *it != setup);
    all.extend(setups.into_iter().map(|setup| Case {
        setup,
        ..case.clone()
    }));
    all
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.marks.add(&other.marks);
        for (name, (all, skipped)) in &other.actions {
            let mine = self.actions.entry(name.clone()).or_default();
            *mine = (mine.0 + all, mine.1 + skipped);
        }
    }
}
