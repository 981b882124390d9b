//! Files appear whole or not at all.

use super::common::*;
use lacuna::io::atomic;
use std::fs;
use std::io::Error as IoError;
use std::path::Path;

#[test]
fn a_failing_write_leaves_the_old_file_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("row.json");
    atomic::write_bytes(&path, b"old").unwrap();
    let full = || IoError::from_raw_os_error(28);
    let e = atomic::write(&path, |out| {
        out.write_all(&vec![b'n'; 1 << 20])?;
        Err(full())
    })
    .unwrap_err();
    assert_eq!(e.to_string(), format!("{}: {}", path.display(), full()));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names_in(folder.path()), ["row.json"]);
}

#[test]
fn a_failing_first_write_leaves_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("row.json");
    assert!(atomic::write(&path, |_| Err(IoError::other("no such layer"))).is_err());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_panic_inside_the_writer_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("row.json");
    assert!(std::panic::catch_unwind(|| atomic::write(&path, |_| panic!("inside"))).is_err());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/row.json");
    let line = atomic::write_bytes(&path, b"x").unwrap_err().to_string();
    assert_eq!(line, format!("{}: the folder {} does not exist", path.display(), folder.path().join("none").display()));
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let path = file.join("row.json");
    let line = atomic::write_bytes(&path, b"x").unwrap_err().to_string();
    assert!(line.starts_with(&format!("{}: ", path.display())), "{line}");
    let line = atomic::create_dir(&file).unwrap_err().to_string();
    assert!(line.starts_with(&format!("{}: ", file.display())), "{line}");
    assert!(atomic::create_dir(&path).is_err());
    assert!(atomic::write_bytes(folder.path(), b"x").unwrap_err().to_string().ends_with("is a folder, not a file"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_written_is_named_by_the_final_path() {
    // /proc takes no new files, whoever asks; permission bits do not bind the superuser.
    let line = atomic::write_bytes("/proc/row.json", b"x").unwrap_err().to_string();
    assert!(line.starts_with("/proc/row.json: ") && !line.contains(".part"), "{line}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_a_device_is_never_replaced() {
    use std::os::unix::fs::FileTypeExt;
    let line = atomic::write_bytes("/dev/full", b"x").unwrap_err().to_string();
    assert_eq!(line, format!("/dev/full: {}", IoError::from_raw_os_error(28)));
    assert!(sample().write("/dev/full").unwrap_err().to_string().starts_with("/dev/full: "));
    atomic::write_bytes("/dev/null", b"x").unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[cfg(unix)]
#[test]
fn a_new_file_has_the_permissions_of_any_new_file_and_an_old_one_keeps_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
    atomic::write_bytes(&ours, b"x").unwrap();
    fs::write(&plain, b"x").unwrap();
    assert_eq!(mode(&ours), mode(&plain));
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o600)).unwrap();
    atomic::write_bytes(&ours, b"y").unwrap();
    assert_eq!((mode(&ours), fs::read(&ours).unwrap()), (0o600, b"y".to_vec()));
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    atomic::write_bytes(&link, b"new").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_folder_is_made_with_those_above_it_and_left_if_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    atomic::create_dir(&path).unwrap();
    atomic::create_dir(&path).unwrap();
    assert!(path.is_dir());
}
