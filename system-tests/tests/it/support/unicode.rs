//! Real input: the lines of Unicode's character database, as Debian's package `unicode-data` brings it.

const FILE: &str = "/usr/share/unicode/UnicodeData.txt";

/// Code point and line of every entry of `UnicodeData.txt`. `None`, said on stderr, where the file is not installed;
/// with `CI=true` that fails the test.
pub(crate) fn unicode_data() -> Option<Vec<(String, String)>> {
    match std::fs::read_to_string(FILE) {
        Ok(text) => Some(text.lines().map(entry).collect()),
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{FILE}: {error}; install unicode-data");
            eprintln!("SKIPPED: {FILE}: {error}; install Debian's unicode-data to run this test");
            None
        }
    }
}

fn entry(line: &str) -> (String, String) {
    let code_point = line.split(';').next().unwrap_or_default();
    (code_point.to_owned(), line.to_owned())
}
