//! What the client measured of one request. All times of a run are seconds since its start, on one monotonic clock.

use crate::failure::Failure;

/// One request and its answer, as measured by the client. Times are seconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// When the request was due.
    pub due: f64,
    /// Tokens that it asked for.
    pub requested_tokens: usize,
    /// When it was sent: later than `due` if it waited for another request to finish or the client was late.
    pub sent: f64,
    /// When each event with a choice arrived, in order. `vllm bench serve` counts each as a token.
    pub tokens: Vec<f64>,
    /// When the first event with a token arrived: a chat begins with an event that has only the role.
    pub first_token: Option<f64>,
    /// Events with a token; its text may be empty. Some servers send several tokens in one event.
    pub token_events: usize,
    /// What the client measured of its own work on this request.
    pub client: ClientTimes,
    /// Tokens of the prompt by the server's count; 0 if the server sent none.
    pub input_tokens: u64,
    /// Tokens of the answer by the server's count; `None` if the server sent none.
    pub output_tokens: Option<u64>,
    /// The text of the answer, if [`Load::keep_texts`](crate::Load::keep_texts) is set.
    pub text: String,
    /// Why the answer is incomplete; `None` for a complete one.
    pub failure: Option<Failure>,
}

/// Where the client may have distorted the times of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientTimes {
    /// How long writing the request took, in seconds, if that was long: it was sent at some time within.
    pub writing: f64,
    /// Tokens that were read late and whose time of arrival is not known: the index, and the time if tokens came evenly
    /// while the client did not run.
    pub estimated: Vec<(usize, f64)>,
    /// Whether it was sent again, because the server had closed the connection before the first byte of an answer.
    pub was_resent: bool,
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

    /// The same answer with the most likely times, where the client was late; `None` where it was not. How much a metric of
    /// it differs is how far the client may have distorted that metric.
    pub fn estimated(&self) -> Option<Self> {
        let ClientTimes { writing, estimated, .. } = &self.client;
        if *writing == 0.0 && estimated.is_empty() {
            return None;
        }
        let mut answer = self.clone();
        answer.sent += writing;
        for (index, time) in estimated {
            if let Some(token) = answer.tokens.get_mut(*index) {
                *token = *time;
            }
        }
        if let Some(first) = answer.tokens.first() {
            answer.sent = answer.sent.min(*first);
        }
        Some(answer)
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

    #[test]
    fn an_answer_that_was_read_late_has_likely_times() {
        let answer = Answer { sent: 1.0, tokens: vec![2.0, 3.0, 3.0, 3.0], ..Answer::default() };
        assert_eq!(answer.estimated(), None);
        let client = ClientTimes { writing: 0.25, estimated: vec![(1, 2.25), (2, 2.5)], was_resent: false };
        let likely = Answer { client, ..answer }.estimated().unwrap();
        assert_eq!((likely.sent, likely.tokens), (1.25, vec![2.0, 2.25, 2.5, 3.0]));
    }
}
