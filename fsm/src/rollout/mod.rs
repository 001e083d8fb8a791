//! All pools and nodes: inputs in, commands out.

use serde::{Deserialize, Serialize};

use crate::{
    command::Command,
    input::Input,
    time::{Seconds, Timestamp},
};

/// What the operator is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How often a tag is resolved again.
    pub tag_interval: Seconds,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tag_interval: Seconds(300),
        }
    }
}

/// Everything that the operator knows and has under way.
#[derive(Clone, Debug)]
pub struct Rollout {
    config: Config,
}

impl Rollout {
    /// Knows nothing yet: feed it the first lists, then [`Input::Synced`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes one input at the time `now` (which never runs backwards) and says what to do.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Command> {
        let _ = (now, input, &self.config);
        Vec::new()
    }
}
