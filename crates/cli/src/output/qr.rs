//! A text as a QR code made of half blocks.

use anstyle::{AnsiColor, Style};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Dark on light whatever the terminal's own colours are.
const PAPER: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Black)))
    .bg_color(Some(anstyle::Color::Ansi(AnsiColor::BrightWhite)));

/// The QR code of a text, one line of half blocks for two rows of modules, or nothing when it does not fit into one.
///
/// Without colours, the light modules are drawn: most terminals are dark.
pub(crate) fn render(text: &str, colours: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    if colours {
        renderer.dark_color(Dense1x2::Dark).light_color(Dense1x2::Light);
    } else {
        renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    let drawn = renderer.build();
    if !colours {
        return Some(drawn);
    }
    let lines: Vec<String> = drawn.lines().map(|line| super::styled(PAPER, line)).collect();
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_rectangle_of_half_blocks_with_a_quiet_zone() {
        let drawn = render("DAWN1ABC", false).unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        // Version 1 has 21 modules a side, and the quiet zone 4 on each side.
        assert_eq!(lines.len(), 29_usize.div_ceil(2));
        assert!(lines.iter().all(|line| line.chars().count() == 29));
        assert!(drawn.chars().all(|c| "█▀▄ \n".contains(c)));
        assert!(lines[0].chars().all(|c| c == '█'), "{drawn}");
    }

    #[test]
    fn with_colours_each_line_sets_and_resets_its_own() {
        let drawn = render("DAWN1ABC", true).unwrap();
        assert!(
            drawn
                .lines()
                .all(|line| line.starts_with("\u{1b}[") && line.ends_with("\u{1b}[0m"))
        );
    }

    #[test]
    fn a_text_that_does_not_fit_has_no_code() {
        assert_eq!(render(&"A".repeat(5000), false), None);
    }
}
