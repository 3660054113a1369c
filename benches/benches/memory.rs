//! `memory`: bytes of an idle subscriber, and of a key.

use afterwrite_benches::{alloc, memory};

#[global_allocator]
static COUNTING: alloc::Counting = alloc::Counting;

fn main() {
    alloc::switch(true);
    assert!(alloc::counts(), "the allocator is installed above");
    memory::print(&memory::rows());
}
