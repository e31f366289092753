package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The binary format of the few types that go over the wire in bulk. Encoding them here costs a fifth of what a general
// encoder does, and a batch has a thousand rows. Source: array_recv, int8recv, timestamptz_recv and the like in the server's
// src/backend/utils/adt; the format has been stable since version 7.4.
const (
	oidBytea = 17
	oidInt8  = 20
	oidInt4  = 23
	oidText  = 25
)

// An array is a one-dimensional array parameter without nulls. Its memory is used again.
type array struct {
	buf []byte
	n   int
}

// keptArray bounds the memory that an array keeps for its next use: enough for thousands of small events, and no more after a large one.
const keptArray = 1 << 20

const arrayHeader = 20 // dimensions, has nulls, type, length, lower bound

func (a *array) reset(oid uint32) {
	a.n = 0
	if cap(a.buf) > keptArray {
		a.buf = nil
	}
	a.buf = append(a.buf[:0], 0, 0, 0, 1, 0, 0, 0, 0)
	a.buf = binary.BigEndian.AppendUint32(a.buf, oid)
	a.buf = append(a.buf, 0, 0, 0, 0, 0, 0, 0, 1)
}

func (a *array) text(s string) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(s)))
	a.buf = append(a.buf, s...)
}

func (a *array) bytes(b []byte) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
}

func (a *array) int8(i int64) {
	a.n++
	a.buf = append(a.buf, 0, 0, 0, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(i))
}

func (a *array) int4(i int) {
	a.n++
	a.buf = append(a.buf, 0, 0, 0, 4)
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(int32(i)))
}

// param returns the parameter's value.
func (a *array) param() []byte {
	if a.n == 0 {
		copy(a.buf, []byte{0, 0, 0, 0}) // no dimensions
		return a.buf[:12]
	}
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.n))
	return a.buf
}

// only returns the element of an array that has just one.
func (a *array) only() []byte { return a.buf[arrayHeader+4:] }

// params are the parameters of a call. Their memory is used again.
type params struct {
	values  [][]byte
	numbers []byte
}

// reset empties them, and keeps nothing of what the values point to.
func (p *params) reset() {
	clear(p.values)
	p.values, p.numbers = p.values[:0], p.numbers[:0]
}

func (p *params) add(values ...[]byte) { p.values = append(p.values, values...) }

func (p *params) int8(i int64) {
	p.numbers = binary.BigEndian.AppendUint64(p.numbers, uint64(i)) // if that is a new piece of memory, what was added before keeps the old one
	p.add(p.numbers[len(p.numbers)-8:])
}

func (p *params) oid(oid uint32) {
	p.numbers = binary.BigEndian.AppendUint32(p.numbers, oid)
	p.add(p.numbers[len(p.numbers)-4:])
}

func int8Param(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func getInt8(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }
func getInt4(b []byte) int   { return int(int32(binary.BigEndian.Uint32(b))) }

// getInts reads an array of int4 or int8; null and empty arrays are nil, and null elements 0.
func getInts(b []byte) ([]int64, error) {
	if len(b) < arrayHeader {
		return nil, nil
	}
	dimensions, n := getInt4(b), getInt4(b[12:])
	b = b[arrayHeader:]
	if dimensions != 1 || n < 0 || n > len(b)/4 {
		return nil, fmt.Errorf("array of %d dimensions and %d elements in %d bytes where integers were expected", dimensions, n, len(b))
	}
	ints := make([]int64, n)
	for i := range ints {
		if len(b) < 4 {
			return nil, errCutOff
		}
		size := getInt4(b)
		b = b[4:]
		switch {
		case size == -1:
			continue
		case size != 4 && size != 8:
			return nil, fmt.Errorf("array element of %d bytes where an integer was expected", size)
		case len(b) < size:
			return nil, errCutOff
		case size == 4:
			ints[i] = int64(getInt4(b))
		default:
			ints[i] = getInt8(b)
		}
		b = b[size:]
	}
	return ints, nil
}

var errCutOff = errors.New("array of integers is cut off")

// Timestamps are microseconds since 2000.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func getTime(b []byte) time.Time { return time.UnixMicro(epoch + getInt8(b)).UTC() }
