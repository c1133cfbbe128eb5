//! From symbols to names as they stand in the source. A name is never cut.

/// The name behind a symbol of C++ or Rust (both manglings); other symbols stay as they are.
pub fn demangle(symbol: &str) -> String {
    // Versions of shared libraries' symbols: memcpy@@GLIBC_2.14.
    let bare = match symbol.split_once('@') {
        Some((name, _)) if !name.is_empty() => name,
        _ => symbol,
    };
    if let Ok(rust) = rustc_demangle::try_demangle(bare) {
        return format!("{rust:#}");
    }
    demangle_cpp(bare).unwrap_or_else(|| bare.to_owned())
}

/// What compilers append to the symbol of a part of a function stays as a remark: `.cold` gives ` [.cold]`.
fn demangle_cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") {
        return None;
    }
    let (mangled, suffix) = match symbol.split_once('.') {
        Some((name, rest)) => (name, format!(" [.{rest}]")),
        None => (symbol, String::new()),
    };
    let name = cpp_demangle::Symbol::new(mangled).ok()?.demangle().ok()?;
    Some(format!("{name}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_of_three_manglings() {
        for (symbol, name) in [
            ("_ZN3ads6Server5serveERKSs", "ads::Server::serve(std::string const&)"),
            ("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "core::ptr::drop_in_place"),
            ("_RNvCs1234_7mycrate4main", "mycrate::main"),
            ("_ZN3ads4growEv.cold", "ads::grow() [.cold]"),
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("main", "main"),
            ("_Z", "_Z"),
        ] {
            assert_eq!(demangle(symbol), name);
        }
    }

    #[test]
    fn long_names_are_whole() {
        let part = "a_name_that_is_rather_long";
        let path: String = (0..50).map(|_| format!("{}{part}", part.len())).collect();
        assert_eq!(demangle(&format!("_ZN{path}Ev")), format!("{}()", vec![part; 50].join("::")));
    }
}
