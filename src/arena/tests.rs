//! What is handed out belongs to one owner; what came back is used again; nothing is left at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;

/// Memory that is full of what its owner wrote there.
struct Piece {
    memory: NonNull<u8>,
    origin: Origin,
    layout: Layout,
    mark: u8,
}

// SAFETY: it owns its memory.
unsafe impl Send for Piece {}

impl Piece {
    fn new(memory: &mut Memory<'_>, size: usize, mark: u8) -> Self {
        let layout = Layout::from_size_align(size, 8).expect("small");
        let (memory, origin) = memory.allocate(layout);
        // SAFETY: as many bytes, which are its own.
        unsafe { memory.write_bytes(mark, size) };
        Self {
            memory,
            origin,
            layout,
            mark,
        }
    }

    fn is_global(&self) -> bool {
        format!("{:?}", self.origin) == format!("{:?}", Origin::GLOBAL)
    }

    fn address(&self) -> usize {
        self.memory.addr().get()
    }

    fn check(&self) {
        // SAFETY: as many bytes, all of them written.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) };
        assert!(
            bytes.iter().all(|byte| *byte == self.mark),
            "somebody else's"
        );
    }

    fn give_back(self, memory: Option<&mut Memory<'_>>) {
        self.check();
        // SAFETY: from `allocate` with this layout and origin, and used no more.
        unsafe {
            match memory {
                Some(memory) => memory.free(self.origin, self.memory, self.layout),
                None => self.origin.free(self.memory, self.layout),
            }
        }
    }
}

/// Joined by name: what the end of a scope orders by itself, a counter and a `park` of std's, ThreadSanitizer does not
/// see.
fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(f).join().expect("its checks hold"));
}

fn random(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) as usize
}

