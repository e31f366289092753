package application_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/loans/application"
)

func TestSchemas(t *testing.T) { estest.TestSchemas(t, application.Codec, "testdata/events.json") }
