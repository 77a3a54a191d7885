//! The manifest of an image: what a door makes of the engine's, and what one that is stored lists.
//!
//! The door writes manifests; the artifact server asks who may read what and what is still needed, `windlass pull` what to
//! fetch.
//!
//! **Invariant:** pure. A manifest is of one family throughout, Docker's or OCI's, and holds the rebuilt config and the engine's
//! layers, nothing else.

use crate::registry::digest::Digest;
use serde::{Deserialize, Serialize};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Kinds of layers in both families; some tools write Docker's zstd, but registries do not know it.
const LAYERS: [(&str, &str); 4] = [
    (DOCKER_GZIP, "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"),
];
const DOCKER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Most layers of an image; engines stop at 127.
const MAX_LAYERS: usize = 500;

/// An image: its config and layers.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// Its config.
    pub config: Digest,
    /// Bytes of its config.
    pub config_size: u64,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    docker: bool,
}

/// A layer of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the layer as it is packed.
    pub digest: Digest,
    /// Bytes of it.
    pub size: u64,
    kind: String,
    urls: Vec<String>,
}

impl Layer {
    /// Whether the layer is kept elsewhere and not pushed, as those of Windows.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
    }
}

#[derive(Deserialize)]
struct Read {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<ReadBlob>,
    #[serde(default)]
    layers: Vec<ReadBlob>,
    manifests: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ReadBlob {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    config: WrittenBlob<'a>,
    layers: Vec<WrittenBlob<'a>>,
}

#[derive(Serialize)]
struct WrittenBlob<'a> {
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    urls: &'a [String],
}

impl Image {
    /// Reads a manifest; `content_type` counts if it does not say what it is.
    ///
    /// # Errors
    /// It is not the manifest of one image; with what is wrong.
    pub fn read(bytes: &[u8], content_type: &str) -> Result<Self, String> {
        let read: Read = serde_json::from_slice(bytes).map_err(|error| format!("its manifest is not one: {error}"))?;
        let Some(config) = read.config.filter(|_| read.manifests.is_none()) else {
            return Err("it is an index of several images".into());
        };
        if read.layers.len() > MAX_LAYERS {
            return Err(format!("it has {} layers; {MAX_LAYERS} are the most", read.layers.len()));
        }
        let digest =
            |text: &str| Digest::parse(text).ok_or_else(|| "its manifest names a digest that is none".to_owned());
        let layers: Vec<_> = read
            .layers
            .into_iter()
            .map(|blob| {
                Ok(Layer { digest: digest(&blob.digest)?, size: blob.size, kind: blob.media_type, urls: blob.urls })
            })
            .collect::<Result<_, String>>()?;
        let kind = read.media_type.as_deref().unwrap_or(content_type);
        // zstd exists in OCI only.
        let docker = kind == DOCKER && layers.iter().all(|layer| !is_zstd(&layer.kind));
        Ok(Self { config: digest(&config.digest)?, config_size: config.size, layers, docker })
    }

    /// An image of one gzipped layer, in Docker's family, which every registry knows.
    pub(super) fn of_layer(config: Digest, digest: Digest, size: u64) -> Self {
        let layer = Layer { digest, size, kind: DOCKER_GZIP.to_owned(), urls: Vec::new() };
        Self { config, config_size: 0, layers: vec![layer], docker: true }
    }

    /// The same in OCI's family, as archives of images have it.
    pub(super) fn into_oci(self) -> Self {
        Self { docker: false, ..self }
    }

