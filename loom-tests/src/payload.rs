//! A payload that notices when it is dropped twice, or never.

use std::cell::RefCell;

thread_local! {
    /// Which of the payloads made in this run are alive.
    static ALIVE: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
}

/// A payload: the number of its push, and its own among all payloads and clones of this run.
#[derive(Debug)]
pub struct Payload {
    /// The number of its push.
    pub value: u64,
    serial: usize,
}

impl Payload {
    /// The payload of a push.
    pub fn new(value: u64) -> Self {
        let serial = ALIVE.with_borrow_mut(|alive| {
            alive.push(true);
            alive.len() - 1
        });
        Self { value, serial }
    }

    /// How many payloads of this run are alive.
    pub fn alive() -> usize {
        ALIVE.with_borrow(|alive| alive.iter().filter(|alive| **alive).count())
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        assert!(self.is_alive(), "a clone of a payload that was dropped");
        Self::new(self.value)
    }
}

impl Payload {
    fn is_alive(&self) -> bool {
        ALIVE.with_borrow(|alive| alive.get(self.serial).copied().unwrap_or(false))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(self.is_alive(), "a payload was dropped twice");
        ALIVE.with_borrow_mut(|alive| alive[self.serial] = false);
    }
}

pub(crate) fn reset() {
    ALIVE.with_borrow_mut(Vec::clear);
}

pub(crate) fn assert_none_left() {
    assert_eq!(Payload::alive(), 0, "payloads that were never dropped");
}
