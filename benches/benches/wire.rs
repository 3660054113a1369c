//! `emit_to_drop`, `emit_rate` and `emit_batch_rate`: over a nats-server, beside the bare client.

use afterwrite_benches::{bench, wire};

fn main() {
    let server = wire::Server::start();
    let mut criterion = bench::criterion();
    for (build, _) in wire::WORKLOADS {
        bench::run(&mut criterion, build(server.url()));
    }
    criterion.final_summary();
}
