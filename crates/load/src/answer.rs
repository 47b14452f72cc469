//! What the client measured of one request. All times of a run are seconds since its start, on one monotonic clock.

use crate::failure::Failure;

/// One request and its answer, as measured by the client. Times are seconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// When the request was due.
    pub due: f64,
    /// When it was sent: later than `due` if it waited for another request to finish or the client was late.
    pub sent: f64,
    /// When each event that carries a token arrived, in order.
    pub tokens: Vec<f64>,
    /// Tokens of the prompt by the server's count; 0 if the server sent none.
    pub input_tokens: u64,
    /// Tokens of the answer by the server's count; 0 if the server sent none.
    pub output_tokens: u64,
    /// The text of the answer, if [`Load::keep_texts`](crate::Load::keep_texts) is set.
    pub text: String,
    /// Why the answer is incomplete; `None` for a complete one.
    pub failure: Option<Failure>,
}

impl Answer {
    /// From the due time to sending, in seconds.
    pub fn queued(&self) -> f64 {
        self.sent - self.due
    }

    /// Time to first token, in seconds; 0 without a token.
    pub fn ttft(&self) -> f64 {
        self.tokens.first().map_or(0.0, |first| first - self.sent)
    }

    /// From sending to the last token, in seconds; 0 without a token.
    pub fn latency(&self) -> f64 {
        self.tokens.last().map_or(0.0, |last| last - self.sent)
    }

    /// Inter-token latencies, in seconds.
    pub fn itls(&self) -> impl Iterator<Item = f64> {
        self.tokens.windows(2).map(|pair| pair[1] - pair[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_from_the_events() {
        let answer = Answer { due: 1.0, sent: 1.5, tokens: vec![2.0, 2.25, 2.75], ..Answer::default() };
        assert_eq!((answer.queued(), answer.ttft(), answer.latency()), (0.5, 0.5, 1.25));
        assert_eq!(answer.itls().collect::<Vec<_>>(), [0.25, 0.5]);
        let none = Answer { tokens: Vec::new(), ..answer };
        assert_eq!((none.ttft(), none.latency(), none.itls().count()), (0.0, 0.0, 0));
    }
}
