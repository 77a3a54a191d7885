//! The artifact server's command line.
//!
//! `cli` parses it; `mod` reads the settings.
//!
//! **Invariant:** files named here are the administrator's own; logins come from the environment, never from here.

use super::{
    retention::Retention,
    s3::S3,
    store::{Store, StoreError},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Settings of the artifact server.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "artifacts")]
pub struct Options {
    /// Store in this directory
    #[arg(long, value_name = "DIR", required_unless_present = "s3_bucket", conflicts_with = "s3_bucket")]
    pub directory: Option<PathBuf>,
    /// Store in this bucket of S3; the login comes from the environment, as AWS_ACCESS_KEY_ID and so on
    #[arg(long, value_name = "NAME")]
    pub s3_bucket: Option<String>,
    /// Where S3 is, as https://HOST; left out: AWS
    #[arg(long, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub s3_region: String,
    /// What stands before the names of all objects
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub s3_prefix: String,
    /// The bucket's name is a part of the host's, as with AWS
    #[arg(long)]
    pub s3_virtual_host: bool,
    /// The endpoint may be plain HTTP
    #[arg(long)]
    pub s3_insecure: bool,
    /// Certificate authorities of the endpoint, in PEM
    #[arg(long, value_name = "FILE")]
    pub s3_ca: Option<PathBuf>,
    /// Containers older than this are removed
    #[arg(long, value_name = "TIME", value_parser = crate::api::duration::parse)]
    pub max_age: Option<Duration>,
    /// So many containers of a Pipeline are kept
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_count: Option<u32>,
    /// Where agents and people are served
    #[arg(long, default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Certificate chain, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
    /// Where health is served
    #[arg(long, default_value = "[::]:8081")]
    pub listen_health: SocketAddr,
    /// Namespace of the agents
    #[arg(long = "own-namespace", env = "POD_NAMESPACE", default_value = "windlass-system")]
    pub own_namespace: String,
    /// Service account of the agents
    #[arg(long, value_name = "NAME", default_value = "windlass-agent")]
    pub agent_service_account: String,
}

impl Options {
    /// The store that is asked for.
    pub(super) fn store(&self) -> Result<Store, StoreError> {
        if let Some(directory) = &self.directory {
            return Store::directory(directory);
        }
        Store::s3(&S3 {
            bucket: self.s3_bucket.clone().unwrap_or_default(),
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            prefix: self.s3_prefix.clone(),
            virtual_host: self.s3_virtual_host,
            insecure: self.s3_insecure,
            ca: self.s3_ca.clone(),
            keys: None,
        })
    }

    /// What is kept.
    pub(super) fn retention(&self) -> Retention {
        Retention { max_age: self.max_age, max_count: self.max_count.and_then(|count| usize::try_from(count).ok()) }
    }
}
