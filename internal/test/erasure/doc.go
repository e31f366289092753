// Package erasure tests that erased content is in none of the files of a store, and that the store goes on.
package erasure
