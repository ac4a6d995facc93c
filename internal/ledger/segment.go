package ledger

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// How the envelopes of a segment are stored. Leaves are taken over the plain bytes, so this may change at any time.
const (
	codecS2   = 1 // S2 with the dictionary: fast, for the few events of a commit when little goes on
	codecZstd = 2 // zstd with the dictionary: denser, for many events together
)

// eventDict is an intent and an outcome as they typically look: what every envelope repeats. Segments on disk depend on
// it; a better one becomes another codec.
//
//go:embed dict/event-1
var eventDict []byte

// Dictionary ids that mark a zstd frame. Any constants do; they must never be used for other bytes.
const (
	eventDictID   = 0x0fa1e001
	contentDictID = 0x0fa1e002
)

var (
	eventS2  = s2.MakeDict(eventDict, nil)
	eventEnc = newEncoder(zstd.WithEncoderDictRaw(eventDictID, eventDict))
	eventDec = newDecoder(16<<20, zstd.WithDecoderDictRaw(eventDictID, eventDict))
)

func newEncoder(opts ...zstd.EOption) *zstd.Encoder {
	opts = append([]zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true)}, opts...)
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		panic(err) // only for options that contradict each other
	}
	return e
}

func newDecoder(limit uint64, opts ...zstd.DOption) *zstd.Decoder {
	opts = append(opts, zstd.WithDecoderMaxMemory(limit), zstd.WithDecoderConcurrency(0))
	d, err := zstd.NewReader(nil, opts...)
	if err != nil {
		panic(err)
	}
	return d
}

// maxSegment bounds what a segment may open to: 256 envelopes with their lengths.
const maxSegment = 256 * (4096 + 2)

// encodeSegment compresses envelopes together. plain is scratch space and is returned for reuse.
func encodeSegment(plain []byte, envelopes [][]byte) (codec int, data, scratch []byte) {
	plain = plain[:0]
	for _, e := range envelopes {
		plain = binary.AppendUvarint(plain, uint64(len(e)))
		plain = append(plain, e...)
	}
	if len(envelopes) < 8 {
		if data := eventS2.Encode(nil, plain); data != nil {
			return codecS2, data, plain
		}
	}
	return codecZstd, eventEnc.EncodeAll(plain, nil), plain
}

// decodeSegment calls each for every envelope, in order. The envelopes are good only during the call.
func decodeSegment(buf []byte, codec, count int, data []byte, each func(envelope []byte) error) (scratch []byte, err error) {
	switch codec {
	case codecS2:
		if n, err := s2.DecodedLen(data); err != nil || n > maxSegment {
			return buf, errors.New("its length is damaged")
		}
		buf, err = eventS2.Decode(buf[:cap(buf)], data)
	case codecZstd:
		buf, err = eventDec.DecodeAll(data, buf[:0])
	default:
		err = fmt.Errorf("codec %d is not known", codec)
	}
	if err != nil {
		return buf, fmt.Errorf("it does not decompress: %w", err)
	}
	rest := buf
	for range count {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return buf, fmt.Errorf("it holds fewer than %d events", count)
		}
		if err := each(rest[k : k+int(n) : k+int(n)]); err != nil {
			return buf, err
		}
		rest = rest[k+int(n):]
	}
	if len(rest) != 0 {
		return buf, fmt.Errorf("it holds more than %d events", count)
	}
	return buf, nil
}
