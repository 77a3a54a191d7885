//! Tests on the cluster that `make cluster` boots: its API server, engine and registries. They fail without one.

mod agent;
mod agent_rights;
mod bad_input;
mod chart;
mod cli;
mod crash;
mod crds;
mod dev;
mod engine;
mod engines;
mod examples;
mod formats;
mod installation;
mod layer;
mod ledger;
mod life;
mod local;
mod local_dev;
mod local_end;
mod logins;
mod public;
mod push;
mod registry;
mod run;
mod scratch;
mod shell;
mod store;
mod watch;
mod wercker;
mod workshop;
mod world;
mod yml;
mod yml_kept;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{env, path::Path, time::Duration};

/// How to reach the cluster, as its administrator.
async fn config() -> Config {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/kubeconfig");
    let kubeconfig = if env::var_os("KUBECONFIG").is_some() {
        Kubeconfig::from_env().map(Option::unwrap)
    } else {
        Kubeconfig::read_from(ours)
    };
    let kubeconfig = kubeconfig.unwrap_or_else(|error| panic!("no cluster ({error}): run `make cluster` first"));
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(60));
    config
}

/// A client of the cluster. Without a cluster the test fails: nothing is skipped.
pub(crate) async fn client() -> Client {
    let client = Client::try_from(config().await).unwrap();
    if let Err(error) = client.apiserver_version().await {
        panic!("the cluster does not answer ({error}): run `make cluster` first");
    }
    client
}
