//! How `fuseline` is linked.
//!
//! It is kept free of libtorch: it never refers to what needs a model, and the
//! linker drops what nobody refers to; but C++ symbols that libtorch could
//! interpose count as referred to unless they are hidden.
//!
//! It has a fixed address: a quarter of a million pointers of DataFusion's
//! tables need no relocation then, which was a third of a run that has nothing
//! to do. Its libraries, stack and heap lie at random places all the same.

fn main() {
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux" {
        println!("cargo::rustc-link-arg-bin=fuseline=-Wl,--exclude-libs=ALL");
        if target("ENV") == "gnu" {
            println!("cargo::rustc-link-arg-bin=fuseline=-no-pie");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}
