//! A provider's `ca_file`: read and checked with the rest of the configuration, so that a reload reads it again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::tls::{PemItem, parse_pem};

use super::json::{Json, Text};
use super::reader::Leaf;
use super::value::{is_line, unfit};
use crate::config::CaFile;
use crate::limits::{MAX_CA_FILE, MAX_QUOTED};
use crate::text::config::{CaProblem, ConfigText, Expected};
use crate::text::quoted;

/// The certificates in the file that the value names.
pub(super) fn ca_file(json: &Json) -> Leaf<CaFile> {
    let path = match json.text().map(Text::value) {
        Some(path) if is_line(path) => PathBuf::from(path),
        _ => return unfit(json, Expected::CaFile),
    };
    match read(&path).and_then(|pem| certificates(&pem)) {
        Ok(certificates) => Ok(CaFile::new(path, certificates)),
        Err(problem) => {
            Err(ConfigText::CaFile { path: quoted(&path.display().to_string(), MAX_QUOTED), problem })
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CaProblem> {
    let unreadable = |error: &io::Error| CaProblem::Unreadable(error.to_string());
    // Not opened before it is known to be a file: opening a pipe may wait for ever.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(CaProblem::NoFile);
    }
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    match file.take(MAX_CA_FILE + 1).read_to_end(&mut pem) {
        Ok(length) if length as u64 > MAX_CA_FILE => Err(CaProblem::TooLarge(MAX_CA_FILE)),
        Ok(_) => Ok(pem),
        Err(error) => Err(unreadable(&error)),
    }
}

/// Every certificate, in DER. One that cannot be used is a problem: left out in silence, it would be missed much later.
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
