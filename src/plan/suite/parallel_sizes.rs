//! The parallel sizes that a command of vLLM names, however it spells them, and the devices that they need.

use anyhow::bail;

use super::client_flags::{FlagValue, values};

/// The parallel sizes of a command; `None` where it does not name one. vLLM's default is 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParallelSizes {
    pub tensor: Option<u64>,
    pub pipeline: Option<u64>,
    pub data: Option<u64>,
    /// The part of `data` that runs on this machine. It may be 0.
    local_data: Option<u64>,
    prefill_context: Option<u64>,
}

/// One of the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Tensor,
    Pipeline,
    Data,
    LocalData,
    PrefillContext,
}

/// The flag of each size, the shortest beginning of it that no other flag of vLLM has, and its short name. Decode context
/// parallelism uses the devices of tensor parallelism.
const FLAGS: [(Size, &str, &str, &str); 5] = [
    (Size::Tensor, "tensor-parallel-size", "tensor", "tp"),
    (Size::Pipeline, "pipeline-parallel-size", "pipeline", "pp"),
    (Size::Data, "data-parallel-size", "data-parallel-size", "dp"),
    (Size::LocalData, "data-parallel-size-local", "data-parallel-size-", "dpl"),
    (Size::PrefillContext, "prefill-context-parallel-size", "prefill-context", "pcp"),
];

impl ParallelSizes {
    /// The sizes in the words of a command. Of a flag that is given twice, the last counts.
    ///
    /// # Errors
    /// A size that is not a whole number from 1; the text names the flag as it is spelled.
    pub fn of(words: &[String]) -> anyhow::Result<Self> {
        let mut sizes = Self::default();
        for FlagValue { flag, value } in values(words) {
            let Some(size) = named(flag) else { continue };
            let least = if size == Size::LocalData { 0 } else { 1 };
            let Some(number) = value.parse().ok().filter(|number| *number >= least) else {
                bail!("`{flag}` must be a whole number from {least}, not `{value}`")
            };
            *sizes.field(size) = Some(number);
        }
        Ok(sizes)
    }

    fn field(&mut self, size: Size) -> &mut Option<u64> {
        match size {
            Size::Tensor => &mut self.tensor,
            Size::Pipeline => &mut self.pipeline,
            Size::Data => &mut self.data,
            Size::LocalData => &mut self.local_data,
            Size::PrefillContext => &mut self.prefill_context,
        }
    }

    /// The tensor-parallel size, or vLLM's default.
    pub fn tensor_or_default(&self) -> u64 {
        self.tensor.unwrap_or(1)
    }

    /// The devices of this machine that the command needs; on a CPU, the NUMA nodes.
    pub fn devices(&self) -> u64 {
        let sizes = [self.tensor, self.pipeline, self.prefill_context, self.local_data.or(self.data)];
        sizes.into_iter().fold(1, |devices: u64, size| devices.saturating_mul(size.unwrap_or(1)))
    }

    /// Whether any size is named.
    pub fn is_named(&self) -> bool {
        *self != Self::default()
    }
}

/// The size that a flag names. `--tp` is what a test file with the key `tp` becomes.
fn named(flag: &str) -> Option<Size> {
    let spelled = flag.replace('_', "-");
    let name = spelled.trim_start_matches('-');
    let is_long = spelled.starts_with("--");
    // `-tp4`: a short flag with its value.
    let short = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let found = FLAGS.into_iter().find(|(_, long, beginning, abbreviated)| {
        short == *abbreviated || is_long && long.starts_with(name) && name.starts_with(beginning)
    });
    found.map(|(size, ..)| size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(line: &str) -> anyhow::Result<ParallelSizes> {
        ParallelSizes::of(&shell_words::split(line).unwrap())
    }

    #[test]
    fn every_spelling_of_a_size_counts() {
        for line in [
            "vllm serve m --tensor-parallel-size 4",
            "vllm serve m --tensor-parallel-size=4 --dtype half",
            "vllm serve m --tensor_parallel_size 4",
            "vllm serve m --tensor-parallel 4",
            "vllm serve m -tp 4",
            "vllm serve m -tp=4",
            "vllm serve m -tp4",
            "vllm serve m --tp 4",
            "vllm serve m -tp 2 --tensor-parallel-size 4",
        ] {
            let sizes = sizes(line).unwrap();
            assert_eq!((sizes.tensor, sizes.devices(), sizes.is_named()), (Some(4), 4, true), "{line}");
        }
        for (line, devices) in [
            ("vllm serve m", 1),
            ("vllm serve m -tp 2 -pp 2", 4),
            ("vllm serve m --tp 2 --pipeline_parallel_size 3 --dp 2", 12),
            ("vllm serve m --data-parallel-size 8", 8),
            ("vllm serve m --data-parallel-size=8 --data-parallel-size-local=2 -tp 2", 4),
            ("vllm serve m -dp 16 -dpl 0", 0),
            ("vllm serve m --prefill-context-parallel-size 2 -tp 2 --decode-context-parallel-size 2", 4),
            ("vllm bench latency --model m --tensor-parallel-size 2 --pipeline-parallel-size 2", 4),
            ("vllm serve m --data-parallel-rank 3 --data-parallel-size-bogus 7", 1),
            ("vllm serve m -tp 99999999999 -pp 99999999999", u64::MAX),
        ] {
            assert_eq!(sizes(line).unwrap().devices(), devices, "{line}");
        }
        assert!(!sizes("vllm serve m --max-num-seqs 4").unwrap().is_named());
    }

    #[test]
    fn a_size_that_is_no_number_names_its_flag() {
        for (line, said) in [
            ("vllm serve m -tp two", "`-tp` must be a whole number from 1, not `two`"),
            ("vllm serve m --tp 0", "`--tp` must be a whole number from 1, not `0`"),
            (
                "vllm serve m --pipeline_parallel_size 1.5",
                "`--pipeline_parallel_size` must be a whole number from 1, not `1.5`",
            ),
            ("vllm serve m --data-parallel-size=", "`--data-parallel-size` must be a whole number from 1, not ``"),
            ("vllm serve m -dpl -1", "`-dpl` must be a whole number from 0, not `-1`"),
        ] {
            assert_eq!(sizes(line).unwrap_err().to_string(), said, "{line}");
        }
    }
}
