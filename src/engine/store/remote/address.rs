//! Addresses of remote stores, and the clients for them.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};

use crate::error::{Error, Result};

/// How long a connection may take to be made.
const CONNECT: &str = "5 seconds";
/// How long one request may take; a part of a large blob on a slow line.
const REQUEST: &str = "600 seconds";

/// The client for an address, and where in it the store begins.
pub(super) fn connect(url: &str) -> Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let wrong = |message: String| Error::RemoteAddress { url: url.to_owned(), message };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme".to_owned()))?;
    if scheme == "file" {
        let folder = rest.strip_prefix("localhost").unwrap_or(rest);
        let root = ObjectPath::from_absolute_path(folder).ok().filter(|_| folder.starts_with('/'));
        let root = root.ok_or_else(|| wrong("the folder must be an absolute path".to_owned()))?;
        return Ok((Arc::new(LocalFileSystem::new()), root));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("it names no bucket".to_owned()));
    }
    let root = ObjectPath::parse(prefix.trim_end_matches('/')).map_err(|error| wrong(error.to_string()))?;
    let limits = [(ClientConfigKey::ConnectTimeout, CONNECT), (ClientConfigKey::Timeout, REQUEST)];
    let failed = |error: object_store::Error| wrong(super::shown(&error));
    let objects: Arc<dyn ObjectStore> = match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry());
            let set =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(limits.into_iter().fold(builder, set).build().map_err(failed)?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry());
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Arc::new(limits.into_iter().fold(builder, set).build().map_err(failed)?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry());
            let set =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(limits.into_iter().fold(builder, set).build().map_err(failed)?)
        }
        other => return Err(wrong(format!("{other:?} is no scheme that is known"))),
    };
    Ok((objects, root))
}

/// A server that is away for long is gone on without.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_says_what_is_wrong() {
        for (url, part) in [
            ("bucket/x", "no scheme"),
            ("file://folder", "absolute"),
            ("s3:///x", "no bucket"),
            ("ftp://host/x", "\"ftp\""),
            ("s3://b/a//c", "a//c"),
        ] {
            let error = connect(url).expect_err(url);
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("s3://")), "{url}");
        }
    }

    #[test]
    fn a_folder_and_a_bucket_have_their_roots() {
        assert_eq!(connect("file:///data/a%20b").expect("a folder").1.to_string(), "data/a%20b");
        assert_eq!(connect("s3://bucket/team/cache/").expect("a bucket").1.as_ref(), "team/cache");
    }
}
