//! `service`: 10,000 subscribers in tasks, 2,000 keys, comings and goings, a rate that rises until each
//! system loses.

use afterwrite_benches::service::{self, Settings};

fn main() {
    let steps = service::sweep(Settings::default());
    service::print(&steps);
    let mut systems: Vec<_> = steps.iter().map(|step| step.system).collect();
    systems.dedup();
    for system in systems {
        let capacity = service::capacity(&steps, system);
        println!("{system}: no loss up to {capacity} submits a second");
    }
}
