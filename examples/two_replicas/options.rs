//! The command line.

use std::num::ParseIntError;

use thiserror::Error;

pub(crate) const HELP: &str = "\
Two nodes with a cache each over one SQLite file, told of each other's writes. After a calm while
the wire between them is harmed, and the nodes have to notice.

Usage: cargo run --release --example two_replicas -- [OPTIONS]

Options:
  --keys N     rows                                        [500; 1 to 100000]
  --readers N  reading threads of each node                [2; 1 to 16]
  --rate N     writes of each node in a second             [100; 10 to 2000]
  --seconds N  how long the calm while lasts               [3; 1 to 6]
  --seed N     seed of keys and pauses                     [1]
  --nats URL   a nats-server instead of the embedded bus   [nats://127.0.0.1:4222]
  --help       this text

Exit status: 0 if no value was served as Coherent past the bound and both nodes noticed every harm
within it; 1 if not; 2 for a bad option.
";

/// What the example runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) keys: usize,
    pub(crate) readers: usize,
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    pub(crate) nats: Option<String>,
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
    #[error("`{0}` needs a value after it")]
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
    #[cfg(not(feature = "nats"))]
    #[error("`--nats` needs the feature `nats`, which this example was built without")]
    NoNats,
}

const NATS: &str = "--nats";

/// Option, usual value, least, most.
const NUMBERS: [(&str, u64, u64, u64); 5] = [
    ("--keys", 500, 1, 100_000),
    ("--readers", 2, 1, 16),
    ("--rate", 100, 10, 2_000),
    ("--seconds", 3, 1, 6),
    ("--seed", 1, 0, u64::MAX),
];

impl Options {
    /// Reads the arguments after the program's name. Takes `--keys 5` and `--keys=5`.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Asked, OptionError> {
        let mut args = args;
        let mut given: [Option<u64>; NUMBERS.len()] = [None; NUMBERS.len()];
        let mut nats = None;
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                return Ok(Asked::Help);
            }
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            if name == NATS {
                let url = inline.or_else(|| args.next());
                let url = url.filter(|url| !url.is_empty());
                let url = url.ok_or(OptionError::NoValue(NATS))?;
                if nats.replace(url).is_some() {
                    return Err(OptionError::Twice(NATS));
                }
                continue;
            }
            let place = NUMBERS.iter().position(|(known, ..)| *known == name);
            let Some(place) = place else {
                return Err(OptionError::Unknown(arg));
            };
            let (option, _, least, most) = NUMBERS[place];
            if given[place].is_some() {
                return Err(OptionError::Twice(option));
            }
            let text = inline.or_else(|| args.next());
            let text = text.ok_or(OptionError::NoValue(option))?;
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
        #[cfg(not(feature = "nats"))]
        if nats.is_some() {
            return Err(OptionError::NoNats);
        }
        let number = |place: usize| given[place].unwrap_or(NUMBERS[place].1);
        // The ranges above fit a `usize` of 32 bits.
        Ok(Asked::Run(Self {
            keys: number(0) as usize,
            readers: number(1) as usize,
            rate: number(2),
            seconds: number(3),
            seed: number(4),
            nats,
        }))
    }
}
