//! How the server decoded during a load: acceptance rates of speculative decoding and the steps of diffusion, from its
//! counters before and after, with the keys and formulas of `vllm bench serve`.

use std::collections::BTreeSet;

use serde::Serialize;

use super::server_counters::{Counters, DiffusionCounters, SpeculationCounters};

/// How the server decoded during a load. What its counters do not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decoding {
    #[serde(flatten)]
    pub speculation: Option<Speculation>,
    #[serde(flatten)]
    pub diffusion: Option<Diffusion>,
    /// Why the counters tell nothing of this load, although the server has them.
    #[serde(skip)]
    pub lost: Option<String>,
}

/// The keys of speculative decoding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speculation {
    /// Accepted tokens of all draft tokens, in percent.
    #[serde(rename = "spec_decode_acceptance_rate")]
    pub acceptance_rate: f64,
    /// Tokens of a step, with the one that the model itself adds.
    #[serde(rename = "spec_decode_acceptance_length")]
    pub acceptance_length: f64,
    #[serde(rename = "spec_decode_num_drafts")]
    pub drafts: u64,
    #[serde(rename = "spec_decode_draft_tokens")]
    pub draft_tokens: u64,
    #[serde(rename = "spec_decode_accepted_tokens")]
    pub accepted_tokens: u64,
    /// Share of the drafts whose token at each position was accepted.
    #[serde(rename = "spec_decode_per_position_acceptance_rates")]
    pub rates_by_position: Vec<f64>,
}

/// The keys of models that decode by diffusion. A canvas is the block of tokens that is denoised together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diffusion {
    /// Tokens a second.
    #[serde(rename = "diffusion_committed_throughput")]
    pub committed_throughput: f64,
    #[serde(rename = "diffusion_steps_per_canvas")]
    pub steps_per_canvas: f64,
    #[serde(rename = "diffusion_committed_per_step")]
    pub committed_per_step: f64,
    #[serde(rename = "diffusion_committed_tokens")]
    pub committed_tokens: u64,
    #[serde(rename = "diffusion_denoising_steps")]
    pub denoising_steps: u64,
    #[serde(rename = "diffusion_canvas_positions")]
    pub canvas_positions: u64,
}

impl Decoding {
    /// How a server decoded between two readings of its counters, in a load of `seconds`.
    pub fn between(before: &Counters, after: &Counters, seconds: f64) -> Self {
        let speculation = both(before.speculation.as_ref(), after.speculation.as_ref());
        let diffusion = both(before.diffusion.as_ref(), after.diffusion.as_ref());
        let speculation = speculation.map(|(before, after)| Speculation::between(before, after)).transpose();
        let diffusion = diffusion.map(|(before, after)| Diffusion::between(before, after, seconds)).transpose();
        match (speculation, diffusion) {
            (Ok(speculation), Ok(diffusion)) => {
                Self { speculation: speculation.flatten(), diffusion: diffusion.flatten(), lost: None }
            }
            _ => Self::lost("they went back during the load, as after a restart"),
        }
    }

    /// The server has counters, and what they tell of this load is not known.
    pub fn lost(why: &str) -> Self {
        let why = format!("the server's counters of its decoding are not in the result: {why}");
        Self { lost: Some(why), ..Self::default() }
    }
}

fn both<'a, T>(before: Option<&'a T>, after: Option<&'a T>) -> Option<(&'a T, &'a T)> {
    before.zip(after)
}

/// A counter that went back.
#[derive(Debug)]
struct Backwards;

fn difference(before: u64, after: u64) -> Result<u64, Backwards> {
    after.checked_sub(before).ok_or(Backwards)
}

impl Speculation {
    /// `None` if nothing was drafted.
    fn between(before: &SpeculationCounters, after: &SpeculationCounters) -> Result<Option<Self>, Backwards> {
        let drafts = difference(before.drafts, after.drafts)?;
        let draft_tokens = difference(before.draft_tokens, after.draft_tokens)?;
        let accepted_tokens = difference(before.accepted_tokens, after.accepted_tokens)?;
        let positions: BTreeSet<&u64> = before.accepted_at.keys().chain(after.accepted_at.keys()).collect();
        let accepted = |position: &u64| {
            let before = before.accepted_at.get(position).copied().unwrap_or_default();
            difference(before, after.accepted_at.get(position).copied().unwrap_or(before))
        };
        let accepted = positions.into_iter().map(accepted).collect::<Result<Vec<u64>, _>>()?;
        let a_draft = |tokens: u64| tokens as f64 / drafts as f64;
        Ok((draft_tokens > 0).then(|| Self {
            acceptance_rate: accepted_tokens as f64 / draft_tokens as f64 * 100.0,
            acceptance_length: if drafts > 0 { 1.0 + a_draft(accepted_tokens) } else { 0.0 },
            drafts,
            draft_tokens,
            accepted_tokens,
            rates_by_position: if drafts > 0 { accepted.into_iter().map(a_draft).collect() } else { Vec::new() },
        }))
    }
}

