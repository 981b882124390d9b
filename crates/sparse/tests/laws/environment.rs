//! What the environment asks for, in a process of its own, since it is read once a process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// A law of this file's program, and how many lines on standard error speak of `LACUNA_ISA` when it is set so.
fn lines_of_a_law(isa: &OsStr) -> Vec<String> {
    let law = "strides_of_x_and_y_do_not_matter";
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", law, "--nocapture"]).env("LACUNA_ISA", isa).output().unwrap();
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("1 passed"), "{isa:?}: {printed}{errors}");
    errors.lines().filter(|line| line.contains("LACUNA_ISA")).map(str::to_string).collect()
}

#[test]
fn kernels_that_cannot_run_are_replaced_and_said_once_and_products_stay_exact() {
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let best = lacuna_sparse::kernels::Isa::detected().name();
    let names = "is none of portable, neon, avx2 and avx512";
    for (isa, reason) in [
        (OsStr::new("foo"), format!("'foo' {names}")),
        (OsStr::new("AVX2"), format!("'AVX2' {names}")),
        (OsStr::from_bytes(b"\xff\n"), format!("'\u{fffd}\\n' {names}")),
        (OsStr::new(foreign), format!("'{foreign}' kernels cannot run on this machine")),
    ] {
        assert_eq!(lines_of_a_law(isa), [format!("warning: LACUNA_ISA: {reason}; {best} kernels run instead")]);
    }
    for isa in ["", "portable", best] {
        assert_eq!(lines_of_a_law(OsStr::new(isa)), [""; 0], "{isa}");
    }
}
