//! A real nats-server on a port of its own, which can be killed, stopped, reloaded and restarted.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::proxy::Proxy;
use super::{PATIENCE, binary, signal};

/// Lines of a server's log that are shown when it does not do what it should.
const SHOWN: usize = 60;

/// What the example's configuration takes from the environment.
const PASSWORDS: [(&str, &str); 3] = [
    ("CACHE_WRITER_PASSWORD", "w"),
    ("CACHE_READER_PASSWORD", "r"),
    ("CACHE_PLAIN_PASSWORD", "p"),
];

/// A running server. Killed when dropped.
pub struct NatsServer {
    child: Child,
    lines: Receiver<String>,
    shown: Arc<Mutex<VecDeque<String>>>,
    config: PathBuf,
    home: PathBuf,
    port: u16,
    cluster: Option<ClusterPorts>,
}

/// The cluster part of a configuration.
#[derive(Clone)]
struct ClusterPorts {
    listen: u16,
    route: Option<u16>,
}

impl NatsServer {
    /// A server with an empty configuration.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// A server whose configuration has these lines besides the port.
    pub fn with_config(extra: &str) -> Self {
        Self::launch(extra, None).expect("nats-server starts")
    }

    /// Nothing if it does not start: a port of its cluster may have been taken meanwhile.
    fn launch(extra: &str, cluster: Option<ClusterPorts>) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).expect("a directory for the server");
        let config = home.join("server.conf");
        // The port is free when it is chosen, and may be taken a moment later: try again then.
        for _ in 0..5 {
            let port = free_port();
            write_config(&config, port, cluster.as_ref(), extra);
            if let Some((child, lines, shown)) = spawn(&config) {
                return Some(Self {
                    child,
                    lines,
                    shown,
                    config,
                    home,
                    port,
                    cluster,
                });
            }
        }
        None
    }

    /// `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same address, as this user.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// SIGKILL: nothing is said to clients.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Starts the server again on the same port.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((child, lines, shown)) = spawn(&self.config) {
                self.child = child;
                self.lines = lines;
                self.shown = shown;
                return;
            }
            assert!(Instant::now() < deadline, "nats-server does not restart");
        }
    }

    /// SIGSTOP: the kernel still takes what clients send.
    pub fn stop(&self) {
        signal::stop(&self.child);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        signal::send(&self.child, "CONT");
    }

    /// Puts other lines into the configuration, and returns when the server has taken them.
    pub fn reload(&mut self, extra: &str) {
        write_config(&self.config, self.port, self.cluster.as_ref(), extra);
        signal::send(&self.child, "HUP");
        self.wait_for("Reloaded server configuration");
    }

    /// Waits until the log has a line with this text.
    pub fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return;
            }
        }
        let shown = self.shown.lock().unwrap();
        panic!("nats-server did not say {text:?}; it said:\n{shown:#?}");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if !thread::panicking() {
            fs::remove_dir_all(&self.home).ok();
        }
    }
}

/// Two servers whose one route runs through a proxy.
pub struct Cluster {
    pub a: NatsServer,
    pub b: NatsServer,
    pub route: Proxy,
}

impl Cluster {
    /// Starts both, and returns when the route stands.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// The same, with these lines in the configuration of `a`.
    pub fn with_config(extra: &str) -> Self {
        let started = (0..5).find_map(|_| Self::try_start(extra));
        started.expect("two servers start")
    }

    fn try_start(extra: &str) -> Option<Self> {
        let listen = free_port();
        let ports = |listen, route| Some(ClusterPorts { listen, route });
        let a = NatsServer::launch(extra, ports(listen, None))?;
        let route = Proxy::to(listen);
        let b = NatsServer::launch("", ports(free_port(), Some(route.port())))?;
        b.wait_for("Route connection created");
        Some(Self { a, b, route })
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

fn write_config(config: &PathBuf, port: u16, cluster: Option<&ClusterPorts>, extra: &str) {
    let mut text = format!("listen: \"127.0.0.1:{port}\"\nserver_name: \"test-{port}\"\n");
    if let Some(cluster) = cluster {
        let listen = cluster.listen;
        // Not advertised, so that no server finds a way round the proxy; not pooled, so that there
        // is one connection to cut.
        write!(
            text,
            "cluster {{\n  name: test\n  listen: \"127.0.0.1:{listen}\"\n  no_advertise: true\n  \
             pool_size: -1\n"
        )
        .expect("text");
        if let Some(route) = cluster.route {
            writeln!(text, "  routes: [\"nats-route://127.0.0.1:{route}\"]").expect("text");
        }
        text.push_str("}\n");
    }
    text.push_str(extra);
    fs::write(config, text).expect("the server's configuration");
}

type Running = (Child, Receiver<String>, Arc<Mutex<VecDeque<String>>>);

/// Starts a server and waits until it says that it is ready; nothing if it ends before.
fn spawn(config: &PathBuf) -> Option<Running> {
    let mut child = Command::new(binary::find())
        .arg("--config")
        .arg(config)
        .envs(PASSWORDS)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("nats-server starts");
    let log = BufReader::new(child.stderr.take().expect("its log"));
    let (line, lines) = mpsc::channel();
    let shown = Arc::new(Mutex::new(VecDeque::new()));
    let keep = Arc::clone(&shown);
    thread::spawn(move || {
        for text in log.lines().map_while(Result::ok) {
            let mut keep = keep.lock().unwrap();
            if keep.len() == SHOWN {
                keep.pop_front();
            }
            keep.push_back(text.clone());
            drop(keep);
            line.send(text).ok();
        }
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(text) if text.contains("Server is ready") => return Some((child, lines, shown)),
            Ok(_) => {}
            Err(_) => {
                child.kill().ok();
                child.wait().ok();
                return None;
            }
        }
    }
}
