//! `service`: 10,000 subscribers in tasks, 2,000 keys, comings and goings, a rate that rises until each
//! system loses.

use afterwrite_benches::service::{self, Settings};

fn main() {
    let settings = Settings::default();
    let steps = service::sweep(settings);
    service::print(&steps);
    let mut systems: Vec<_> = steps.iter().map(|step| step.system).collect();
    systems.dedup();
    for system in systems {
        let capacity = service::capacity(&steps, system, settings);
        println!("{system}: holds up to {capacity} submits a second");
    }
}
