//! Ends the making of prompts early: it computes on a thread of its own, which nothing else can end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::prompt_error::PromptError;

thread_local! {
    static CURRENT: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// A signal from another thread that the prompts are no longer needed.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends what runs in [`Stop::during`], at its next prompt.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Runs `work`, whose prompts end with [`PromptError::Stopped`] once [`Stop::set`] was called.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let result = work();
        CURRENT.replace(before);
        result
    }
}

/// Called before each prompt.
///
/// # Errors
/// The prompts of this thread are no longer needed.
pub(super) fn check() -> Result<(), PromptError> {
    let set = CURRENT.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.0.load(Ordering::Relaxed)));
    if set { Err(PromptError::Stopped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::{RandomPrompts, random};

    #[test]
    fn prompts_end_at_the_next_one_after_a_stop() {
        let stop = Stop::default();
        let spec = RandomPrompts { prompts: 2, input_len: 8, ..RandomPrompts::default() };
        assert!(stop.during(|| random(&spec, None)).is_ok());
        stop.set();
        assert!(matches!(stop.during(|| random(&spec, None)), Err(PromptError::Stopped)));
        assert!(random(&spec, None).is_ok(), "other work of the thread is not stopped");
    }
}
