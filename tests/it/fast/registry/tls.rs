//! Certificates: trusted, unknown, and none at all.
//!
//! `tls/` holds a CA, a certificate of it for `localhost` with its key, and another CA. They are for these tests only; the
//! CA's key is gone.

use super::{
    Told,
    fake::{Auth, Registry},
    job, patience,
};
use rustls::{ServerConfig, ServerConnection, Stream};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use windlass::registry::{Client, PushError, Session, Trust, digest::Digest};

const CA: &str = include_str!("tls/ca.pem");
const OTHER_CA: &str = include_str!("tls/other.pem");

/// A TLS server that answers 404 to everything. Its thread ends with the test's process.
fn server() -> String {
    let certificates =
        rustls_pemfile::certs(&mut &include_bytes!("tls/localhost.pem")[..]).map(Result::unwrap).collect();
    let key = rustls_pemfile::private_key(&mut &include_bytes!("tls/localhost.key")[..]).unwrap().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = Stream::new(&mut connection, &mut tcp);
            let mut request = [0; 4096];
            // A client that does not trust the certificate ends here.
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    format!("localhost:{port}")
}

async fn ask(trust: Trust, host: &str) -> Result<Option<Digest>, PushError> {
    let client = Client::with_patience(trust, patience()).unwrap();
    let repository = job(host, &Told::default()).repository;
    Session::new(client, repository, None, CancellationToken::new()).head_manifest("v1").await
}

#[tokio::test]
async fn a_certificate_of_the_administrators_ca() {
    let host = server();
    let trust = Trust { ca_pem: vec![(host.clone(), CA.into())], ..Trust::default() };
    assert_eq!(ask(trust, &host).await, Ok(None));
}

#[tokio::test]
async fn a_certificate_of_nobody_known() {
    let host = server();
    // A CA for another registry says nothing of this one, and another CA neither.
    let address = host.replace("localhost", "127.0.0.1").parse().unwrap();
    for ca in [(host.clone(), OTHER_CA.to_owned()), ("localhost".into(), CA.into())] {
        let trust = Trust { ca_pem: vec![ca], addresses: vec![(host.clone(), address)], ..Trust::default() };
        let error = ask(trust, &host).await.unwrap_err();
        assert_eq!((error.reason, error.transient), ("UntrustedCertificate", false), "{error}");
        assert!(error.message.contains("the administrator can add the CA"), "{error}");
    }
}

/// The agent reads the files again while it runs.
#[tokio::test]
async fn a_ca_that_is_replaced() {
    let host = server();
    let trust = |ca: &str| Trust { ca_pem: vec![(host.clone(), ca.into())], ..Trust::default() };
    let client = Client::with_patience(trust(OTHER_CA), patience()).unwrap();
    let repository = job(&host, &Told::default()).repository;
    let session = Session::new(client.clone(), repository, None, CancellationToken::new());
    assert_eq!(session.head_manifest("v1").await.unwrap_err().reason, "UntrustedCertificate");
    assert!(client.trust_anew(trust("torn")).is_err());
    assert_eq!(session.head_manifest("v1").await.unwrap_err().reason, "UntrustedCertificate");
    client.trust_anew(trust(CA)).unwrap();
    assert_eq!(session.head_manifest("v1").await, Ok(None));
}

#[tokio::test]
async fn a_registry_without_tls_must_be_listed() {
    let registry = Registry::start(Auth::Open).await;
    let trust = Trust { ca_pem: vec![(registry.host.clone(), CA.into())], ..Trust::default() };
    let error = ask(trust, &registry.host).await.unwrap_err();
    assert_eq!((error.reason, error.transient), ("RegistryUnreachable", false), "{error}");
    assert!(error.message.contains("does not speak TLS"), "{error}");
    assert_eq!(registry.state().log.len(), 0);
}