#[test]
fn each_piece_is_its_owners_alone() {
    let arena = Arena::new();
    let mut state = 7;
    let mut pieces = Vec::new();
    for step in 0..20_000 {
        let mut memory = arena.memory();
        if random(&mut state) % 5 < 3 {
            let size = random(&mut state) % 600 + 1;
            pieces.push(Piece::new(&mut memory, size, step as u8));
        } else if !pieces.is_empty() {
            let piece = pieces.swap_remove(random(&mut state) % pieces.len());
            match step % 2 {
                0 => piece.give_back(Some(&mut memory)),
                _ => piece.give_back(None),
            }
        }
        if step % 1_000 == 0 {
            pieces.iter().for_each(Piece::check);
        }
    }
    for piece in pieces {
        piece.give_back(None);
    }
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn what_came_back_is_used_again_before_anything_new() {
    let arena = Arena::new();
    for with_lock in [true, false] {
        for size in [1, 16, 100, 232, 512] {
            let mut memory = arena.memory();
            let piece = Piece::new(&mut memory, size, 1);
            assert!(!piece.is_global());
            let before = piece.address();
            piece.give_back(with_lock.then_some(&mut memory));
            let piece = Piece::new(&mut memory, size, 2);
            assert_eq!(piece.address(), before, "{size} bytes");
            piece.give_back(Some(&mut memory));
        }
    }
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn who_comes_and_goes_needs_no_more_and_more() {
    let arena = Arena::new();
    // As many in use at any time as one block holds several times over.
    let mut state = 3;
    let mut pieces: Vec<_> = (0..1_000)
        .map(|_| Piece::new(&mut arena.memory(), random(&mut state) % 512 + 1, 0))
        .collect();
    for step in 0..200_000 {
        let at = random(&mut state) % pieces.len();
        let size = random(&mut state) % 512 + 1;
        let next = Piece::new(&mut arena.memory(), size, step as u8);
        std::mem::replace(&mut pieces[at], next).give_back(None);
    }
    assert_eq!(arena.blocks().bytes(), 2 << 20);
    for piece in pieces {
        piece.give_back(None);
    }
}

#[test]
fn what_is_too_large_is_of_the_global_allocator() {
    let arena = Arena::new();
    let mut memory = arena.memory();
    let large = Piece::new(&mut memory, 513, 1);
    assert!(large.is_global());
    large.give_back(Some(&mut memory));
    let small = Piece::new(&mut Memory::global(), 8, 1);
    assert!(small.is_global());
    small.give_back(None);
    let line = Layout::from_size_align(64, 64).expect("a line");
    let (place, origin) = memory.allocate(line);
    assert!(place.addr().get().is_multiple_of(64));
    // SAFETY: from `allocate` with this layout and origin, and never used.
    unsafe { memory.free(origin, place, line) };
    assert_eq!(arena.blocks().bytes(), 0);
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn a_busy_part_is_passed_by() {
    let arena = Arena::new();
    let mut first = arena.memory();
    let mut second = arena.memory();
    let one = Piece::new(&mut first, 100, 1);
    let two = Piece::new(&mut second, 100, 2);
    // To the part that it is not of: found again by its own.
    let at = one.address();
    one.give_back(Some(&mut second));
    two.give_back(Some(&mut first));
    let again = Piece::new(&mut first, 100, 3);
    assert_eq!(again.address(), at);
    again.give_back(None);
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn pieces_come_back_from_other_threads() {
    let arena = Arena::new();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for taker in 0..2 {
            let (to, from) = sync_channel(64);
            let arena = &arena;
            threads.push(scope.spawn(move || {
                for step in 0..50_000 {
                    let size = (step + taker) % 300 + 1;
                    let piece = Piece::new(&mut arena.memory(), size, step as u8);
                    to.send(piece).expect("the other one listens");
                }
            }));
            threads.push(scope.spawn(move || {
                from.iter().for_each(|piece: Piece| piece.give_back(None));
            }));
        }
        for thread in threads {
            thread.join().expect("its checks hold");
        }
    });
    // A hundred and thirty pieces of each, at any time, and what waits on lists.
    assert!(arena.blocks().bytes() <= 4 << 20);
}

#[test]
fn a_value_outlives_its_arena() {
    struct Alive<'a>(&'a AtomicUsize, [u64; 20]);
    impl Drop for Alive<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let alive = AtomicUsize::new(0);
    let arena = Arena::new();
    let values: Vec<_> = (0..100)
        .map(|n| {
            alive.fetch_add(1, Relaxed);
            Shared::new_in(&mut arena.memory(), Alive(&alive, [n; 20]))
        })
        .collect();
    let others = values.clone();
    drop(arena);
    drop(values);
    assert_eq!(alive.load(Relaxed), 100);
    on_another_thread(|| {
        for (value, n) in others.into_iter().zip(0..) {
            assert_eq!(value.1, [n; 20]);
        }
    });
    assert_eq!(alive.load(Relaxed), 0);
}

#[test]
fn a_plain_pointer_stands_for_a_handle() {
    #[repr(align(16))]
    struct Aligned(u8);
    let value = Shared::new_in(&mut Arena::new().memory(), Aligned(3));
    let raw = Shared::into_raw(value.clone());
    assert_eq!(raw, Shared::as_ptr(&value));
    // SAFETY: from `into_raw`, once.
    let other = unsafe { Shared::from_raw(raw) };
    drop(value);
    assert_eq!(other.0, 3);
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn a_value_whose_drop_panics_gives_its_memory_back() {
    struct Panics<'a>(&'a AtomicBool);
    impl Drop for Panics<'_> {
        fn drop(&mut self) {
            assert!(!self.0.load(Relaxed), "on purpose");
        }
    }
    let panics = AtomicBool::new(true);
    let arena = Arena::new();
    let value = Shared::new_in(&mut arena.memory(), Panics(&panics));
    let at = Shared::as_ptr(&value);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(value))).is_err());
    panics.store(false, Relaxed);
    let next = Shared::new_in(&mut arena.memory(), Panics(&panics));
    assert_eq!(Shared::as_ptr(&next), at);
}

