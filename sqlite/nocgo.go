//go:build !cgo

// This file is for builds without cgo. The driver has no SQLite then, and the compiler would print pages of undefined names. A file of
// another package stops the build before that, with one line.
package needs_cgo__set_CGO_ENABLED_1_and_install_a_C_compiler
