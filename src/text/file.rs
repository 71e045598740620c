//! Why a file cannot be used, in both languages.

use std::io;

use super::Language;

/// What stands at a path where a file was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    /// A pipe (FIFO).
    Pipe,
    /// A Unix socket.
    Socket,
    /// A character or block device.
    Device,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub enum FileProblem {
    /// The system refuses it: the kind of its error, and its words.
    System(io::ErrorKind, String),
    /// It is not a regular file.
    Kind(FileKind),
    /// It is over the limit, bytes.
    TooLarge(u64),
}

impl FileProblem {
    /// The sentence in that language.
    pub fn say(&self, language: Language) -> String {
        match (self, language) {
            (Self::System(_, reason), _) => reason.clone(),
            (Self::Kind(kind), Language::Zh) => format!("不是普通文件，而是{}", kind.zh()),
            (Self::Kind(kind), Language::En) => format!("it is not a regular file but {}", kind.en()),
            (Self::TooLarge(limit), Language::Zh) => format!("超过上限 {limit} 字节"),
            (Self::TooLarge(limit), Language::En) => format!("it is over the limit of {limit} bytes"),
        }
    }
}

impl From<io::Error> for FileProblem {
    fn from(error: io::Error) -> Self {
        Self::System(error.kind(), error.to_string())
    }
}

impl FileKind {
    fn zh(self) -> &'static str {
        match self {
            Self::Directory => "目录",
            Self::Pipe => "管道（FIFO）",
            Self::Socket => "套接字",
            Self::Device => "设备",
        }
    }

    fn en(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::Pipe => "a pipe (FIFO)",
            Self::Socket => "a socket",
            Self::Device => "a device",
        }
    }
}
