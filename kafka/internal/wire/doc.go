// Package wire is the form of the messages that packages kafka and its internal ones exchange: records, dead letters, and the partition of a key.
// Of the client library it takes only the type of a message; it connects to nothing.
package wire
