//! Downloads a data set from the Hugging Face hub: bounded, under a temporary name, with its checksum.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::environment::Environment;
use crate::system::data_sets::HubFile;
use crate::system::retrying_http;

/// Most bytes of a data set: ShareGPT has 0.7 GB.
pub const LIMIT: u64 = 8 << 30;

/// How long the hub may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a download may take.
const WHOLE: Duration = Duration::from_secs(3600);

/// Attempts after the first, for answers that say that the hub is busy and for lost connections.
const RETRIES: u32 = 2;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    pub bytes: u64,
    pub sha256: String,
}

/// Downloads `file` to its place. With `sha256`, a file that has another one is deleted. `pause` is the wait before the first
/// further attempt, and doubles.
///
/// # Errors
/// The hub does not give the file, it is longer than `limit`, it has another checksum, or it cannot be written.
pub async fn download(
    file: &HubFile,
    sha256: Option<&str>,
    limit: u64,
    pause: Duration,
    environment: &Environment,
) -> Result<Downloaded> {
    let client = client()?;
    let mut retries = 0;
    loop {
        let attempt = attempt(&client, file, sha256, limit, environment).await;
        match attempt {
            Ok(downloaded) => return Ok(downloaded),
            Err(Failure::MayPass(_)) if retries < RETRIES => {
                sleep(pause * 2_u32.pow(retries)).await;
                retries += 1;
            }
            Err(Failure::MayPass(error) | Failure::Final(error)) => return Err(error),
        }
    }
}

/// Why an attempt failed.
enum Failure {
    MayPass(anyhow::Error),
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

fn client() -> Result<Client> {
    let agent = concat!("vllm-perf/", env!("CARGO_PKG_VERSION"));
    let client = Client::builder()
        .redirect(retrying_http::redirects())
        .user_agent(agent)
        .connect_timeout(SILENCE)
        .read_timeout(SILENCE);
    client.timeout(WHOLE).build().context("cannot make an HTTP client")
}

async fn attempt(
    client: &Client,
    file: &HubFile,
    sha256: Option<&str>,
    limit: u64,
    environment: &Environment,
) -> Result<Downloaded, Failure> {
    let mut request = client.get(file.url.clone());
    if let Some(token) = environment.secret("HF_TOKEN") {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| anyhow!("HF_TOKEN has characters that are not allowed in a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let response = request.send().await.map_err(|error| lost(&error))?;
    check_status(response.status(), environment.get("HF_TOKEN").is_some())?;
    if let Some(length) = response.content_length().filter(|length| *length > limit) {
        return Err(anyhow!("it has {length} bytes, and at most {limit} are downloaded").into());
    }
    save(response, &file.place, sha256, limit).await
}

fn check_status(status: StatusCode, has_token: bool) -> Result<(), Failure> {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !has_token => ": set HF_TOKEN",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": HF_TOKEN does not give access to it",
        _ => "",
    };
    let error = || anyhow!("the hub answered {status}{hint}");
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::TOO_MANY_REQUESTS => Err(Failure::MayPass(error())),
        _ if status.is_server_error() => Err(Failure::MayPass(error())),
        _ => Err(Failure::Final(error())),
    }
}

fn lost(error: &reqwest::Error) -> Failure {
    let mut causes: Vec<String> = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    let why = causes.last().cloned().unwrap_or_else(|| "no reason is known".to_owned());
    let error_of = anyhow!("the hub cannot be reached: {why}");
    if error.is_redirect() { Failure::Final(error_of) } else { Failure::MayPass(error_of) }
}

/// Writes the body to `place`.
async fn save(mut response: Response, place: &Path, sha256: Option<&str>, limit: u64) -> Result<Downloaded, Failure> {
    let cannot = || format!("cannot write `{}`", place.display());
    let folder = place.parent().with_context(cannot)?;
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let mut temporary = tempfile::Builder::new().prefix(".vllm-perf-").tempfile_in(folder).with_context(cannot)?;
    let mut hash = Sha256::new();
    let mut bytes: u64 = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(anyhow!("it has more than {limit} bytes").into());
        }
        hash.update(&chunk);
        temporary.write_all(&chunk).with_context(cannot)?;
    }
    let found = hex(&hash.finalize());
    check(&found, sha256)?;
    // The user of a container reads it, too.
    temporary.as_file().set_permissions(Permissions::from_mode(0o644)).with_context(cannot)?;
    temporary.as_file().sync_all().with_context(cannot)?;
    temporary.persist(place).map_err(|error| error.error).with_context(cannot)?;
    Ok(Downloaded { bytes, sha256: found })
}

