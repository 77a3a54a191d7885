//! Signatures that AWS asks for: Signature Version 4, for requests to `/` without a query.
//!
//! [`super::ecr`] signs its one request with it.
//!
//! **Invariant:** pure; the secret key is in nothing that is returned.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use super::digest::Digest;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt::Write as _;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, for which service, and when.
pub(super) struct Signer<'a> {
    pub(super) access_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// `20150830T123600Z`; the request says the same in `x-amz-date`.
    pub(super) time: &'a str,
}

impl Signer<'_> {
    /// The value of `Authorization`. All `headers` are signed; their names are in lower case, and `host` is among them.
    pub(super) fn authorization(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let mut headers = headers.to_vec();
        headers.sort_by_key(|(name, _)| *name);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut canonical = format!("{method}\n/\n\n");
        for (name, value) in headers {
            let value: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
            canonical.extend([name, ":", &value.join(" "), "\n"]);
        }
        canonical.extend(["\n", &names, "\n", &sha256(body)]);
        let date = self.time.split('T').next().unwrap_or_default();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.time, sha256(canonical.as_bytes()));
        let signature = hex(&hmac(&self.key(date), &to_sign));
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.access_key)
    }

    /// The key of a day, region and service.
    fn key(&self, date: &str) -> Vec<u8> {
        let first = format!("AWS4{}", self.secret_key).into_bytes();
        [date, self.region, self.service, "aws4_request"].iter().fold(first, |key, part| hmac(&key, part))
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do; the type cannot say so.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).as_str().trim_start_matches("sha256:").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HOST: (&str, &str) = ("host", "example.amazonaws.com");
    const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");

    fn signer() -> Signer<'static> {
        Signer {
            access_key: "AKIDEXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "service",
            time: DATE.1,
        }
    }

    /// Cases of the test suite that AWS publishes (`aws-sig-v4-test-suite`), by their names there.
    #[rstest]
    #[case::get_vanilla("GET", &[], "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")]
    #[case::post_vanilla("POST", &[], "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")]
    #[case::post_header_key_sort("POST", &[("my-header1", "value1")], "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c")]
    #[case::post_header_value_case("POST", &[("my-header1", "VALUE1")], "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d")]
    #[case::get_header_value_trim("GET", &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")], "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736")]
    #[case::post_x_www_form_urlencoded("POST", &[("content-type", "application/x-www-form-urlencoded")], "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a")]
    fn the_published_cases(
        #[case] method: &str,
        #[case] more: &[(&str, &str)],
        #[case] body: &str,
        #[case] names: &str,
        #[case] signature: &str,
    ) {
        let headers = [&[DATE, HOST], more].concat();
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, \
             Signature={signature}"
        );
        assert_eq!(signer().authorization(method, &headers, body.as_bytes()), expected);
    }

    /// The example of a derived key in the documentation of AWS.
    #[test]
    fn the_published_key() {
        let signer = Signer { service: "iam", ..signer() };
        assert_eq!(hex(&signer.key("20150830")), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }
}
