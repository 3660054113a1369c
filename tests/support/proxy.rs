//! A TCP proxy that can cut, stall and delay what passes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What happens to what passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes.
    Pass,
    /// It is kept, and passes once the mode changes: connections stand, nothing moves.
    Hold,
    /// It passes this much later, in order.
    Delay(Duration),
    /// It is swallowed: connections stand, all that is sent vanishes. They break when the mode
    /// changes, since what follows a hole makes no sense.
    Swallow,
    /// Connections are broken, new ones are refused.
    Cut,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    open: Vec<TcpStream>,
    over: bool,
}

/// A listening proxy. Cuts everything when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, and connects to this one.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("its number").port();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode: Mode::Pass,
                open: Vec::new(),
                over: false,
            }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if theirs.state.lock().unwrap().over {
                    return;
                }
                theirs.serve(stream, port);
            }
        });
        Self { shared, port: own }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.state.lock().unwrap();
        let before = std::mem::replace(&mut state.mode, mode);
        if mode == Mode::Cut || (before == Mode::Swallow && mode != before) {
            for stream in state.open.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Cut);
        self.shared.state.lock().unwrap().over = true;
        // The accepting thread sees the end at its next connection.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, near: TcpStream, port: u16) {
        let mut state = self.state.lock().unwrap();
        if state.mode == Mode::Cut {
            near.shutdown(Shutdown::Both).ok();
            return;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
            near.shutdown(Shutdown::Both).ok();
            return;
        };
        near.set_nodelay(true).ok();
        far.set_nodelay(true).ok();
        for (from, to) in [(&near, &far), (&far, &near)] {
            state.open.push(from.try_clone().expect("a second handle"));
            let (from, to) = (
                from.try_clone().expect("a second handle"),
                to.try_clone().expect("a second handle"),
            );
            // Bounded: while nothing passes, the sender feels it in the end.
            let (pieces, queue) = mpsc::sync_channel(1_024);
            thread::spawn(move || read(from, &pieces));
            let shared = Arc::clone(self);
            thread::spawn(move || shared.write(to, &queue));
        }
    }

    fn write(&self, mut to: TcpStream, queue: &Receiver<(Instant, Vec<u8>)>) {
        for (came, piece) in queue {
            let mut state = self.state.lock().unwrap();
            let swallowed = loop {
                let wait = match state.mode {
                    Mode::Pass => break false,
                    Mode::Swallow => break true,
                    Mode::Cut => {
                        to.shutdown(Shutdown::Both).ok();
                        return;
                    }
                    Mode::Hold => Duration::from_secs(3600),
                    Mode::Delay(delay) => (came + delay).saturating_duration_since(Instant::now()),
                };
                if wait.is_zero() {
                    break false;
                }
                (state, _) = self.changed.wait_timeout(state, wait).unwrap();
            };
            drop(state);
            if !swallowed && to.write_all(&piece).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    }
}

fn read(mut from: TcpStream, pieces: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let piece = buffer[..len].to_vec();
        if pieces.send((Instant::now(), piece)).is_err() {
            return;
        }
    }
}