    /// The media type of its manifest.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        if self.docker { DOCKER } else { OCI }
    }

    /// All that belongs to the image beside its manifest, with sizes: the config first, then the layers that are not kept
    /// elsewhere. None comes twice.
    #[must_use]
    pub fn blobs(&self) -> Vec<(&Digest, u64)> {
        let layers = self.layers.iter().filter(|layer| !layer.is_foreign());
        let mut blobs = vec![(&self.config, self.config_size)];
        for layer in layers {
            if blobs.iter().all(|(known, _)| **known != layer.digest) {
                blobs.push((&layer.digest, layer.size));
            }
        }
        blobs
    }

    /// Writes the manifest with another config. Gives media type and bytes: the same for the same image.
    pub(super) fn write(&self, config: &Digest, config_size: u64) -> Result<(&'static str, Vec<u8>), String> {
        let (media_type, config_type) = if self.docker { (DOCKER, DOCKER_CONFIG) } else { (OCI, OCI_CONFIG) };
        let layers = self.layers.iter().map(|layer| WrittenBlob {
            media_type: self.kind_of(layer),
            digest: layer.digest.as_str(),
            size: layer.size,
            urls: &layer.urls,
        });
        let written = Written {
            schema_version: 2,
            media_type,
            config: WrittenBlob { media_type: config_type, digest: config.as_str(), size: config_size, urls: &[] },
            layers: layers.collect(),
        };
        let bytes = serde_json::to_vec(&written).map_err(|error| error.to_string())?;
        Ok((media_type, bytes))
    }

    /// Bytes of config and layers.
    pub(super) fn size(&self, config_size: u64) -> u64 {
        self.layers.iter().fold(config_size, |sum, layer| sum.saturating_add(layer.size))
    }

    fn kind_of<'a>(&self, layer: &'a Layer) -> &'a str {
        if is_zstd(&layer.kind) {
            return OCI_ZSTD;
        }
        let pair = LAYERS.iter().find(|(docker, oci)| layer.kind == *docker || layer.kind == *oci);
        pair.map_or(&layer.kind, |(docker, oci)| if self.docker { docker } else { oci })
    }
}

fn is_zstd(kind: &str) -> bool {
    kind == DOCKER_ZSTD || kind == OCI_ZSTD
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn engines(media_type: &str, layers: &[&str]) -> Vec<u8> {
        let layers: Vec<_> = layers
            .iter()
            .map(|kind| serde_json::json!({"mediaType": kind, "digest": digest(2).as_str(), "size": 20, "annotations": {"a": "b"}}))
            .collect();
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "annotations": {"x": "y"},
            "config": {"mediaType": "application/x", "digest": digest(1).as_str(), "size": 10}, "layers": layers,
        }))
        .unwrap()
    }

    #[rstest]
    #[case(DOCKER, LAYERS[0].1, DOCKER, DOCKER_CONFIG, LAYERS[0].0)]
    #[case(DOCKER, LAYERS[1].0, DOCKER, DOCKER_CONFIG, LAYERS[1].0)]
    #[case(OCI, LAYERS[0].0, OCI, OCI_CONFIG, LAYERS[0].1)]
    #[case(OCI, "application/other", OCI, OCI_CONFIG, "application/other")]
    #[case(DOCKER, DOCKER_ZSTD, OCI, OCI_CONFIG, OCI_ZSTD)]
    fn one_family(#[case] from: &str, #[case] layer: &str, #[case] kind: &str, #[case] config: &str, #[case] to: &str) {
        let image = Image::read(&engines(from, &[layer]), "").unwrap();
        assert_eq!((image.config.clone(), image.size(7)), (digest(1), 27));
        let (media_type, bytes) = image.write(&digest(3), 7).unwrap();
        assert_eq!(media_type, kind);
        let expected = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"{config}","digest":"{}","size":7}},"layers":[{{"mediaType":"{to}","digest":"{}","size":20}}]}}"#,
            digest(3),
            digest(2)
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn the_header_counts_if_the_manifest_does_not_say() {
        let text = String::from_utf8(engines("T", &[])).unwrap().replace(r#""mediaType":"T","#, "");
        let image = Image::read(text.as_bytes(), DOCKER).unwrap();
        assert_eq!(image.write(&digest(3), 7).unwrap().0, DOCKER);
    }

    #[test]
    fn refuses_what_is_no_image() {
        assert!(Image::read(b"{}", OCI).unwrap_err().contains("index"));
        assert!(Image::read(br#"{"manifests":[]}"#, OCI).unwrap_err().contains("index"));
        assert!(Image::read(b"x", OCI).unwrap_err().contains("not one"));
        let bad = String::from_utf8(engines(OCI, &["a"])).unwrap().replace("sha256:", "sha256:..");
        assert!(Image::read(bad.as_bytes(), OCI).unwrap_err().contains("digest"));
        assert!(Image::read(&engines(OCI, &["a"; 501]), OCI).unwrap_err().contains("501 layers"));
    }
}
