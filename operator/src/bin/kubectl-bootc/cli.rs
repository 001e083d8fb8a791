//! The command line, as kubectl's users know it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// See and steer rollouts of bootc images
///
/// Exit codes: 0 all is up to date or done, 1 an error, 2 something is not up to date, waits or is
/// degraded (status, why).
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-bootc",
    bin_name = "kubectl bootc",
    version,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Connection {
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig file; else KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long one request may take, such as 5s; 0 is for ever
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) request_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pools, and their nodes with state, images and what they wait for
    Status(Status),
    /// Why a node or a pool does not go on: the cause, the evidence, what to do
    Why(Why),
    /// What happened to a node or a pool
    History(History),
    /// A picture of a pool's last rollout: a bar a node, a colour a phase
    Timeline(Timeline),
    /// Give out no further reboot slot; nodes that have one go on
    Pause {
        /// The pool
        pool: String,
    },
    /// Give out reboot slots again
    Resume {
        /// The pool
        pool: String,
    },
    /// Try nodes again whose update failed or fell back
    Retry {
        /// The nodes, all of one pool
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Roll out another image, or say what that would do
    SetImage(SetImage),
    /// Print a completion script
    Completion {
        /// For this shell; `kubectl` is the helper kubectl_complete-bootc, by which kubectl's own
        /// completion knows this plugin
        #[arg(value_enum)]
        shell: Shell,
    },
    /// What could come next: asked by kubectl_complete-bootc
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far, the last one unfinished
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only these pools
    pub(crate) pools: Vec<String>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Follow the rollout: redrawn on a terminal, else a line for each change
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// With --watch: end once every pool is up to date
    #[arg(long, requires = "watch")]
    pub(crate) until_updated: bool,
    /// Leave out the line of headers
    #[arg(long)]
    pub(crate) no_headers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A node or a pool; node/NAME and pool/NAME where both have the name
    #[arg(value_name = "NODE|POOL")]
    pub(crate) target: String,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Plain::Text)]
    pub(crate) output: Plain,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// A node or a pool; else everything
    #[arg(value_name = "NODE|POOL")]
    pub(crate) target: Option<String>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Plain::Text)]
    pub(crate) output: Plain,
}

#[derive(Debug, Args)]
pub(crate) struct Timeline {
    /// The pool; may be left out where there is one only
    pub(crate) pool: Option<String>,
    /// A journal of the operator instead of the cluster: it knows every moment, and what was waited
    /// for
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// How it is drawn
    #[arg(short, long, value_enum, default_value_t = Drawn::Text)]
    pub(crate) output: Drawn,
}

#[derive(Debug, Args)]
pub(crate) struct SetImage {
    /// The pool
    pub(crate) pool: String,
    /// host/repository:tag or host/repository@sha256:…
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// Change nothing and say what would happen; with `server` the API server checks it as well
    #[arg(long, value_enum, default_value_t = DryRun::None, num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub(crate) dry_run: DryRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    None,
    Client,
    Server,
}

/// Forms of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    /// The table as a picture
    Svg,
}

/// Forms of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plain {
    Text,
    Json,
    Yaml,
}

/// Forms of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drawn {
    Text,
    Svg,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Kubectl,
}

/// kubectl takes `0`, a number of seconds, or a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 5s or 1m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_anywhere() {
        for line in [
            "kubectl-bootc --context=c status -o wide",
            "kubectl-bootc status workers -o wide --context c",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.connection.context.as_deref(), Some("c"));
        }
        for line in ["status --until-updated", "retry", "set-image p", "why"] {
            let words = std::iter::once("kubectl-bootc").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn timeouts_are_read_as_kubectl_reads_them() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
    }
}
