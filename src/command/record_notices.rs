//! Messages about results that have no dashboard record of their own.

use crate::report::records::Records;
use crate::system::shell::Shell;

/// Prints which records were left out, and why, to standard error.
pub fn print(records: &Records, shell: &Shell) {
    for collision in &records.collisions {
        shell.say(&format!(
            "{} represents {} in the dashboard, which cannot distinguish them",
            collision.kept,
            collision.dropped.join(", ")
        ));
    }
    for (case, reason) in &records.refused {
        shell.say(&format!("{case} is not published: {reason}"));
    }
}
