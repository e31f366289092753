package client

import (
	"context"
	"log/slog"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Logger returns l, or a logger that discards everything if l is nil.
func Logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// ForwardLogs forwards librdkafka's log lines until lines is closed, with its client, or ended is closed.
// An error from which librdkafka recovers is logged as a warning.
func ForwardLogs(lines <-chan kafka.LogEvent, log *slog.Logger, ended <-chan struct{}) {
	for {
		var line kafka.LogEvent
		var open bool
		select {
		case line, open = <-lines:
		case <-ended:
		}
		if !open {
			return
		}
		level := slog.LevelWarn
		switch {
		case line.Level >= 7, strings.HasSuffix(line.Message, "property and will be ignored by this producer instance"),
			strings.HasSuffix(line.Message, "property and will be ignored by this consumer instance"): // one Config may serve both
			level = slog.LevelDebug
		case line.Level >= 5:
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "kafka: librdkafka: "+line.Message, "client", line.Name, "facility", line.Tag)
	}
}
