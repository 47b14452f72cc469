//! The width that tables are made for.

use std::io::Stdout;

use terminal_size::{Width, terminal_size_of};

use crate::environment::Environment;

/// Columns where standard output is no terminal: a log of CI, a file.
const WITHOUT_A_TERMINAL: usize = 120;

/// The width in columns: `COLUMNS`, or else that of the terminal that standard output is, or else 120.
pub fn of(environment: &Environment, output: &Stdout) -> usize {
    chosen(environment.get("COLUMNS"), || terminal_size_of(output).map(|(Width(columns), _)| columns.into()))
}

/// `COLUMNS`, unless it is not a number of columns. A shell does not export it by itself: where it is set, it was exported on
/// purpose.
fn chosen(columns: Option<&str>, asked: impl FnOnce() -> Option<usize>) -> usize {
    let columns = columns.and_then(|text| text.parse().ok());
    columns.filter(|columns| *columns > 0).or_else(asked).unwrap_or(WITHOUT_A_TERMINAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_before_the_terminal_and_a_value_that_is_no_width_does_not_count() {
        for (columns, asked, expected) in [
            (Some("80"), Some(60), 80),
            (None, Some(60), 60),
            (Some("0"), Some(60), 60),
            (Some("-4"), Some(60), 60),
            (Some("wide"), Some(60), 60),
            (Some("80"), None, 80),
            (None, None, 120),
        ] {
            assert_eq!(chosen(columns, || asked), expected, "{columns:?} {asked:?}");
        }
    }
}
