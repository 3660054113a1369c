//! `latency`: from submit to received, with a shard that spins and with one that sleeps.

use afterwrite_benches::waits;

fn main() {
    // Quantiles of single waits are no matter for criterion, which averages.
    waits::print(&waits::latency_spinning(5));
    waits::print(&waits::latency_parked(5));
}
