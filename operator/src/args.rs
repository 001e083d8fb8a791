//! The command line: the flags of the Go bootc-operator under the same names, and a few of ours.
//!
//! Running the program bare runs the operator; nothing here talks to a cluster.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

/// Rolls bootc images out over the nodes of a Kubernetes cluster.
///
/// In a pod it uses the pod's service account, outside of one it uses KUBECONFIG.
#[derive(Clone, Debug, Parser, PartialEq, Eq)]
#[command(
    name = "bootc-operator",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// What to do instead of running the operator
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Act only while holding the Lease, so that several replicas can run
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub leader_elect: bool,

    /// Where /healthz and /readyz are served; ":8081" is every address, "0" turns them off
    #[arg(long, value_name = "[HOST]:PORT", default_value = ":8081")]
    pub health_probe_bind_address: BindAddress,

    /// Where /metrics is served, such as ":8443" for every address; "0" turns it off
    #[arg(long, value_name = "[HOST]:PORT", default_value = "0")]
    pub metrics_bind_address: BindAddress,

    /// Serve /metrics over HTTPS, and only to those whom the cluster knows and lets read it
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub metrics_secure: bool,

    /// How often a tag is resolved again to a digest, such as 90s or 5m0s
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = duration)]
    pub tag_resolution_interval: Duration,

    /// Let tags be resolved over plain HTTP where a registry offers no TLS
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub allow_insecure_registry: bool,

    /// Write every input and every decision as a line of JSON to this file ("-": standard output), to
    /// be read with `bootc-operator replay`; an older one is kept as FILE.1
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,

    /// The journal ends when it is so long
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub journal_limit_mib: u32,

    /// How log lines look; the variable `RUST_LOG` says which of them there are
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What else the program can do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Decide again what a journal holds, and print each decision
    ///
    /// Exits with 0 if the same was decided then, with 2 if something else was, with 1 if the
    /// journal cannot be read.
    Replay {
        /// A file that --journal wrote; "-" is standard input
        file: PathBuf,
        /// How decisions are printed
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
        /// Print timers as well
        #[arg(long)]
        all: bool,
    },
}

/// How decisions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line each, for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: one line each, fields as `name=value`.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Where something is served, in the notation of Go's `net.Listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// `0`: nowhere.
    Off,
    /// `HOST:PORT`; an empty host means every address of both families.
    At {
        /// The host, without brackets; empty for every address.
        host: String,
        /// The port; 0 lets the system choose one.
        port: u16,
    },
}

impl std::str::FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "0" {
            return Ok(Self::Off);
        }
        let wanted = || format!("`{text}` is not of the form [HOST]:PORT, such as :8081");
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(format!(
                "the IPv6 host of `{text}` needs brackets: [::1]:8081"
            ));
        }
        let port = port.parse().map_err(|_| wanted())?;
        let host = bare.unwrap_or(host).to_owned();
        Ok(Self::At { host, port })
    }
}

/// Reads Go's notation (`5m0s`, `1h30m`) as well as humantime's (`5min`); zero would be a busy loop.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 90s, 5m0s or 1h30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let all = std::iter::once(&"bootc-operator").chain(args);
        Args::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_go_operator() {
        let args = parse(&[]).unwrap();
        assert!(!args.leader_elect);
        assert!(!args.allow_insecure_registry);
        assert_eq!(args.tag_resolution_interval, Duration::from_mins(5));
        let every = BindAddress::At {
            host: String::new(),
            port: 8081,
        };
        assert_eq!(args.health_probe_bind_address, every);
    }

    #[test]
    fn booleans_are_read_as_go_reads_them() {
        assert!(parse(&[]).unwrap().metrics_secure, "unless told otherwise");
        assert!(parse(&["--metrics-secure"]).unwrap().metrics_secure);
        assert!(!parse(&["--metrics-secure=false"]).unwrap().metrics_secure);
        for (flag, wanted) in [
            ("--leader-elect", true),
            ("--leader-elect=true", true),
            ("--leader-elect=false", false),
        ] {
            assert_eq!(parse(&[flag]).unwrap().leader_elect, wanted, "{flag}");
        }
        assert!(
            parse(&["--allow-insecure-registry"])
                .unwrap()
                .allow_insecure_registry
        );
        assert!(parse(&["--leader-elect=maybe"]).is_err());
    }

    #[test]
    fn durations_are_read_in_both_notations() {
        for (text, seconds) in [
            ("10s", 10),
            ("5m0s", 300),
            ("1h30m0s", 5400),
            ("1.5h", 5400),
            ("5min", 300),
        ] {
            let flag = format!("--tag-resolution-interval={text}");
            let args = parse(&[&flag]).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                args.tag_resolution_interval,
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for text in ["0s", "-5m", "300", "soon"] {
            let flag = format!("--tag-resolution-interval={text}");
            assert!(parse(&[&flag]).is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn probe_addresses_are_read_as_go_reads_them() {
        let at = |host: &str, port| BindAddress::At {
            host: host.to_owned(),
            port,
        };
        for (text, wanted) in [
            ("0", BindAddress::Off),
            (":8081", at("", 8081)),
            ("127.0.0.1:0", at("127.0.0.1", 0)),
            ("[::1]:8081", at("::1", 8081)),
            ("localhost:9", at("localhost", 9)),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in ["8081", "::1:8081", "host:", "host:70000"] {
            assert!(
                text.parse::<BindAddress>().is_err(),
                "{text} must be refused"
            );
        }
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(parse(&["--webhook-port=9443"]).is_err());
        assert!(parse(&["run"]).is_err());
    }

    #[test]
    fn a_replay_wants_a_file_and_nothing_of_the_operator() {
        let args = parse(&["replay", "j", "-o", "json"]).unwrap();
        let replay = Command::Replay {
            file: "j".into(),
            output: Output::Json,
            all: false,
        };
        assert_eq!(args.command, Some(replay));
        assert!(parse(&["replay"]).is_err());
        assert!(parse(&["--leader-elect", "replay", "j"]).is_err());
        assert!(parse(&["--journal-limit-mib=0"]).is_err());
    }
}
