//! What was measured, one [`Row`] each, and the two forms of it that are kept.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::stop::Stop;

/// A row is worse than the peer's if it is more than so many per cent above it.
const TOLERANCE_PER_CENT: f64 = 5.0;

/// One result. Of everything that has a peer, less is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its name: dotted, and the same for ever.
    pub(crate) name: String,
    /// What was measured.
    pub(crate) value: f64,
    /// In what.
    pub(crate) unit: String,
    /// Who else does the same.
    pub(crate) peer: Option<String>,
    /// What it costs there.
    pub(crate) peer_value: Option<f64>,
    /// Ours over the peer's; none where nothing is compared, or the peer's is 0.
    pub(crate) ratio: Option<f64>,
    /// Whether it is no more than 5 % above the peer's; none where nothing is compared.
    pub(crate) better: Option<bool>,
}

impl Row {
    /// A result that nothing is compared with.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            peer: None,
            peer_value: None,
            ratio: None,
            better: None,
        }
    }

    /// The same beside a peer's.
    pub(crate) fn beside(self, peer: &str, peer_value: f64) -> Self {
        let ratio = (peer_value != 0.0).then(|| self.value / peer_value);
        let limit = peer_value * (1.0 + TOLERANCE_PER_CENT / 100.0);
        Self {
            peer: Some(peer.to_owned()),
            peer_value: Some(peer_value),
            ratio,
            better: Some(self.value <= limit),
            ..self
        }
    }

    /// The row that a program of `tests/bench` printed, if `line` is one.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        if fields.next()? != "row" {
            return None;
        }
        let (name, value, unit) = (fields.next()?, fields.next()?, fields.next()?);
        let row = Self::new(name, value.parse().ok()?, unit);
        match (fields.next(), fields.next()) {
            (Some(peer), Some(value)) => Some(row.beside(peer, value.parse().ok()?)),
            (None, None) => Some(row),
            _ => None,
        }
    }
}

/// Writes `rows` to `file` as JSON.
///
/// # Errors
///
/// `Failed` if the file cannot be written.
pub(crate) fn write(rows: &[Row], file: &Path) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(rows)
        .map_err(|why| Stop::Failed(format!("{}: {why}", file.display())))?;
    fs::write(file, text + "\n").map_err(|why| Stop::Failed(format!("{}: {why}", file.display())))
}

/// The rows of an earlier report; none if there is no such file, or it is none.
pub(crate) fn read(file: &Path) -> Vec<Row> {
    fs::read_to_string(file)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// A number as people read it: whole, or with as many places as say something.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || value.fract() == 0.0 && value.abs() < 1e15 {
        return grouped(&format!("{value:.0}"));
    }
    match value.abs() {
        100.0.. => grouped(&format!("{value:.0}")),
        10.0.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        0.01.. => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at != 0 && left.is_multiple_of(3) && digits.len() > 4 && !text.ends_with('-') {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// What a row's last column says.
pub(crate) const fn verdict(row: &Row) -> &'static str {
    match row.better {
        Some(true) => "",
        Some(false) => "WORSE",
        None => "",
    }
}

/// The table for a terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![["", "", "", "", "", ""].map(str::to_owned)];
    lines[0] = ["name", "here", "unit", "peer", "there", "ratio"].map(str::to_owned);
    for row in rows {
        lines.push([
            row.name.clone(),
            number(row.value),
            row.unit.clone(),
            row.peer.clone().unwrap_or_default(),
            row.peer_value.map(number).unwrap_or_default(),
            row.ratio.map(number).unwrap_or_default(),
        ]);
    }
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let said = at.checked_sub(1).map_or("", |at| verdict(&rows[at]));
        let [name, here, unit, peer, there, ratio] = line;
        let line = format!(
            "{name:<0$}  {here:>1$} {unit:<2$}  {peer:<3$}  {there:>4$}  {ratio:>5$}  {said}",
            widths[0], widths[1], widths[2], widths[3], widths[4], widths[5]
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// How many rows are better than, and worse than the peer's.
pub(crate) fn balance(rows: &[Row]) -> String {
    let count = |is_it: Option<bool>| rows.iter().filter(|row| row.better == is_it).count();
    format!(
        "{} numbers: {} no worse than the peer's, {} worse, {} not compared",
        rows.len(),
        count(Some(true)),
        count(Some(false)),
        count(None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_bench_programs_is_a_row() {
        let row = Row::of_line("row\ta.b\t2\tSYNCs\tLinux\t129").expect("a row");
        assert_eq!((row.value, row.peer_value), (2.0, Some(129.0)));
        assert_eq!(row.better, Some(true));
        let row = Row::of_line("row\ta.b\t2\tSYNCs").expect("a row");
        assert_eq!((row.peer, row.ratio, row.better), (None, None, None));
        for line in ["", "a\tb", "row\ta\tx\tb", "row\ta\t1\tb\tLinux"] {
            assert_eq!(Row::of_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn five_per_cent_more_is_no_worse_and_six_are() {
        let row = |value| Row::new("a", value, "ns").beside("b", 100.0);
        assert_eq!(row(105.0).better, Some(true));
        assert_eq!(row(106.0).better, Some(false));
        let nothing = Row::new("a", 0.0, "ns").beside("b", 0.0);
        assert_eq!((nothing.ratio, nothing.better), (None, Some(true)));
    }

    #[test]
    fn the_json_has_the_seven_fields_and_comes_back() {
        let row = Row::new("a.b", 3.0, "SYNCs").beside("Linux", 2.0);
        let text = serde_json::to_string(&row).expect("it is plain");
        let expected = "{\"name\":\"a.b\",\"value\":3.0,\"unit\":\"SYNCs\",\"peer\":\"Linux\",\
                        \"peer_value\":2.0,\"ratio\":1.5,\"better\":false}";
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Row>(&text).expect("it is ours"), row);
        let bare = serde_json::to_string(&Row::new("a", 1.0, "b")).expect("it is plain");
        assert!(bare.contains("\"peer\":null"), "{bare}");
        assert!(bare.contains("\"better\":null"), "{bare}");
    }

    #[test]
    fn the_table_says_what_is_worse() {
        let rows = [
            Row::new("a", 3.0, "SYNCs").beside("Linux", 2.0),
            Row::new("long.name", 1_234_567.0, "bytes"),
        ];
        let table = table(&rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].ends_with("1.50  WORSE"), "{table}");
        assert!(
            lines[2].contains("1\u{202f}234\u{202f}567 bytes"),
            "{table}"
        );
        let balance = balance(&rows);
        assert!(
            balance.contains("0 no worse than the peer's, 1 worse"),
            "{balance}"
        );
    }
}
