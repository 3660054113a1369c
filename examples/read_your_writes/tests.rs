//! The parts that decide what is reported; the runs check themselves.

use std::time::Duration;

use crate::client::Receipt;
use crate::histogram::Histogram;
use crate::options::{Asked, OptionError, Options};
use crate::projection;
use crate::random::Random;
use crate::report;
use crate::run::{Mode, Outcome, RunError};
use crate::store::Event;

fn parse(line: &str) -> Result<Asked, OptionError> {
    Options::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn options_are_taken_in_both_forms() {
    let Ok(Asked::Run(options)) = parse("--subscribers 50 --keys=5 --seed 7") else {
        panic!("refused");
    };
    let expected = Options {
        subscribers: 50,
        keys: 5,
        seed: 7,
        ..Options::default()
    };
    assert_eq!(options, expected);
    // The usual number of keys does not exceed the subscribers that were asked for.
    let few = parse("--subscribers 3");
    assert!(matches!(few, Ok(Asked::Run(Options { keys: 3, .. }))));
    assert!(matches!(parse("--seed 1 --help"), Ok(Asked::Help)));
}

#[test]
fn bad_options_are_refused_by_name() {
    for (line, error) in [
        ("--speed 3", "there is no option `--speed`"),
        ("--keys", "`--keys` needs a number after it"),
        ("--keys 1 --keys 2", "`--keys` is given twice"),
        ("--writes 0", "`--writes 0`: must be 1 to 1000000"),
        ("--seed -1", "`--seed -1`: invalid digit found in string"),
        (
            "--keys 9 --subscribers 5",
            "`--keys 9` is more than `--subscribers 5`: some would have none",
        ),
    ] {
        assert_eq!(parse(line).unwrap_err().to_string(), error);
    }
}

#[test]
fn quantiles_are_within_two_percent() {
    let histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), None);
    for micros in 1..=1000 {
        histogram.add(Duration::from_micros(micros));
    }
    for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
        let found = histogram.quantile(share).unwrap().as_secs_f64() * 1e6;
        assert!((found / micros - 1.0).abs() < 0.02, "{share}: {found}");
    }
    // Beyond the last bucket, and at the very first.
    histogram.add(Duration::MAX);
    histogram.add(Duration::ZERO);
    assert_eq!(histogram.quantile(0.0), Some(Duration::ZERO));
}

#[test]
fn lags_keep_to_their_bounds_and_their_median() {
    let (least, median, most) = (3, 40, 190);
    let [least, median, most] = [least, median, most].map(Duration::from_millis);
    let mut random = Random::new(1, 1);
    let mut lags: Vec<Duration> = (0..10_001)
        .map(|_| random.log_normal(median, 0.9, least, most))
        .collect();
    lags.sort();
    assert!(lags[0] >= least && lags[10_000] == most);
    let found = lags[5_000].as_secs_f64() / median.as_secs_f64();
    assert!((found - 1.0).abs() < 0.05, "{found}");
    assert!((0..1000).all(|_| random.below(7) < 7));
    assert_eq!(random.below(0), 0);
}

#[test]
fn numbers_read_well() {
    assert_eq!(["0", "999", "1,000"], [0, 999, 1000].map(report::count));
    assert_eq!(report::count(1_234_567), "1,234,567");
    assert_eq!(report::percent(1, 10_000), "< 0.1 %");
    assert_eq!(report::percent(1, 0), "–");
    assert_eq!(report::percent(1, 3), "33.3 %");
    assert_eq!(report::time(Some(Duration::from_micros(1500))), "1.5 ms");
}

fn outcome(mode: Mode, sent: u64, receipt: Receipt) -> Outcome {
    Outcome {
        mode,
        ledgers: vec![(sent, receipt)],
        refused: 0,
        gate_reads: 0,
        p50: None,
        p99: None,
        took: Duration::ZERO,
    }
}

#[test]
fn every_failure_is_found() {
    let good = Receipt {
        received: 8,
        missed: 2,
        judged: 9,
        ..Receipt::default()
    };
    assert_eq!(
        report::failures(&[outcome(Mode::Watermark, 10, good)]),
        Vec::<String>::new()
    );
    let failure = |mode, sent, receipt| {
        let found = report::failures(&[outcome(mode, sent, receipt)]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let lost = failure(Mode::Polling, 11, good);
    assert!(lost.contains("1 notices are unaccounted for"), "{lost}");
    let twice = failure(Mode::Polling, 9, good);
    assert!(twice.contains("unaccounted for"), "{twice}");
    let old = failure(Mode::Polling, 10, Receipt { old: 1, ..good });
    assert!(old.contains("1 refetches read the old value"), "{old}");
    let fresh = failure(Mode::NoGate, 10, Receipt { old: 1, ..good });
    assert!(fresh.contains("proves nothing"), "{fresh}");
    let unordered = Receipt {
        out_of_order: 1,
        ..good
    };
    assert!(failure(Mode::Polling, 10, unordered).contains("out of order"));
    let unjudged = Receipt { judged: 0, ..good };
    assert!(failure(Mode::Polling, 10, unjudged).contains("could be judged"));
}

#[test]
fn losses_of_one_client_do_not_make_up_for_another() {
    let receipt = |received| Receipt {
        received,
        judged: 1,
        ..Receipt::default()
    };
    let mut both = outcome(Mode::Watermark, 10, receipt(9));
    both.ledgers.push((10, receipt(11)));
    assert_eq!(report::failures(&[both]).len(), 1);
}

#[test]
fn the_projection_never_passes_an_event_over() {
    let event = |number, millis| Event {
        number,
        entity: 0,
        version: number,
        written_at: Duration::from_millis(millis),
    };
    let due =
        |batch: &[Event], applied, now| projection::due(batch, applied, Duration::from_millis(now));
    // The second was numbered first, and looked at the clock last.
    let batch = [event(5, 10), event(6, 14), event(7, 12)];
    assert_eq!(due(&batch, 4, 12).unwrap(), 0);
    assert_eq!(due(&batch, 4, 16).unwrap(), 1);
    assert_eq!(due(&batch, 4, 17).unwrap(), 3);
    let gap = due(&batch, 3, 17);
    assert!(matches!(gap, Err(RunError::NoEvent(4))), "{gap:?}");
}
