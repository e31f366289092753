// Package estest tests what is written against package es.
package estest