/// Checks the checksum of a file of this machine.
///
/// # Errors
/// It has another one, or it cannot be read.
pub fn check_file(path: &Path, sha256: &str) -> Result<()> {
    let cannot = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).with_context(cannot)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    check(&hex(&hash.finalize()), Some(sha256))
}

fn check(found: &str, wanted: Option<&str>) -> Result<()> {
    ensure!(wanted.is_none_or(|wanted| wanted == found), "{}", {
        let wanted = wanted.unwrap_or_default();
        format!("its sha256 is {found}, and vllm-perf.yml has {wanted} for it")
    });
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::{Request, State};
    use axum::response::{IntoResponse, Redirect};
    use url::Url;

    use super::*;

    const SHA256: &str = "ab530a13e45914982b79f9b7e3fba994cfd1f3fb22f71cea1afbf02b460c6d1d";

    /// What a server was asked: path and token.
    type Asked = Arc<Mutex<Vec<String>>>;

    /// A server on loopback that answers by path. It notes what it is asked.
    async fn server(store: Option<String>) -> (String, Asked) {
        let asked = Asked::default();
        let answer = async |State((asked, store)): State<(Asked, Option<String>)>, request: Request| {
            let token = request.headers().get("authorization").map_or("no token", |value| value.to_str().unwrap());
            let path = request.uri().path().to_owned();
            let count = {
                let mut asked = asked.lock().unwrap();
                asked.push(format!("{path} {token}"));
                asked.len()
            };
            match (path.as_str(), store) {
                ("/file", Some(store)) => Redirect::temporary(&format!("{store}/file")).into_response(),
                ("/out", _) => Redirect::temporary("http://hub.example/file").into_response(),
                ("/gated", _) => StatusCode::FORBIDDEN.into_response(),
                ("/busy", _) if count < 3 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                ("/down", _) => StatusCode::BAD_GATEWAY.into_response(),
                ("/gone", _) => StatusCode::NOT_FOUND.into_response(),
                _ => "content".into_response(),
            }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state((Arc::clone(&asked), store));
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (address, asked)
    }

    async fn fetch(url: &str, folder: &Path, sha256: Option<&str>, limit: u64) -> Result<Downloaded, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = HubFile { url: Url::parse(url).unwrap(), place: folder.join("sets/a.json") };
        let environment: Environment = [("HF_TOKEN", "hf_canary")].into_iter().collect();
        let pause = Duration::from_millis(1);
        download(&file, sha256, limit, pause, &environment).await.map_err(|error| format!("{error:#}"))
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join("sets")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn a_data_set_is_downloaded_with_its_checksum_and_the_token_stays_with_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let (store, asked_of_store) = server(None).await;
        let (hub, asked_of_hub) = server(Some(store)).await;
        let downloaded = fetch(&format!("{hub}/file"), folder.path(), Some(&sha256_of("content")), 7).await.unwrap();
        assert_eq!(downloaded, Downloaded { bytes: 7, sha256: sha256_of("content") });
        assert_eq!(std::fs::read_to_string(folder.path().join("sets/a.json")).unwrap(), "content");
        let mode = std::fs::metadata(folder.path().join("sets/a.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(*asked_of_hub.lock().unwrap(), ["/file Bearer hf_canary"]);
        assert_eq!(*asked_of_store.lock().unwrap(), ["/file no token"]);
        assert!(check_file(&folder.path().join("sets/a.json"), &sha256_of("content")).is_ok());
    }

    fn sha256_of(text: &str) -> String {
        hex(&Sha256::digest(text))
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_one_that_was_asked_for_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, asked) = server(None).await;
        let error = async |path: &str, sha256: Option<&str>, limit| {
            fetch(&format!("{hub}/{path}"), folder.path(), sha256, limit).await.unwrap_err()
        };
        let errors = [
            error("file", None, 6).await,
            error("file", Some(SHA256), 7).await.replace(&sha256_of("content"), "OTHER").replace(SHA256, "WANTED"),
            error("gated", None, 7).await,
            error("gone", None, 7).await,
            error("out", None, 7).await,
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        it has 7 bytes, and at most 6 are downloaded
        its sha256 is OTHER, and vllm-perf.yml has WANTED for it
        the hub answered 403 Forbidden: HF_TOKEN does not give access to it
        the hub answered 404 Not Found
        the hub cannot be reached: a redirect to plain http
        ");
        assert_eq!((files(folder.path()), asked.lock().unwrap().len()), (Vec::new(), 5));
        assert_eq!(error("down", None, 7).await, "the hub answered 502 Bad Gateway");
        assert_eq!(asked.lock().unwrap().len(), 8, "a busy hub is asked three times");
        fetch(&format!("{}/busy", server(None).await.0), folder.path(), None, 7).await.unwrap();
        assert_eq!(files(folder.path()), ["a.json"]);
    }
}
