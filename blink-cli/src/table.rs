//! Tables for people.

/// A line of titles, and one for each row: columns as wide as they need to be, two spaces apart.
pub(crate) fn lines<const COLUMNS: usize>(
    titles: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> String {
    let rows: Vec<[String; COLUMNS]> = std::iter::once(titles.map(str::to_owned))
        .chain(rows)
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

/// Text that somebody else has written, on one line and without what a terminal would obey.
pub(crate) fn harmless(text: &str) -> String {
    let escape = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(escape).collect()
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
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(harmless("a\x1b[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }
}
