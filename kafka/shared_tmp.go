package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// topicName is what Kafka takes for one.
var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// sameSetting tells whether librdkafka understands two values as the same.
func sameSetting(a, b kafka.ConfigValue) bool {
	return strings.EqualFold(fmt.Sprint(a), fmt.Sprint(b))
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("kafka: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}

// hear passes on what librdkafka says, until its client is closed or left behind. What it mends by itself it calls an error; to others that is a warning.
func hear(lines <-chan kafka.LogEvent, log *slog.Logger, ended <-chan struct{}) {
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

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
