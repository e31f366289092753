// Package deadletter keeps the messages that a consumer could not handle in a dead-letter topic.
//
// A dead-letter topic has a partition for each partition of the consumed topic, under the same number. The entries of
// such a partition, read in order, are the only record of what is parked; see [wire.EntryKind]. The member of the group
// that is assigned the partition reads them first, so that it knows what its predecessor knew.
package deadletter

// Topic returns the name of the dead-letter topic of a group for a topic.
func Topic(topic, group string) string { return topic + "." + group + ".dlt" }
