//! Tables: aligned columns without lines, on a terminal with a bold header and wrapped to its width.

use anstyle::Style;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

use super::words::clean;

/// A terminal narrower than this gets no columns squeezed into it, characters.
const NARROWEST: u16 = 40;

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Rows {
    table: Table,
    terminal: bool,
}

impl Rows {
    /// A table with this header, for a terminal or for a program that reads columns.
    pub(crate) fn new(terminal: bool, header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if terminal {
            // A terminal that does not say how wide it is wraps for itself.
            let known = table.width().is_some_and(|width| width >= NARROWEST);
            let arrangement = if known {
                ContentArrangement::Dynamic
            } else {
                ContentArrangement::Disabled
            };
            table.set_content_arrangement(arrangement);
            table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        } else {
            table
                .force_no_tty()
                .set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(header);
        }
        Self { table, terminal }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        let terminal = self.terminal;
        let cells = cells.into_iter().map(|(text, style)| {
            let cell = Cell::new(clean(&text).replace('\n', " "));
            if terminal { dressed(cell, style) } else { cell }
        });
        self.table.add_row(cells.collect::<Vec<_>>());
    }

    /// The table as text, without a last line break.
    pub(crate) fn render(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.table.trim_fmt()
    }
}

/// A cell in no style.
pub(crate) fn plain(text: impl Into<String>) -> (String, Style) {
    (text.into(), Style::new())
}

fn dressed(cell: Cell, style: Style) -> Cell {
    use comfy_table::Color;
    let effects = style.get_effects();
    let cell = match style.get_fg_color() {
        Some(anstyle::Color::Ansi(anstyle::AnsiColor::Green)) => cell.fg(Color::DarkGreen),
        Some(anstyle::Color::Ansi(anstyle::AnsiColor::Yellow)) => cell.fg(Color::DarkYellow),
        Some(anstyle::Color::Ansi(anstyle::AnsiColor::Red)) => cell.fg(Color::DarkRed),
        _ => cell,
    };
    let cell = if effects.contains(anstyle::Effects::BOLD) {
        cell.add_attribute(Attribute::Bold)
    } else {
        cell
    };
    if effects.contains(anstyle::Effects::DIMMED) {
        cell.add_attribute(Attribute::Dim)
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let mut rows = Rows::new(false, &["NAME", "STATE"]);
        rows.row([plain("lab"), (String::from("online"), super::super::GOOD)]);
        rows.row([plain("a-long-name"), plain("offline")]);
        assert_eq!(
            rows.render(),
            "NAME         STATE\nlab          online\na-long-name  offline"
        );
    }

    #[test]
    fn a_cell_holds_no_control_characters() {
        let mut rows = Rows::new(false, &["X"]);
        rows.row([plain("a\u{1b}[31mb\nc")]);
        assert_eq!(rows.render(), "X\na\u{fffd}[31mb c");
    }
}
