use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The times of all reads, in whole milliseconds from the first, when each read takes `read`.
fn schedule(retry: Retry, read: Duration) -> Vec<u64> {
    let micros = schedule_in_micros(retry, read);
    micros.into_iter().map(|time| time / 1_000).collect()
}

fn schedule_in_micros(retry: Retry, read: Duration) -> Vec<u64> {
    let first_read = Instant::now();
    let (mut now, mut times) = (first_read, Vec::new());
    loop {
        let made = u32::try_from(times.len()).unwrap();
        let Some(next) = retry.next(first_read, now, made) else {
            return times;
        };
        assert!(next >= now, "a read is never due in the past");
        assert!(next < retry.deadline(first_read));
        times.push(u64::try_from((next - first_read).as_micros()).unwrap());
        now = next + read;
    }
}

#[test]
fn fixed_makes_retries_plus_one_reads_within_its_budget() {
    let retry = Retry::fixed(25, ms(200));
    let expected: Vec<u64> = (0..26).map(|n| n * 200).collect();
    assert_eq!(schedule(retry, ms(0)), expected);
    assert_eq!(
        schedule(retry, ms(199)),
        expected,
        "a slow read shifts none"
    );
    assert_eq!(retry.budget(), ms(5_200));
}

#[test]
fn fixed_reads_at_once_after_a_read_that_overran() {
    assert_eq!(schedule(Retry::fixed(3, ms(10)), ms(15)), [0, 15, 30]);
}

#[test]
fn fixed_without_retries_reads_once() {
    let retry = Retry::fixed(0, ms(10));
    assert_eq!(schedule(retry, ms(0)), [0]);
    assert_eq!(retry.budget(), ms(10));
}

#[test]
fn backoff_waits_a_quarter_of_the_time_elapsed() {
    let times = schedule_in_micros(Retry::backoff(ms(60)), ms(0));
    // Steps of a millisecond up to 5 ms, then a factor of 5/4.
    assert_eq!(times[..7], [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_250]);
    assert_eq!(times[7..11], [7_812, 9_765, 12_207, 15_258]);
    assert_eq!(times[11..14], [19_073, 23_841, 29_802]);
    assert_eq!(times[14..], [37_252, 46_566, 58_207]);
}

#[test]
fn backoff_never_waits_longer_than_200_ms_and_uses_the_whole_budget() {
    let times = schedule(Retry::default(), ms(0));
    let waits: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.is_sorted_by(|a, b| *a <= b + 1), "{waits:?}");
    assert_eq!(waits.last(), Some(&200));
    assert!(*times.last().unwrap() >= 5_000, "{times:?}");
    assert_eq!(Retry::default().budget(), ms(5_200));
}

#[test]
fn nothing_is_read_at_or_after_the_deadline() {
    let first_read = Instant::now();
    for retry in [Retry::fixed(9, ms(10)), Retry::backoff(ms(100))] {
        let deadline = retry.deadline(first_read);
        assert_eq!(deadline, first_read + ms(100));
        for made in 0..12 {
            assert_eq!(retry.next(first_read, deadline, made), None);
            assert_eq!(retry.next(first_read, deadline + ms(1), made), None);
        }
    }
}

#[test]
fn the_first_read_is_due_at_once() {
    let now = Instant::now();
    assert_eq!(Retry::default().next(now, now, 0), Some(now));
    assert_eq!(Retry::fixed(1, ms(5)).next(now, now, 0), Some(now));
}

#[test]
fn a_clock_that_stands_before_the_first_read_counts_as_no_time_elapsed() {
    let now = Instant::now();
    let first_read = now + ms(50);
    assert_eq!(Retry::default().next(first_read, now, 1), Some(now + ms(1)));
}

#[test]
fn too_short_waits_become_a_millisecond() {
    let short = Duration::from_nanos(1);
    for wait in [Duration::ZERO, short] {
        assert_eq!(Retry::fixed(4, wait), Retry::fixed(4, ms(1)));
        assert_eq!(Retry::backoff(wait).budget(), ms(1));
    }
    assert_eq!(schedule(Retry::fixed(4, short), ms(0)), [0, 1, 2, 3, 4]);
}

#[test]
fn absurd_budgets_become_a_day() {
    let day = Duration::from_secs(86_400);
    let now = Instant::now();
    for retry in [
        Retry::fixed(u32::MAX, Duration::MAX),
        Retry::fixed(u32::MAX, ms(1)),
        Retry::fixed(1, Duration::MAX),
        Retry::backoff(Duration::MAX),
    ] {
        assert_eq!(retry.budget(), day);
        assert_eq!(retry.deadline(now), now + day);
        let near_the_end = now + day - ms(1);
        for made in [0, 1, 2, u32::MAX] {
            let _ = retry.next(now, near_the_end, made);
        }
    }
}
