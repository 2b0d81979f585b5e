//! Plants a bug where a test of the tests asks for it: the node then answers reads without a lease. By a setting of the
//! build and not by a feature, which could be switched on by accident.

fn main() {
    println!("cargo:rerun-if-env-changed=CAIRN_PLANTED_BUG");
    if std::env::var_os("CAIRN_PLANTED_BUG").is_some() {
        println!("cargo:rustc-cfg=cairn_planted_bug");
    }
}
