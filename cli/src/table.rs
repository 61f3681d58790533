//! Plain columns, as kubectl prints them: no borders, widths by content, and lines that can be added one by one.

use std::fmt::Write as _;

use crate::terminal::plain;

/// Columns whose widths grow with what they have held.
#[derive(Debug)]
pub(crate) struct Columns {
    widths: Vec<usize>,
    header: Vec<&'static str>,
}

/// The text of a cell, and how to colour it once it is padded.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: fn(crate::terminal::Paint, &str) -> String,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: |_, text| text.to_owned() }
    }

    pub(crate) fn painted(text: impl Into<String>, paint: fn(crate::terminal::Paint, &str) -> String) -> Self {
        Self { text: text.into(), paint }
    }
}

impl Columns {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { widths: header.iter().map(|title| title.chars().count()).collect(), header: header.to_vec() }
    }

    /// Widens the columns to hold these rows.
    pub(crate) fn measure(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
    }

    pub(crate) fn header(&self, paint: crate::terminal::Paint) -> String {
        let cells: Vec<_> =
            self.header.iter().map(|title| Cell::painted(*title, |paint, text| paint.bold(text))).collect();
        self.line(&cells, paint)
    }

    /// One line, with its end.
    pub(crate) fn line(&self, row: &[Cell], paint: crate::terminal::Paint) -> String {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            let text = plain(&cell.text);
            let last = index + 1 == row.len();
            // The padding is outside the colour, so that it can be cut at the end.
            let padding = if last { 0 } else { width.saturating_sub(text.chars().count()) + 2 };
            let _ = write!(line, "{}{:padding$}", (cell.paint)(paint, &text), "");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    /// Header and rows.
    pub(crate) fn table(header: &[&'static str], rows: &[Vec<Cell>], paint: crate::terminal::Paint) -> String {
        let mut columns = Self::new(header);
        columns.measure(rows);
        rows.iter().fold(columns.header(paint), |text, row| text + &columns.line(row, paint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Paint;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec![Cell::new("a"), Cell::new("long cell"), Cell::new("")],
            vec![Cell::new("bbbbbb"), Cell::new("c"), Cell::new("d")],
        ];
        let text = Columns::table(&["ONE", "TWO", "THREE"], &rows, Paint::default());
        assert_eq!(text, "ONE     TWO        THREE\na       long cell\nbbbbbb  c          d\n");
    }
}
