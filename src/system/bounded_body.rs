//! Reads the body of an HTTP answer up to a limit.

use std::error::Error;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// The whole body.
///
/// # Errors
/// It has more than `limit` bytes, or the connection broke off.
pub async fn read<B>(body: B, limit: usize) -> Result<Bytes>
where
    B: BodyExt<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(anyhow!("the answer has more than {limit} bytes")),
        Err(error) => Err(anyhow::Error::from_boxed(error)),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_an_error_that_names_the_limit() {
        let body = || Full::new(Bytes::from_static(b"12345"));
        assert_eq!(read(body(), 5).await.unwrap(), "12345");
        assert_eq!(read(body(), 4).await.unwrap_err().to_string(), "the answer has more than 4 bytes");
    }
}
