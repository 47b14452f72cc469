//! The suite that is part of the program, so that a first run needs no files: a few small tests of each kind, for the
//! simulated vLLM on any device.

use std::path::Path;

use vllm_verdict::case::Kind;

use crate::plan::suite::SuiteFile;

/// What `--suite` names it. A folder of this name is `./example`.
pub const NAME: &str = "example";

/// Whether `suite` is the built-in suite, and not a folder.
pub fn is_example(suite: &Path) -> bool {
    suite.as_os_str() == NAME
}

/// Its files, in upstream's order.
pub fn files() -> Vec<SuiteFile> {
    let text = |kind| match kind {
        Kind::Serving => include_str!("../../../examples/suite/serving-tests-cpu.json"),
        Kind::Latency => include_str!("../../../examples/suite/latency-tests-cpu.json"),
        Kind::Startup => include_str!("../../../examples/suite/startup-tests-cpu.json"),
        Kind::Throughput => include_str!("../../../examples/suite/throughput-tests-cpu.json"),
    };
    let file = |kind: Kind| SuiteFile {
        kind,
        path: format!("{NAME}/{}-tests.json", kind.as_str()),
        text: text(kind).to_owned(),
    };
    Kind::ALL.map(file).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_called_example_is_written_with_its_dot() {
        let is = |path: &str| is_example(Path::new(path));
        assert_eq!([is("example"), is("./example"), is("example/"), is("examples")], [true, false, false, false]);
    }
}
