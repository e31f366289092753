// Package client is what the parts of package kafka share to reach a cluster: settings, readers, topics, and errors.
package client
