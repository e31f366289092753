// Package walletpb has the events of a wallet as protocol buffers, generated from wallet.proto by
//
//	protoc -I. --go_out=. --go_opt=paths=source_relative wallet.proto
package walletpb
