//! Tables for people.

use blink_core::terminal::escape_line;

/// A line of titles, and one for each row: columns as wide as they need to be, two spaces apart. A cell is one line,
/// whatever name is in it.
pub(crate) fn lines<const COLUMNS: usize>(
    titles: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> String {
    let rows: Vec<[String; COLUMNS]> = std::iter::once(titles.map(str::to_owned))
        .chain(rows.map(|row| row.map(|cell| escape_line(&cell).into_owned())))
        .collect();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows = [["ä", "1"], ["long", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(
            lines(["A", "B"], rows.into_iter()),
            "A     B\nä     1\nlong\n"
        );
        let hostile = [["a\x1b[2J\nb\u{202e}".to_owned()]];
        assert_eq!(
            lines(["A"], hostile.into_iter()),
            "A\na\\u{1b}[2J\\nb\\u{202e}\n"
        );
    }
}
