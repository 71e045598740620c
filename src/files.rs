//! The only way to open a file that the configuration or the environment names. A pipe, a socket or a device
//! in its place could block the thread that opens, reads or writes it, so all but regular files are refused
//! (see open(2) and fifo(7)).

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};

use crate::limits::MAX_LINKS;
use crate::text::file::{FileKind, FileProblem};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Regular files.
    Regular,
    /// Regular files, and character devices such as `/dev/null` and terminals: for the log.
    Log,
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be opened or read, is not a regular file, or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileProblem> {
    let file = open(path, OpenOptions::new().read(true), Accept::Regular)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(FileProblem::TooLarge(limit)) } else { Ok(bytes) }
}

/// Opens a file of an accepted kind. Symbolic links are followed. The descriptor is `O_NONBLOCK`, which
/// matters for devices alone.
///
/// # Errors
/// The file cannot be opened, or is of another kind.
pub fn open(path: &Path, options: &mut OpenOptions, accept: Accept) -> Result<File, FileProblem> {
    // Opening a device can have side effects, so check first.
    check(path, accept)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = options.custom_flags(flags).open(path)?;
    // Another file may have replaced it since the check.
    check_type(file.metadata()?.file_type(), accept)?;
    Ok(file)
}

/// Checks the kind of the file at `path`. A file that does not exist or cannot be inspected passes.
///
/// # Errors
/// The file is of another kind.
pub fn check(path: &Path, accept: Accept) -> Result<(), FileProblem> {
    fs::metadata(path).map_or(Ok(()), |found| check_type(found.file_type(), accept))
}

fn check_type(found: FileType, accept: Accept) -> Result<(), FileProblem> {
    let kind = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_char_device() && accept == Accept::Log => return Ok(()),
        found if found.is_dir() => FileKind::Directory,
        found if found.is_fifo() => FileKind::Pipe,
        found if found.is_socket() => FileKind::Socket,
        _ => FileKind::Device,
    };
    Err(FileProblem::Kind(kind))
}

/// Checks that this user may write the file at `path`, or create it.
///
/// # Errors
/// The system would refuse it.
pub fn check_writable(path: &Path) -> Result<(), FileProblem> {
    let (place, wanted) = match path.parent() {
        _ if path.exists() => (path, Access::WRITE_OK),
        Some(folder) if !folder.as_os_str().is_empty() => (folder, Access::WRITE_OK | Access::EXEC_OK),
        _ => (Path::new("."), Access::WRITE_OK | Access::EXEC_OK),
    };
    Ok(rustix::fs::access(place, wanted).map_err(io::Error::from)?)
}

/// Path of the new content of the file at `path`, before a rename to it.
pub fn new_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Identity of a file, independent of its path.
#[derive(Debug, PartialEq, Eq)]
pub enum Identity {
    /// A file that exists: device and inode. Hard links share them.
    Inode(u64, u64),
    /// A file that does not exist yet: its name in an existing directory, else the given path.
    Path(PathBuf),
}

impl Identity {
    /// The identity of the file that opening `path` would open or create.
    pub fn of(path: &Path) -> Self {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            if let Ok(found) = fs::metadata(&path) {
                return Self::Inode(Metadata::dev(&found), Metadata::ino(&found));
            }
            // A link whose target does not exist.
            match fs::read_link(&path) {
                Ok(target) => path = path.with_file_name("").join(target),
                Err(_) => break,
            }
        }
        Self::Path(resolved(&path).unwrap_or(path))
    }
}

fn resolved(path: &Path) -> io::Result<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::canonicalize(directory.unwrap_or(Path::new(".")))?;
    Ok(directory.join(path.file_name().map_or_else(OsString::new, OsString::from)))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::{Accept, Identity, open, read};
    use crate::text::file::{FileKind, FileProblem};

    /// A directory of its own, removed on drop.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("ai-proxy-files-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("directory");
            Self(directory)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn file_of_another_kind_is_refused_at_once_for_reading_and_for_writing() {
        let scratch = Scratch::new("kinds");
        let (pipe, socket) = (scratch.0.join("pipe"), scratch.0.join("socket"));
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let _listener = UnixListener::bind(&socket).expect("bind");
        let link = scratch.0.join("link");
        symlink(&pipe, &link).expect("link");
        for (path, kind) in [
            (&*pipe, FileKind::Pipe),
            (&*link, FileKind::Pipe),
            (&*socket, FileKind::Socket),
            (&*scratch.0, FileKind::Directory),
            (Path::new("/dev/zero"), FileKind::Device),
        ] {
            assert_eq!(read(path, 10), Err(FileProblem::Kind(kind)), "{}", path.display());
            let opened = open(path, OpenOptions::new().append(true).create(true), Accept::Regular);
            assert_eq!(opened.err(), Some(FileProblem::Kind(kind)), "{}", path.display());
        }
        assert!(open(Path::new("/dev/null"), OpenOptions::new().append(true), Accept::Log).is_ok());
    }

    #[test]
    fn regular_file_is_read_up_to_its_limit_through_a_link_too() {
        let scratch = Scratch::new("limit");
        let (path, link) = (scratch.0.join("file"), scratch.0.join("link"));
        std::fs::write(&path, "0123456789").expect("write");
        symlink(&path, &link).expect("link");
        assert_eq!(read(&link, 10).as_deref(), Ok(&b"0123456789"[..]));
        assert_eq!(read(&path, 9), Err(FileProblem::TooLarge(9)));
        let missing = read(&scratch.0.join("missing"), 9);
        assert!(matches!(missing, Err(FileProblem::System(std::io::ErrorKind::NotFound, _))), "{missing:?}");
    }

    #[test]
    fn one_file_has_one_identity_under_every_name() {
        let scratch = Scratch::new("identity");
        let at = |name: &str| scratch.0.join(name);
        std::fs::create_dir(at("sub")).expect("directory");
        std::fs::write(at("file"), "").expect("write");
        std::fs::hard_link(at("file"), at("hard")).expect("link");
        symlink("file", at("soft")).expect("link");
        symlink("missing", at("dangling")).expect("link");
        symlink("round", at("round")).expect("link");
        for (one, other) in [
            ("file", "hard"),
            ("file", "soft"),
            ("file", "sub/../file"),
            ("missing", "sub/../missing"),
            ("missing", "dangling"),
        ] {
            assert_eq!(Identity::of(&at(one)), Identity::of(&at(other)), "{one} {other}");
        }
        for (one, other) in [("file", "missing"), ("missing", "missing.new"), ("round", "file")] {
            assert_ne!(Identity::of(&at(one)), Identity::of(&at(other)), "{one} {other}");
        }
    }
}
