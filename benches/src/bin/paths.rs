//! Runs one hot path so many times; what the gate gives to callgrind.

use afterwrite_benches::gate::paths::{all, measured_path};

fn main() -> std::process::ExitCode {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let &[index, operations, planted] = arguments.as_slice() else {
        eprintln!("usage: paths <index of the path> <operations> <instructions to plant>");
        return std::process::ExitCode::FAILURE;
    };
    let Some(path) = all().nth(index as usize) else {
        eprintln!(
            "there are {} paths, and {index} is none of them",
            all().count()
        );
        return std::process::ExitCode::FAILURE;
    };
    let mut operation = (path.prepare)();
    // What is allocated or resolved on first use is no part of an operation.
    for _ in 0..path.operations {
        operation();
    }
    measured_path(operations, planted, &mut *operation);
    // The process ends: what a million subscribers hold need not be given back one by one.
    std::mem::forget(operation);
    std::process::ExitCode::SUCCESS
}