impl Diffusion {
    /// `None` if no canvas was finished. The step that commits a canvas is not one of denoising.
    fn between(before: &DiffusionCounters, after: &DiffusionCounters, seconds: f64) -> Result<Option<Self>, Backwards> {
        let steps = difference(before.denoising_steps, after.denoising_steps)?;
        let canvas_positions = difference(before.canvas_positions, after.canvas_positions)?;
        let committed_tokens = difference(before.committed_tokens, after.committed_tokens)?;
        if steps == 0 || canvas_positions == 0 || committed_tokens == 0 {
            return Ok(None);
        }
        let canvas_length = canvas_positions as f64 / steps as f64;
        let canvases = committed_tokens as f64 / canvas_length;
        let denoising_steps = steps as f64 - canvases;
        Ok((denoising_steps > 0.0).then(|| Self {
            committed_throughput: committed_tokens as f64 / seconds,
            steps_per_canvas: denoising_steps / canvases,
            committed_per_step: committed_tokens as f64 / denoising_steps,
            committed_tokens,
            denoising_steps: denoising_steps as u64,
            canvas_positions,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(drafts: u64, draft_tokens: u64, accepted_tokens: u64, positions: &[u64]) -> Counters {
        let accepted_at = (0..).zip(positions.iter().copied()).collect();
        let speculation = SpeculationCounters { drafts, draft_tokens, accepted_tokens, accepted_at };
        Counters { speculation: Some(speculation), diffusion: None }
    }

    fn diffusion(denoising_steps: u64, canvas_positions: u64, committed_tokens: u64) -> Counters {
        let diffusion = DiffusionCounters { denoising_steps, canvas_positions, committed_tokens };
        Counters { speculation: None, diffusion: Some(diffusion) }
    }

    fn keys(before: &Counters, after: &Counters) -> String {
        serde_json::to_string(&Decoding::between(before, after, 2.0)).unwrap()
    }

    #[test]
    fn acceptance_rates_have_the_keys_order_and_formulas_of_vllm() {
        // Computed with the formulas of `benchmark` in vllm/benchmarks/serve.py of vLLM 0.32, of the same counters.
        let (before, after) = (counters(5, 15, 8, &[5, 3]), counters(10, 33, 17, &[10, 6, 1]));
        insta::assert_snapshot!(keys(&before, &after), @r#"{"spec_decode_acceptance_rate":50.0,"spec_decode_acceptance_length":2.8,"spec_decode_num_drafts":5,"spec_decode_draft_tokens":18,"spec_decode_accepted_tokens":9,"spec_decode_per_position_acceptance_rates":[1.0,0.6,0.2]}"#);
        assert_eq!(keys(&after, &after), "{}", "nothing was drafted");
        assert_eq!(keys(&Counters::default(), &after), "{}", "not known before");
        let uncounted = keys(&counters(5, 1, 0, &[]), &counters(5, 3, 1, &[]));
        assert!(uncounted.contains(r#""spec_decode_acceptance_length":0.0"#), "{uncounted}");
    }

    #[test]
    fn diffusion_has_the_keys_order_and_formulas_of_vllm() {
        let whole = keys(&diffusion(10, 160, 16), &diffusion(50, 800, 80));
        insta::assert_snapshot!(whole, @r#"{"diffusion_committed_throughput":32.0,"diffusion_steps_per_canvas":9.0,"diffusion_committed_per_step":1.7777777777777777,"diffusion_committed_tokens":64,"diffusion_denoising_steps":36,"diffusion_canvas_positions":640}"#);
        for after in [diffusion(10, 160, 16), diffusion(11, 160, 17), diffusion(12, 192, 48)] {
            assert_eq!(keys(&diffusion(10, 160, 16), &after), "{}");
        }
    }

    #[test]
    fn counters_that_went_back_tell_nothing_and_the_result_says_so() {
        let before = counters(10, 33, 17, &[10, 6, 1]);
        for after in [counters(1, 33, 17, &[10, 6, 1]), counters(11, 36, 16, &[10, 6, 1]), counters(11, 36, 18, &[9])] {
            let decoding = Decoding::between(&before, &after, 1.0);
            assert_eq!(decoding.speculation, None);
            assert!(decoding.lost.unwrap().contains("went back"));
        }
    }
}
