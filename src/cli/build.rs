//! Keeps libtorch out of `fuseline`.
//!
//! `fuseline` never refers to what needs a model, and the linker drops what
//! nobody refers to; but C++ symbols that libtorch could interpose count as
//! referred to unless they are hidden.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bin=fuseline=-Wl,--exclude-libs=ALL");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
