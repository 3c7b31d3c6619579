//! Files of a size that settings have.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of a file of at most `most` bytes; the error is a sentence without its name, and
/// repeats nothing of it.
pub(super) fn read(path: &Path, most: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("is longer than the {most} bytes that it may have"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text (UTF-8)".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_text_of_a_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4), Ok("four".to_owned()));
        assert!(read(&path, 3).unwrap_err().contains("3 bytes"));
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path, 4).unwrap_err().contains("not text"));
        assert!(
            read(directory.path(), 4)
                .unwrap_err()
                .contains("cannot be read")
        );
        let gone = directory.path().join("gone");
        assert!(read(&gone, 4).unwrap_err().contains("cannot be read"));
    }
}