#[test]
fn threads_one_after_the_other_share_their_memory() {
    let arena = Arena::new();
    for _ in 0..2 * PARTS {
        on_another_thread(|| {
            let piece = |_| Piece::new(&mut arena.memory(), 240, 1);
            let pieces: Vec<_> = (0..8_000).map(piece).collect();
            pieces.into_iter().for_each(|piece| piece.give_back(None));
        });
    }
    let limit = if cfg!(afterwrite_asan) {
        64 << 20
    } else {
        2 << 20
    };
    assert!(arena.blocks().bytes() <= limit);
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn who_finds_something_elsewhere_goes_on_there() {
    let arena = Arena::new();
    on_another_thread(|| {
        let piece = |_| Piece::new(&mut arena.memory_of(5), 240, 1);
        let pieces: Vec<_> = (0..1_000).map(piece).collect();
        pieces.into_iter().for_each(|piece| piece.give_back(None));
        let first = Piece::new(&mut arena.memory_of(2), 240, 2);
        assert_eq!(preferred::number(), 5);
        let mut memory = arena.memory();
        let second = Piece::new(&mut memory, 240, 3);
        // It is of the slots that it has now.
        second.give_back(Some(&mut memory));
        first.give_back(Some(&mut memory));
    });
    assert_eq!(arena.blocks().bytes(), 2 << 20);
}

#[test]
fn the_memory_goes_with_the_last_piece() {
    let arena = Arena::new();
    let blocks = Arc::downgrade(&arena.blocks);
    let mut memory = arena.memory();
    let [one, two, three] = [1, 2, 3].map(|mark| Piece::new(&mut memory, 100, mark));
    one.give_back(Some(&mut memory));
    drop(memory);
    two.give_back(None);
    drop(arena);
    assert_eq!(blocks.strong_count(), 1, "one is out");
    three.give_back(None);
    assert_eq!(blocks.strong_count(), 0);
}

#[test]
#[cfg_attr(afterwrite_asan, ignore = "nothing is used again")]
fn what_is_left_of_a_run_is_used() {
    const SIZE: usize = 304;
    let arena = Arena::new();
    let mut memory = arena.memory();
    let pieces: Vec<_> = (0..=RUN / SIZE)
        .map(|_| Piece::new(&mut memory, SIZE, 1))
        .collect();
    let rest = Piece::new(&mut memory, RUN % SIZE, 2);
    assert_eq!(rest.address(), pieces[0].address() + RUN / SIZE * SIZE);
    for piece in pieces.into_iter().chain([rest]) {
        piece.give_back(Some(&mut memory));
    }
}

#[test]
fn who_finds_all_parts_taken_waits_for_one() {
    let arena = Arena::new();
    let all = arena.lock_all();
    thread::scope(|scope| {
        let (at_it, begins) = sync_channel(0);
        let waiting = scope.spawn({
            let arena = &arena;
            move || {
                at_it.send(()).expect("the other one listens");
                Piece::new(&mut arena.memory(), 100, 1).give_back(None);
            }
        });
        begins.recv().expect("it begins");
        drop(all);
        waiting.join().expect("it gets one");
    });
}

#[test]
fn threads_take_from_parts_of_their_own() {
    let arena = Arena::new();
    let pieces = [0, 1, 0, 1].map(|own| Piece::new(&mut arena.memory_of(own), 100, 1));
    let far = |one: usize, other: usize| pieces[one].address().abs_diff(pieces[other].address());
    assert!(far(0, 2) < RUN / 2 && far(1, 3) < RUN / 2);
    assert!(far(0, 1) >= RUN);
    pieces.into_iter().for_each(|piece| piece.give_back(None));
}

#[test]
#[cfg(target_os = "linux")]
fn the_kernel_is_asked_for_large_pages() {
    let arena = Arena::new();
    let piece = Piece::new(&mut arena.memory(), 100, 1);
    // As a rule there is one.
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let known = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    // From a mapping's first line to that of its flags.
    let mut holds = false;
    let flags = maps.lines().find(|line| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range
            && let (Ok(from), Ok(to)) = (
                usize::from_str_radix(from, 16),
                usize::from_str_radix(to, 16),
            )
        {
            holds = (from..to).contains(&piece.address());
        }
        holds && line.starts_with("VmFlags:")
    });
    if let (Some(flags), true) = (flags, known) {
        assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
    }
    piece.give_back(None);
}
