//! A section's table, in memory and as comma-separated values.

use std::fmt::Write as _;
use std::path::PathBuf;

/// A table with a line about where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Date, machine, compiler, commit.
    pub origin: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<String>>,
}

pub(super) fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn path(section: &str) -> PathBuf {
    docs().join("benchmarks").join(format!("{section}.csv"))
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Splits a line at its commas, save those in quotes.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut inside = false;
    for piece in line.chars() {
        match piece {
            '"' => inside = !inside,
            ',' if !inside => cells.push(String::new()),
            other => {
                if let Some(last) = cells.last_mut() {
                    last.push(other);
                }
            }
        }
    }
    cells
}

impl Table {
    /// A table that comes from here and now.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self {
            origin: super::machine::line(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("# {}\n", self.origin);
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            let row: Vec<_> = row.iter().map(|cell| quoted(cell)).collect();
            let _ = writeln!(text, "{}", row.join(","));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let origin = lines.next()?.strip_prefix("# ")?.to_owned();
        let columns = cells(lines.next()?);
        let rows: Vec<_> = lines.map(cells).collect();
        rows.iter()
            .all(|row| row.len() == columns.len())
            .then_some(Self {
                origin,
                columns,
                rows,
            })
    }

    /// Keeps it as a section of the record.
    ///
    /// # Errors
    /// A line for the user.
    pub fn write(&self, section: &str) -> Result<(), String> {
        let path = path(section);
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, self.text()))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }

    /// A section of the record, if it was measured.
    #[must_use]
    pub fn read(section: &str) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path(section)).ok()?)
    }

    /// As a table of Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
        let mut text = line(&self.columns);
        let _ = writeln!(text, "|{}", "---|".repeat(self.columns.len()));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn what_is_written_is_read() {
        let table = Table {
            origin: "2024-12-31; a machine, two cores".to_owned(),
            columns: vec!["name".to_owned(), "figure".to_owned()],
            rows: vec![vec!["ours, by key".to_owned(), "3".to_owned()]],
        };
        assert_eq!(Table::parse(&table.text()), Some(table.clone()));
        assert_eq!(Table::parse("# origin\na,b\n1\n"), None);
        assert!(table.markdown().contains("| ours, by key | 3 |"));
    }
}
