//! The file that `pull` writes: an OCI image layout in a tar, with the file beside it that older engines look for.
//!
//! Both descriptions name the same blobs, so Docker 20.10 and newer, Podman and skopeo read it.
//!
//! **Invariant:** pure. All sizes are known from the manifest, so each byte of the file has its place before anything is
//! fetched: a file that was cut off can be gone on with, wherever that was.

use crate::{
    archive::{Entry, Kind, Writer},
    registry::{Image, digest::Digest},
};
use serde_json::json;

/// Bytes of a block of a tar.
const BLOCK: u64 = 512;

/// What stands in the file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A blob that has to be fetched.
    Blob {
        /// Its digest.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
}

impl Piece {
    /// Bytes of it.
    #[must_use]
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob { size, .. } => *size,
        }
    }
}

/// The pieces of the archive of an image. `name` is what an engine calls it once it is loaded, as `windlass/hello:7`.
///
/// # Errors
/// A name or size that a tar cannot hold.
pub(super) fn pieces(manifest: &[u8], image: &Image, name: &str) -> std::io::Result<Vec<Piece>> {
    let digest = Digest::of(manifest);
    let mut layout = Layout { pieces: Vec::new(), open: Vec::new() };
    let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": image.media_type(),
            "digest": digest.as_str(),
            "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": format!("docker.io/{name}"),
                "org.opencontainers.image.ref.name": tag,
            },
        }],
    });
    let layers: Vec<_> = image.layers.iter().map(|layer| path(&layer.digest)).collect();
    // As `docker save` writes it; engines before 25 know no other.
    let docker = json!([{"Config": path(&image.config), "RepoTags": [name], "Layers": layers}]);
    layout.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    layout.file("index.json", index.to_string().as_bytes())?;
    layout.file("manifest.json", docker.to_string().as_bytes())?;
    layout.file(&path(&digest), manifest)?;
    for (blob, size) in image.blobs() {
        layout.blob(blob, size)?;
    }
    Ok(layout.end())
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replace(':', "/"))
}

struct Layout {
    pieces: Vec<Piece>,
    /// Bytes since the last blob.
    open: Vec<u8>,
}

impl Layout {
    fn header(&mut self, path: &str, size: u64) -> std::io::Result<()> {
        let kind = Kind::File { size, linked: false };
        let entry = Entry { path: path.as_bytes().to_vec(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 0 };
        Writer::new(&mut self.open).entry(&entry, false)
    }

    fn file(&mut self, path: &str, content: &[u8]) -> std::io::Result<()> {
        self.header(path, content.len() as u64)?;
        self.open.extend_from_slice(content);
        self.pad(content.len() as u64);
        Ok(())
    }

    fn blob(&mut self, digest: &Digest, size: u64) -> std::io::Result<()> {
        self.header(&path(digest), size)?;
        self.pieces.push(Piece::Bytes(std::mem::take(&mut self.open)));
        self.pieces.push(Piece::Blob { digest: digest.clone(), size });
        self.pad(size);
        Ok(())
    }

    fn pad(&mut self, size: u64) {
        let over = (BLOCK - size % BLOCK) % BLOCK;
        self.open.extend((0..over).map(|_| 0));
    }

    fn end(mut self) -> Vec<Piece> {
        self.open.extend((0..2 * BLOCK).map(|_| 0));
        self.pieces.push(Piece::Bytes(self.open));
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Reader;

    #[test]
    fn a_tar_with_both_descriptions() {
        let (config, layer) = (b"{}".to_vec(), vec![7; 1000]);
        let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).as_str(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer), blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        })
        .to_string();
        let image = Image::read(manifest.as_bytes(), "").unwrap();
        let pieces = pieces(manifest.as_bytes(), &image, "windlass/hello:7").unwrap();
        let mut file = Vec::new();
        for piece in &pieces {
            let at = file.len();
            match piece {
                Piece::Bytes(bytes) => file.extend_from_slice(bytes),
                Piece::Blob { digest, .. } if *digest == Digest::of(&config) => file.extend_from_slice(&config),
                Piece::Blob { .. } => file.extend_from_slice(&layer),
            }
            assert_eq!((file.len() - at) as u64, piece.size());
        }
        assert_eq!(file.len() % 512, 0);
        let mut reader = Reader::new(file.as_slice());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut content = vec![0; usize::try_from(entry.size()).unwrap()];
            let mut at = 0;
            while at < content.len() {
                at += reader.content(&mut content[at..]).unwrap();
            }
            found.push((String::from_utf8(entry.path).unwrap(), content));
        }
        let names: Vec<_> = found.iter().map(|(name, _)| name.clone()).collect();
        let digests = [Digest::of(manifest.as_bytes()), Digest::of(&config), Digest::of(&layer)];
        let blobs = digests.iter().map(path);
        let expected: Vec<_> =
            ["oci-layout", "index.json", "manifest.json"].into_iter().map(str::to_owned).chain(blobs).collect();
        assert_eq!(names, expected);
        let docker: serde_json::Value = serde_json::from_slice(&found[2].1).unwrap();
        assert_eq!(docker[0]["RepoTags"][0], "windlass/hello:7");
        assert_eq!(docker[0]["Layers"], json!([path(&digests[2]), path(&digests[2])]));
        let index: serde_json::Value = serde_json::from_slice(&found[1].1).unwrap();
        assert_eq!(index["manifests"][0]["digest"], digests[0].as_str());
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "7");
    }
}
