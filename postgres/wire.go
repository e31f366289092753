package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The binary format of the few types that are sent in bulk. Encoding them here takes a fifth of the time of a general encoder, and a batch
// may have a thousand rows. Source: array_recv, int8recv, timestamptz_recv and the like in the server's src/backend/utils/adt. The format
// has been stable since version 7.4.
const (
	oidBytea = 17
	oidInt8  = 20
	oidInt4  = 23
	oidText  = 25
)

// An array is a one-dimensional array parameter without nulls. Its memory is reused.
type array struct {
	buf []byte
	n   int
}

// keptArray is the most memory that an array keeps for reuse. It suffices for thousands of small events.
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

// only returns the element of an array that has exactly one.
func (a *array) only() []byte { return a.buf[arrayHeader+4:] }

// params are the parameters of a call. Their memory is reused.
type params struct {
	values  [][]byte
	numbers []byte
}

// reset empties the parameters and drops their values.
func (p *params) reset() {
	clear(p.values)
	p.values, p.numbers = p.values[:0], p.numbers[:0]
}

func (p *params) add(values ...[]byte) { p.values = append(p.values, values...) }

func (p *params) int8(i int64) {
	p.numbers = binary.BigEndian.AppendUint64(p.numbers, uint64(i)) // earlier values keep pointing into the old array if this allocates a new one
	p.add(p.numbers[len(p.numbers)-8:])
}

func (p *params) oid(oid uint32) {
	p.numbers = binary.BigEndian.AppendUint32(p.numbers, oid)
	p.add(p.numbers[len(p.numbers)-4:])
}

func int8Param(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func getInt8(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }
func getInt4(b []byte) int   { return int(int32(binary.BigEndian.Uint32(b))) }

// getInts decodes an array of int4 or int8. It returns nil for null and empty arrays, and 0 for null elements.
func getInts(b []byte) ([]int64, error) {
	if len(b) < arrayHeader {
		return nil, nil
	}
	dimensions, n := getInt4(b), getInt4(b[12:])
	b = b[arrayHeader:]
	if dimensions != 1 || n < 0 || n > len(b)/4 {
		return nil, fmt.Errorf("got an array of %d dimensions and %d elements in %d bytes, want integers", dimensions, n, len(b))
	}
	ints := make([]int64, n)
	for i := range ints {
		if len(b) < 4 {
			return nil, errTruncated
		}
		size := getInt4(b)
		b = b[4:]
		switch {
		case size == -1:
			continue
		case size != 4 && size != 8:
			return nil, fmt.Errorf("got an array element of %d bytes, want an integer", size)
		case len(b) < size:
			return nil, errTruncated
		case size == 4:
			ints[i] = int64(getInt4(b))
		default:
			ints[i] = getInt8(b)
		}
		b = b[size:]
	}
	return ints, nil
}

var errTruncated = errors.New("value is truncated")

// epoch is the zero of timestamps, which count microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func getTime(b []byte) time.Time { return time.UnixMicro(epoch + getInt8(b)).UTC() }

// byteaText decodes the text format of bytea: hexadecimal digits after \x, or bytes of which some are escaped.
func byteaText(text []byte) ([]byte, error) {
	if digits, is := bytes.CutPrefix(text, []byte(`\x`)); is {
		data := make([]byte, hex.DecodedLen(len(digits)))
		_, err := hex.Decode(data, digits)
		return data, err
	}
	data := make([]byte, 0, len(text))
	for len(text) > 0 {
		switch {
		case text[0] != '\\':
			data, text = append(data, text[0]), text[1:]
		case len(text) > 1 && text[1] == '\\':
			data, text = append(data, '\\'), text[2:]
		case len(text) > 3:
			octal, err := strconv.ParseUint(string(text[1:4]), 8, 8)
			if err != nil {
				return nil, fmt.Errorf("escaped bytes: %w", err)
			}
			data, text = append(data, byte(octal)), text[4:]
		default:
			return nil, errTruncated
		}
	}
	return data, nil
}
