//! What the simulated vLLM answers where nothing is generated: a constant vector for each prompt, in vLLM's fields.

use serde::Serialize;
use serde_json::Value;

use crate::api::Api;

/// Numbers of a vector; its length is 1.
const NUMBERS: usize = 256;

#[derive(Serialize)]
struct Pooled<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    data: Vec<Value>,
    usage: Usage,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
}

/// The body of the answer with the number `id` to `prompts` prompts, which have `prompt_tokens` tokens.
pub fn body(api: Api, id: u64, model: &str, prompts: usize, prompt_tokens: usize) -> Vec<u8> {
    let vector = vec![1.0 / (NUMBERS as f64).sqrt(); NUMBERS];
    let (name, object, field) = match api {
        Api::Pooling => ("pool", "pooling", "data"),
        _ => ("embd", "embedding", "embedding"),
    };
    let entry = |index| serde_json::json!({"index": index, "object": object, field: vector});
    let pooled = Pooled {
        id: format!("{name}-sim-{id}"),
        object: "list",
        created: 0,
        model,
        data: (0..prompts).map(entry).collect(),
        usage: Usage { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0 },
    };
    // Strings and numbers can always be serialized.
    serde_json::to_vec(&pooled).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_vector_for_each_prompt_and_vllms_fields() {
        let of = |api| serde_json::from_slice::<Value>(&body(api, 7, "m", 2, 5)).unwrap();
        let (embeddings, pooled) = (of(Api::Embeddings), of(Api::Pooling));
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&embeddings), "id object created model data usage");
        assert_eq!(
            (keys(&embeddings["data"][1]), keys(&pooled["data"][1])),
            ("index object embedding".into(), "index object data".into())
        );
        assert_eq!(embeddings["usage"]["prompt_tokens"], 5);
        assert_eq!(embeddings["data"][1]["embedding"].as_array().unwrap().len(), NUMBERS);
        assert_eq!((&pooled["id"], &pooled["data"][1]["object"]), (&"pool-sim-7".into(), &"pooling".into()));
    }
}
