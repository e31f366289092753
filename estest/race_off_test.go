//go:build !race

package estest_test

const underRace = false
