//! The recorded limits: small comma-separated files beside the benchmarks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// One of the files.
#[derive(Clone, Debug)]
pub struct Limits {
    path: PathBuf,
    head: &'static str,
    rows: BTreeMap<String, f64>,
}

impl Limits {
    /// Reads a file of the folder `gate`: lines `name,number`, where the name may hold commas;
    /// `#` begins a comment. No file is an empty one.
    ///
    /// # Errors
    /// A line for the user: the file cannot be read, or a row is not one.
    pub fn read(file: &str, head: &'static str) -> Result<Self, String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("gate")
            .join(file);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let rows = parse(&text).map_err(|row| {
            format!(
                "{}, line {row}: not `name,number`; correct it, or record anew",
                path.display()
            )
        })?;
        Ok(Self { path, head, rows })
    }

    /// The limit of a row.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.rows.get(name).copied()
    }

    /// Sets a row; [`Limits::write`] keeps it.
    pub fn set(&mut self, name: &str, value: f64) {
        self.rows.insert(name.to_owned(), value);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A line for the user.
    pub fn write(&self) -> Result<(), String> {
        let mut text = format!("# {}\n", self.head);
        for (name, value) in &self.rows {
            let _ = writeln!(text, "{name},{value}");
        }
        std::fs::write(&self.path, text)
            .map_err(|error| format!("{} cannot be written: {error}", self.path.display()))
    }
}

/// The rows, or the number of the first line that is none.
fn parse(text: &str) -> Result<BTreeMap<String, f64>, usize> {
    let mut rows = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let row = line
            .rsplit_once(',')
            .and_then(|(name, value)| Some((name, value.trim().parse::<f64>().ok()?)))
            .filter(|(_, value)| value.is_finite() && *value >= 0.0);
        let (name, value) = row.ok_or(index + 1)?;
        rows.insert(name.to_owned(), value);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_may_hold_commas_and_nonsense_is_named_by_its_line() {
        let rows = parse("# head\n\nrustc 1.95.0, fanout,12.5\nmiss,3\n").unwrap();
        assert_eq!(rows.get("rustc 1.95.0, fanout"), Some(&12.5));
        assert_eq!(rows.get("miss"), Some(&3.0));
        assert_eq!(parse("a,1\nb,many\n"), Err(2));
        assert_eq!(parse("a,-1\n"), Err(1));
        assert_eq!(parse("a,nan\n"), Err(1));
        assert_eq!(parse("nothing\n"), Err(1));
    }
}
