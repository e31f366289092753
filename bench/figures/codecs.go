package main

import (
	"context"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

func codecFigures() []figure {
	return []figure{
		{
			"protobuf-execute", "commands on a cached wallet without a store, each with an event of a number, a list and a text as protocol buffer, against JSON",
			atLeast(1), rates(codecs(work.ProtobufPurchases)),
		},
		{
			"cbor-execute", "commands on a cached wallet without a store, each with an event of a number, a list and a text in CBOR, against JSON",
			atLeast(1), rates(codecs(work.CBORPurchases)),
		},
	}
}

// codecs compares a codec with JSON, where the codec takes the largest part of the time.
func codecs(other func() measure.Side) setUp {
	return func(context.Context, *round) (ours, theirs measure.Side, err error) {
		return other(), work.JSONPurchases(), nil
	}
}
