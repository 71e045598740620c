//! A provider's `ca_file`: read and checked with the rest of the configuration, so that a reload reads it again.

use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::tls::{PemItem, parse_pem};

use super::json::Json;
use super::reader::Leaf;
use super::value::{line, unfit};
use crate::config::CaFile;
use crate::files;
use crate::limits::{MAX_CA_FILE, MAX_QUOTED};
use crate::text::config::{CaProblem, ConfigText};
use crate::text::quoted;

/// The certificates in the file that the value names.
pub(super) fn ca_file(json: &Json) -> Leaf<CaFile> {
    let path = PathBuf::from(line(json, usize::MAX).or_else(|rule| unfit(json, rule))?);
    match files::read(&path, MAX_CA_FILE).map_err(CaProblem::File).and_then(|pem| certificates(&pem)) {
        Ok(certificates) => Ok(CaFile::new(path, certificates)),
        Err(problem) => {
            Err(ConfigText::CaFile { path: quoted(&path.display().to_string(), MAX_QUOTED), problem })
        }
    }
}

/// Every certificate, in DER. An unusable one is a problem: skipped silently, it would show much later.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, CaProblem> {
    let mut found = Vec::new();
    let mut known = RootCertStore::empty();
    for item in parse_pem(pem) {
        let bad = CaProblem::BadCertificate(found.len() + 1);
        match item {
            Ok(PemItem::Certificate(certificate)) => {
                let der = certificate.der().to_vec();
                known.add(CertificateDer::from(der.as_slice())).map_err(|_| bad)?;
                found.push(der);
            }
            Ok(_) => {}
            Err(_) => return Err(bad),
        }
    }
    if found.is_empty() { Err(CaProblem::NoCertificate) } else { Ok(found) }
}
