//! The artifact server's certificate, as its files have it now.
//!
//! [`super::listen`] takes the acceptor for each connection anew. Whoever renews the certificate, cert-manager or an
//! administrator, writes the files; nobody has to start the server again.
//!
//! **Invariant:** a certificate that cannot be used never replaces one that can.

use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);

/// The files of a certificate.
#[derive(Clone)]
pub(super) struct Files {
    /// Certificate chain, in PEM.
    pub(super) chain: PathBuf,
    /// Its key, in PEM.
    pub(super) key: PathBuf,
}

type Pem = (Vec<u8>, Vec<u8>);

impl Files {
    /// What they hold now, and after each change.
    ///
    /// # Errors
    /// They cannot be read, or are not a certificate with its key.
    pub(super) fn follow(self) -> anyhow::Result<watch::Receiver<TlsAcceptor>> {
        let pem = self.read()?;
        let (sender, receiver) = watch::channel(self.acceptor(&pem)?);
        tokio::spawn(async move { self.look(pem, &sender).await });
        Ok(receiver)
    }

    async fn look(&self, mut last: Pem, sender: &watch::Sender<TlsAcceptor>) {
        while !sender.is_closed() {
            tokio::time::sleep(LOOK).await;
            let pem = match self.read() {
                Ok(pem) if pem != last => pem,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!("the certificate stays as it was: {error:#}");
                    continue;
                }
            };
            match self.acceptor(&pem) {
                Ok(acceptor) => {
                    tracing::info!("the certificate was renewed");
                    sender.send_replace(acceptor);
                }
                Err(error) => tracing::warn!("the certificate stays as it was: {error:#}"),
            }
            // Told once, whatever came of it.
            last = pem;
        }
    }

    fn read(&self) -> anyhow::Result<Pem> {
        let read = |file: &Path| std::fs::read(file).with_context(|| format!("read {}", file.display()));
        Ok((read(&self.chain)?, read(&self.key)?))
    }

    fn acceptor(&self, (chain_pem, key_pem): &Pem) -> anyhow::Result<TlsAcceptor> {
        let (chain, key) = (self.chain.display(), self.key.display());
        let certificates = rustls_pemfile::certs(&mut chain_pem.as_slice()).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.with_context(|| format!("read {chain}"))?;
        let key_der = rustls_pemfile::private_key(&mut key_pem.as_slice()).with_context(|| format!("read {key}"))?;
        let key_der = key_der.with_context(|| format!("{key} holds no key in PEM"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = builder.with_no_client_auth().with_single_cert(certificates, key_der);
        Ok(TlsAcceptor::from(Arc::new(config.context("use the certificate")?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../tests/it/fast/registry/tls/localhost.pem");
    const KEY: &[u8] = include_bytes!("../../tests/it/fast/registry/tls/localhost.key");

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_used_and_a_torn_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { chain: dir.path().join("tls.crt"), key: dir.path().join("tls.key") };
        std::fs::write(&files.chain, CERTIFICATE).unwrap();
        assert!(files.clone().follow().is_err(), "there is no key");
        std::fs::write(&files.key, KEY).unwrap();
        let mut followed = files.clone().follow().unwrap();
        std::fs::write(&files.chain, &CERTIFICATE[..100]).unwrap();
        tokio::time::sleep(LOOK * 3).await;
        assert!(!followed.has_changed().unwrap());
        std::fs::write(&files.chain, [CERTIFICATE, b"\n"].concat()).unwrap();
        followed.changed().await.unwrap();
        tokio::time::sleep(LOOK * 3).await;
        followed.mark_unchanged();
        tokio::time::sleep(LOOK * 3).await;
        assert!(!followed.has_changed().unwrap(), "nothing was renewed since");
    }
}
