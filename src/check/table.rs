//! Columns for a terminal.

/// The rows, a line each, with columns of one width; the last column is not filled up.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let widest = |column: usize| rows.iter().map(|row| width(&row[column])).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(widest);
    let mut text = String::new();
    for row in rows {
        for (cell, widest) in row[..COLUMNS - 1].iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', widest - width(cell) + 2));
        }
        text.push_str(&row[COLUMNS - 1]);
        text.push('\n');
    }
    text
}

/// Cells of a terminal: a character of an East Asian script takes two.
fn width(text: &str) -> usize {
    let is_wide = |char| matches!(char, '\u{1100}'..'\u{1160}' | '\u{2e80}'..'\u{20000}');
    text.chars().map(|char| 1 + usize::from(is_wide(char))).sum()
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn table_fills_columns_up_to_the_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["a", "key", "url"]), row(["智谱", "有效", "x"]), row(["openai", "—", ""])];
        assert_eq!(table(&rows), "a       key   url\n智谱    有效  x\nopenai  —     \n");
    }
}
