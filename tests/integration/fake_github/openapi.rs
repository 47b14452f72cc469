//! GitHub's OpenAPI description as a judge of requests and answers.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use url::form_urlencoded;

const DESCRIPTION: &str = include_str!("../../data/github/openapi.json");
/// What GitHub documents for every operation, but describes for few: errors of the token and of its limits.
const ANY_ERROR: [u16; 5] = [401, 403, 404, 429, 502];

pub struct OpenApi {
    document: Value,
    /// By the schema's text.
    compiled: Mutex<HashMap<String, jsonschema::Validator>>,
}

impl Default for OpenApi {
    fn default() -> Self {
        let mut document: Value = serde_json::from_str(DESCRIPTION).unwrap();
        allow_null(&mut document);
        Self { document, compiled: Mutex::default() }
    }
}

impl OpenApi {
    pub fn check_request(&self, method: &str, path: &str, query: &str, body: &Value) -> Vec<String> {
        if is_delete_comment(method, path) {
            return Vec::new();
        }
        let Some((template, values)) = self.template(path) else { return vec!["no such path".to_owned()] };
        let Some(operation) = self.operation(&template, method) else { return vec!["no such operation".to_owned()] };
        let declared = self.declared(operation);
        let mut violations = Vec::new();
        let of = |place: &'static str| declared.iter().filter(move |parameter| parameter["in"] == place);
        for (name, value) in values {
            let parameter = of("path").find(|parameter| parameter["name"] == name.as_str());
            violations.extend(parameter.into_iter().flat_map(|parameter| self.check_text(parameter, &value)));
        }
        for (name, value) in parameters(query) {
            match of("query").find(|parameter| parameter["name"] == name.as_str()) {
                Some(parameter) => violations.extend(self.check_text(parameter, &value)),
                None => violations.push(format!("no query parameter `{name}`")),
            }
            if name == "per_page" && value.parse::<u32>().is_ok_and(|size| size > 100) {
                violations.push("`per_page` is at most 100".to_owned());
            }
        }
        match operation.pointer("/requestBody/content/application~1json/schema") {
            Some(schema) => violations.extend(self.check(schema, body)),
            None if !body.is_null() => violations.push("no request body is described".to_owned()),
            None => {}
        }
        violations
    }

    pub fn check_answer(&self, method: &str, path: &str, status: u16, answer: &Value) -> Vec<String> {
        if is_delete_comment(method, path) || status == 302 {
            return Vec::new();
        }
        let Some(operation) = self.template(path).and_then(|(template, _)| self.operation(&template, method)) else {
            return Vec::new();
        };
        let mut response = &operation["responses"][status.to_string().as_str()];
        if let Some(reference) = response["$ref"].as_str() {
            response = self.document.pointer(reference.trim_start_matches('#')).unwrap();
        }
        match response.pointer("/content/application~1json/schema") {
            Some(schema) => self.check(schema, answer),
            None if ANY_ERROR.contains(&status) => {
                self.check(&json!({"$ref": "#/components/schemas/basic-error"}), answer)
            }
            None => vec![format!("status {status} is not described")],
        }
    }

    fn operation(&self, template: &str, method: &str) -> Option<&Value> {
        self.document["paths"][template].get(method.to_lowercase())
    }

    fn declared(&self, operation: &Value) -> Vec<Value> {
        let resolve = |parameter: &Value| match parameter["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
            None => parameter.clone(),
        };
        operation["parameters"].as_array().into_iter().flatten().map(resolve).collect()
    }

    /// The described path that this one is an instance of, and the values of its parameters.
    fn template(&self, path: &str) -> Option<(String, Vec<(String, String)>)> {
        // The one parameter that holds slashes.
        let path = match path.split_once("/contents/") {
            Some((root, file)) => format!("{root}/contents/{}", file.replace('/', "%2F")),
            None => path.to_owned(),
        };
        let parts: Vec<&str> = path.split('/').collect();
        self.document["paths"].as_object().unwrap().keys().find_map(|template| {
            let pattern: Vec<&str> = template.split('/').collect();
            if pattern.len() != parts.len() {
                return None;
            }
            let mut values = Vec::new();
            for (word, part) in pattern.iter().zip(&parts) {
                match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                    Some(name) if !part.is_empty() => values.push((name.to_owned(), (*part).to_owned())),
                    _ if word == part => {}
                    _ => return None,
                }
            }
            Some((template.clone(), values))
        })
    }

    /// A path or query parameter: a number where the schema wants one, else a text.
    fn check_text(&self, parameter: &Value, text: &str) -> Vec<String> {
        let value = match parameter["schema"]["type"].as_str() {
            Some("integer") => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
            Some("boolean") => text.parse::<bool>().map_or_else(|_| json!(text), |truth| json!(truth)),
            _ => json!(text),
        };
        self.check(&parameter["schema"], &value)
    }

    fn check(&self, schema: &Value, instance: &Value) -> Vec<String> {
        let mut compiled = self.compiled.lock().unwrap();
        let validator = compiled.entry(schema.to_string()).or_insert_with(|| {
            let whole = json!({"allOf": [schema], "components": self.document["components"]});
            let options = jsonschema::options().with_draft(jsonschema::Draft::Draft4).should_validate_formats(true);
            options.build(&whole).unwrap()
        });
        validator.iter_errors(instance).map(|error| format!("{} at `{}`", error, error.instance_path)).collect()
    }
}

pub fn parameters(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Documented at `/rest/issues/comments#delete-an-issue-comment`; our part of the description lacks it.
fn is_delete_comment(method: &str, path: &str) -> bool {
    method == "DELETE" && path.starts_with("/repos/") && path.contains("/issues/comments/")
}

/// OpenAPI 3.0 says `nullable: true` where JSON Schema lists `null` among the types.
fn allow_null(schema: &mut Value) {
    match schema {
        Value::Array(entries) => entries.iter_mut().for_each(allow_null),
        Value::Object(object) => {
            object.values_mut().for_each(allow_null);
            if object.get("nullable") == Some(&Value::Bool(true)) {
                object.remove("nullable");
                let inner = Value::Object(std::mem::take(object));
                object.insert("anyOf".to_owned(), json!([{"type": "null"}, inner]));
            }
        }
        _ => {}
    }
}
