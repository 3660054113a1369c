//! The options, the judge and the verdict: what the example's exit status rests on.

use std::time::{Duration, Instant};

use afterwrite::invalidation::Farewell;

use crate::ledger::Ledger;
use crate::options::{Asked, OptionError, Options};
use crate::report::{Figures, verdict};
use crate::run::{Episode, Fault};

const BOUND: Duration = Duration::from_millis(850);

fn parse(args: &[&str]) -> Result<Asked, OptionError> {
    Options::parse(args.iter().map(|arg| (*arg).to_owned()))
}

#[test]
fn options_are_read_in_both_forms_or_refused_by_name() {
    let Ok(Asked::Run(options)) = parse(&["--keys=7", "--rate", "20"]) else {
        panic!("refused");
    };
    assert_eq!((options.keys, options.rate, options.seconds), (7, 20, 3));
    assert!(matches!(parse(&["--help"]), Ok(Asked::Help)));
    let refusal = |args: &[&str]| parse(args).unwrap_err().to_string();
    assert_eq!(refusal(&["--key", "7"]), "there is no option `--key`");
    assert_eq!(refusal(&["--keys"]), "`--keys` needs a value after it");
    assert_eq!(refusal(&["--keys=0"]), "`--keys 0`: must be 1 to 100000");
    assert_eq!(
        refusal(&["--keys=7", "--keys=8"]),
        "`--keys` is given twice"
    );
    assert_eq!(refusal(&["--nats="]), "`--nats` needs a value after it");
    assert!(refusal(&["--rate=many"]).starts_with("`--rate many`: invalid digit"));
}

#[test]
fn a_version_is_stale_from_the_telling_of_any_newer_one() {
    let (ledger, start) = (Ledger::new(2), Instant::now());
    let ms = Duration::from_millis;
    assert_eq!(ledger.stale(0, 1, start), None);
    ledger.told(0, 3, start + ms(10));
    ledger.told(0, 2, start + ms(20));
    assert_eq!(ledger.stale(0, 1, start + ms(9)), None);
    assert_eq!(ledger.stale(0, 1, start + ms(30)), Some(ms(20)));
    assert_eq!(ledger.stale(0, 2, start + ms(30)), Some(ms(20)));
    assert_eq!(ledger.stale(0, 3, start + ms(30)), None);
    assert_eq!(ledger.stale(1, 1, start + ms(30)), None);
}

#[test]
fn the_verdict_sees_each_failure() {
    let node = Figures {
        name: "node-b",
        hits: 10,
        drops: 10,
        past_bound: 0,
        farewell: Farewell::Said,
    };
    let episode = Episode {
        fault: Fault::Cut,
        node: "node-b",
        noticed: Some(Duration::from_millis(700)),
        bypassed: 3,
        flushes: 1,
        recovered: Some(Duration::from_secs(2)),
    };
    let failures =
        |node: Figures, episode: &Episode| verdict(&[node], std::slice::from_ref(episode), BOUND);
    assert_eq!(failures(node, &episode), Vec::<String>::new());
    let wrong = [
        Figures {
            past_bound: 1,
            ..node
        },
        Figures { hits: 0, ..node },
        Figures { drops: 0, ..node },
        Figures {
            farewell: Farewell::Unsaid,
            ..node
        },
    ];
    for node in wrong {
        assert_eq!(failures(node, &episode).len(), 1, "{node:?}");
    }
    let late = Some(Duration::from_secs(1));
    let wrong = [
        Episode {
            noticed: None,
            ..episode.clone()
        },
        Episode {
            noticed: late,
            ..episode.clone()
        },
        Episode {
            recovered: None,
            ..episode.clone()
        },
        Episode {
            flushes: 0,
            ..episode.clone()
        },
    ];
    for episode in wrong {
        assert_eq!(failures(node, &episode).len(), 1, "{episode:?}");
    }
    assert_eq!(verdict(&[node], &[], BOUND).len(), 1);
}
