//! Messages about results that have no dashboard record of their own.

use crate::report::records::Records;
use crate::system::shell::Shell;

/// Prints which records were left out, and why, to standard error.
pub fn print(records: &Records, shell: &Shell) {
    for collision in &records.collisions {
        shell.say(&format!("{} not published: same dashboard key as {}", collision.dropped.join(", "), collision.kept));
    }
    for (case, reason) in &records.refused {
        shell.say(&format!("{case} not published: {reason}"));
    }
}
