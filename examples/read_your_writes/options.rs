//! The command line.

use std::num::ParseIntError;

use thiserror::Error;

pub(crate) const HELP: &str = "\
Runs the same writes three times, and compares what clients read when they are told of them:
without a gate, through a polling gate, and through a watermark.

Usage: cargo run --release --example read_your_writes -- [OPTIONS]

Options:
  --subscribers N  clients, each with a subscription of its own  [1000; 1 to 100000]
  --keys N         entities that are written and subscribed to   [100; at most --subscribers]
  --writes N       writes of each run, 400 a second              [2000; 1 to 1000000]
  --seed N         seed of lags, keys and pauses                 [1]
  --help           this text

Exit status: 0 if gated clients never read an old value, ungated ones did in 20 % of their reads or
more, and every notice is accounted for; 1 if not; 2 for a bad option.
";

/// What the example runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) subscribers: usize,
    pub(crate) keys: usize,
    pub(crate) writes: usize,
    pub(crate) seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            subscribers: 1000,
            keys: 100,
            writes: 2000,
            seed: 1,
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    Run(Options),
    Help,
}

/// Why the command line was refused.
#[derive(Debug, Error)]
pub(crate) enum OptionError {
    #[error("there is no option `{0}`")]
    Unknown(String),
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("`{0}` needs a number after it")]
    NoValue(&'static str),
    #[error("`{option} {value}`: {source}")]
    NotANumber {
        option: &'static str,
        value: String,
        source: ParseIntError,
    },
    #[error("`{option} {value}`: must be {least} to {most}")]
    OutOfRange {
        option: &'static str,
        value: u64,
        least: u64,
        most: u64,
    },
    #[error("`--keys {keys}` is more than `--subscribers {subscribers}`: some would have none")]
    MoreKeysThanSubscribers { keys: usize, subscribers: usize },
}

/// Option, least, most.
const KNOWN: [(&str, u64, u64); 4] = [
    ("--subscribers", 1, 100_000),
    ("--keys", 1, 100_000),
    ("--writes", 1, 1_000_000),
    ("--seed", 0, u64::MAX),
];

impl Options {
    /// Reads the arguments after the program's name. Takes `--keys 5` and `--keys=5`.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Asked, OptionError> {
        let mut args = args;
        let mut given: [Option<u64>; 4] = [None; 4];
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                return Ok(Asked::Help);
            }
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let Some(place) = KNOWN.iter().position(|(known, ..)| *known == name) else {
                return Err(OptionError::Unknown(arg));
            };
            let (option, least, most) = KNOWN[place];
            if given[place].is_some() {
                return Err(OptionError::Twice(option));
            }
            let text = inline
                .or_else(|| args.next())
                .ok_or(OptionError::NoValue(option))?;
            let value = text.parse().map_err(|source| OptionError::NotANumber {
                option,
                value: text,
                source,
            })?;
            if !(least..=most).contains(&value) {
                return Err(OptionError::OutOfRange {
                    option,
                    value,
                    least,
                    most,
                });
            }
            given[place] = Some(value);
        }
        let usual = Self::default();
        let [subscribers, keys, writes, seed] = given;
        // The ranges above fit a `usize` of 32 bits.
        let size = |value: Option<u64>, usual| value.map_or(usual, |value| value as usize);
        let subscribers = size(subscribers, usual.subscribers);
        let options = Self {
            subscribers,
            keys: size(keys, usual.keys.min(subscribers)),
            writes: size(writes, usual.writes),
            seed: seed.unwrap_or(usual.seed),
        };
        if options.keys > options.subscribers {
            return Err(OptionError::MoreKeysThanSubscribers {
                keys: options.keys,
                subscribers: options.subscribers,
            });
        }
        Ok(Asked::Run(options))
    }
}
