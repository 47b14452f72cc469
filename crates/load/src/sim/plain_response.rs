//! Responses of the simulated vLLM that have no pace: lookups and errors.

use serde::Serialize;

/// The version that `/version` reports.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+sim");

/// Message of a server that is not ready.
pub const LOADING: &str = "the model is still loading";

/// A complete HTTP response.
pub fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        404 => "Not Found",
        _ if status < 500 => "Bad Request",
        _ => "Service Unavailable",
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A response that sends the client to `location`.
pub fn redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// A response with a JSON body.
fn json(status: u16, value: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers can always be serialized.
    response(status, "application/json", &serde_json::to_vec(value).unwrap_or_default())
}

/// An error in the format of vLLM's errors.
pub fn error(status: u16, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        message: &'a str,
        r#type: &'static str,
        code: u16,
    }
    #[derive(Serialize)]
    struct ErrorResponse<'a> {
        error: ErrorBody<'a>,
    }
    let r#type = if status < 500 { "BadRequestError" } else { "InternalServerError" };
    json(status, &ErrorResponse { error: ErrorBody { message, r#type, code: status } })
}

/// The response to `GET path` of a server of `model` that is `ready` or not.
pub fn lookup(path: &str, model: &str, ready: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    #[derive(Serialize)]
    struct Model<'a> {
        id: &'a str,
        object: &'static str,
        owned_by: &'static str,
        root: &'a str,
    }
    #[derive(Serialize)]
    struct Models<'a> {
        object: &'static str,
        data: [Model<'a>; 1],
    }
    match path {
        "/version" => json(200, &Version { version: VERSION }),
        "/health" | "/v1/models" if !ready => error(503, LOADING),
        "/health" => response(200, "text/plain", b""),
        "/v1/models" => {
            let model = Model { id: model, object: "model", owned_by: "vllm-perf", root: model };
            json(200, &Models { object: "list", data: [model] })
        }
        _ => error(404, &format!("there is no `{path}`")),
    }
}
